"""The installed Python distributions as documents: their long descriptions, with the summary as a human reference."""

import re
from collections.abc import Iterator
from importlib import metadata

from limbeck.corpus.markup.cleaning import clean_markup, clean_text, without_verbatim
from limbeck.corpus.readers import RawRow
from limbeck.corpus.text.invisible import is_blank

_MIN_REFERENCE_WORDS = 2


def read_packages() -> Iterator[RawRow]:
    """Yield one row per installed distribution, by name, with origin `name==version`.

    The document is the cleaned long description; the reference is the summary, which is removed from the document if it occurs
    there verbatim. A distribution found twice counts once: the one that Python would import.
    """
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        try:
            name = distribution.metadata["Name"]
        except (UnicodeDecodeError, AttributeError):
            name = None
        key = re.sub(r"[-_.]+", "-", name).lower() if name else f"(unnamed) {getattr(distribution, '_path', len(found))}"
        found.setdefault(key, distribution)
    for key in sorted(found):
        yield _read(key, found[key])


def _read(key: str, distribution: metadata.Distribution) -> RawRow:
    try:
        header = distribution.metadata
        payload = header.get_payload()  # type: ignore[attr-defined]  # an email message, which the protocol hides
        name, version = header["Name"], header["Version"]
    except (UnicodeDecodeError, AttributeError):
        return RawRow(key.rsplit("/", 1)[-1], "", reason="its metadata cannot be read")
    if not name or not version:
        return RawRow(key.rsplit("/", 1)[-1], "", reason="its metadata has no name or version")
    origin = f"{name}=={version}"
    summary = _stated(header["Summary"])
    description = _stated(payload if isinstance(payload, str) and not is_blank(payload) else _unfolded(header["Description"]))
    if not description:
        return RawRow(origin, "", reason="no description")
    document = clean_markup(description, header["Description-Content-Type"] or "")
    if not document:
        return RawRow(origin, "", reason="no prose in its description")
    if len(summary.split()) < _MIN_REFERENCE_WORDS:
        return RawRow(origin, document, reason="no summary")
    document = without_verbatim(document, summary)
    return RawRow(origin, document, summary, None if document else "no prose beside its summary")


def _stated(value: str | None) -> str:
    """A field's text, or "" if its author left it empty."""
    text = clean_text(value or "")
    text = text.encode("utf-8", "replace").decode("utf-8")  # undecodable bytes arrive as lone surrogates
    return "" if text.upper() in ("UNKNOWN", "NONE") else text


def _unfolded(value: str | None) -> str:
    """A description from the header, whose continuation lines are indented by eight characters (or by seven and a bar)."""
    return re.sub(r"(?m)^(?: {8}| {7}\|)", "", value or "")
