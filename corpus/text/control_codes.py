"""Control codes: text added to a source that a student learns to follow. Pure functions of strings.

Referee (Sclar et al., 2022) appends a bucket of the compression ratio, ten times, to the sentence; formats and constants are
those of its released code. The codes in words are in InfoSumm's style (Jung et al., 2024), whose exact wording is not published.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.corpus.errors import LimbeckError

CONTROL_MARK = "Ξ"
DELIMITER = " TL;DR: "
END = "Δ"
BUCKETS = 10
REPEATS = 10
LEVELS = ("low", "medium", "high")
LENGTHS = ("short", "medium", "long")


def compression_bucket(ratio: float) -> int | None:
    """The bucket [i/10, (i+1)/10) of summary characters / sentence characters, or None if the summary is not shorter."""
    return next((bucket for bucket in range(BUCKETS) if bucket / BUCKETS <= ratio < (bucket + 1) / BUCKETS), None)


def referee_prompt(sentence: str, *, next_sentence: str | None = None, bucket: int | None = None) -> str:
    """The prompt of Referee's model: the sentence, the mark followed by its next sentence or by a bucket ten times, and the
    delimiter.

    Raises LimbeckError for both at once, for a bucket outside 0 to 9, and for a text that contains one of the marks.
    """
    if next_sentence is not None and bucket is not None:
        raise LimbeckError("a control code is either next_sentence or bucket; pass only one of them")
    if bucket is not None and not 0 <= bucket < BUCKETS:
        raise LimbeckError(f"bucket {bucket} is out of range (0-{BUCKETS - 1})")
    for text in (sentence, next_sentence or ""):
        _check(text)
    code = next_sentence if bucket is None else " ".join([str(bucket)] * REPEATS)
    return f"{sentence} {DELIMITER}" if code is None else f"{sentence} {CONTROL_MARK} {code} {DELIMITER}"


def referee_text(sentence: str, summary: str, *, next_sentence: str | None = None, bucket: int | None = None) -> str:
    """A training row of Referee's model: the prompt, the summary and the end mark (after a space if there is a code)."""
    _check(summary)
    end = END if next_sentence is None and bucket is None else f" {END}"
    return f"{referee_prompt(sentence, next_sentence=next_sentence, bucket=bucket)} {summary}{end}"


def referee_summary(continuation: str) -> str | None:
    """The summary in a model's continuation of the prompt, up to the end mark; None if it has no end mark."""
    summary, mark, _ = continuation.partition(END)
    return summary.strip() if mark else None


@dataclass(frozen=True)
class Attributes:
    """Requested attributes of a summary: buckets from 0 to 2 (null: not requested) and words that it must contain."""

    length: int | None = None
    extractiveness: int | None = None
    specificity: int | None = None
    keywords: Sequence[str] = ()


def attribute_code(attributes: Attributes) -> str:
    """The attributes in words, "Length: short | Extractiveness: low | Specificity: high | Keywords: a, b"; "" for none.

    Raises LimbeckError for a bucket outside 0 to 2.
    """
    named = (
        ("Length", attributes.length, LENGTHS),
        ("Extractiveness", attributes.extractiveness, LEVELS),
        ("Specificity", attributes.specificity, LEVELS),
    )
    parts = []
    for name, bucket, levels in named:
        if bucket is None:
            continue
        if not 0 <= bucket < len(levels):
            raise LimbeckError(f"{name.lower()} bucket {bucket} is out of range (0-{len(levels) - 1})")
        parts.append(f"{name}: {levels[bucket]}")
    if attributes.keywords:
        parts.append(f"Keywords: {', '.join(attributes.keywords)}")
    return " | ".join(parts)


def attribute_prompt(document: str, attributes: Attributes) -> str:
    """The prompt for a summary with attributes: DOCUMENT, CODE and "TL;DR:"."""
    code = attribute_code(attributes)
    return "\n".join([document.rstrip(), *([code] if code else []), DELIMITER.strip()])


def parsed_attributes(code: str) -> Attributes:
    """Parse the output of `attribute_code`; raises LimbeckError for anything else."""
    found: dict[str, str] = dict(part.split(": ", 1) for part in code.split(" | ") if ": " in part)
    buckets: dict[str, int | None] = {}
    for name, levels in (("Length", LENGTHS), ("Extractiveness", LEVELS), ("Specificity", LEVELS)):
        level = found.pop(name, None)
        if level is not None and level not in levels:
            raise LimbeckError(f"{level!r} is not a level of {name.lower()}; known are {', '.join(levels)}")
        buckets[name.lower()] = None if level is None else levels.index(level)
    words = found.pop("Keywords", "")
    if found:
        raise LimbeckError(
            f"{next(iter(found))!r} is not a control attribute; known are length, extractiveness, specificity, keywords"
        )
    return Attributes(**buckets, keywords=tuple(words.split(", ")) if words else ())


def _check(text: str) -> None:
    for mark in (CONTROL_MARK, END, DELIMITER):
        if mark in text:
            raise LimbeckError(f"the text contains {mark.strip()!r}, which is reserved in Referee's format; exclude such rows")
