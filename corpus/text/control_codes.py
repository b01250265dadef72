"""Control codes: what stands beside a source so that a student learns to obey it. Pure functions of strings.

Referee (Sclar et al., 2022) writes a bucket of compression ten times behind the sentence; formats and constants are those of its
released code. The codes in words are in InfoSumm's style (Jung et al., 2024), whose own wording is not published.
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
    """The bucket [i/10, (i+1)/10) of summary characters / sentence characters, or None where the summary is no shorter."""
    return next((bucket for bucket in range(BUCKETS) if bucket / BUCKETS <= ratio < (bucket + 1) / BUCKETS), None)


def referee_prompt(sentence: str, *, next_sentence: str | None = None, bucket: int | None = None) -> str:
    """What Referee's model continues: the sentence, behind the mark its next sentence or a bucket ten times, and the delimiter.

    Raises LimbeckError for both at once, for a bucket outside 0 to 9, and for a text that holds one of the marks.
    """
    if next_sentence is not None and bucket is not None:
        raise LimbeckError("Referee's mark stands before a next sentence or before a bucket; give one of the two")
    if bucket is not None and not 0 <= bucket < BUCKETS:
        raise LimbeckError(f"bucket {bucket} is none; they are 0 to {BUCKETS - 1}")
    for text in (sentence, next_sentence or ""):
        _check(text)
    code = next_sentence if bucket is None else " ".join([str(bucket)] * REPEATS)
    return f"{sentence} {DELIMITER}" if code is None else f"{sentence} {CONTROL_MARK} {code} {DELIMITER}"


def referee_text(sentence: str, summary: str, *, next_sentence: str | None = None, bucket: int | None = None) -> str:
    """A row that Referee's model learns: the prompt, the summary and the end mark (after a space where there is a code)."""
    _check(summary)
    end = END if next_sentence is None and bucket is None else f" {END}"
    return f"{referee_prompt(sentence, next_sentence=next_sentence, bucket=bucket)} {summary}{end}"


def referee_summary(continuation: str) -> str | None:
    """The summary in what a model wrote behind the prompt, up to the end mark; None where it never ended."""
    summary, mark, _ = continuation.partition(END)
    return summary.strip() if mark else None


@dataclass(frozen=True)
class Attributes:
    """What a summary is to be: buckets from 0 to 2 (null: not asked for) and words that it has to hold."""

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
            raise LimbeckError(f"{name.lower()} bucket {bucket} is none; they are 0 to {len(levels) - 1}")
        parts.append(f"{name}: {levels[bucket]}")
    if attributes.keywords:
        parts.append(f"Keywords: {', '.join(attributes.keywords)}")
    return " | ".join(parts)


def attribute_prompt(document: str, attributes: Attributes) -> str:
    """A document with its control code behind it, ready to be continued with the summary: DOCUMENT, CODE and "TL;DR:"."""
    code = attribute_code(attributes)
    return "\n".join([document.rstrip(), *([code] if code else []), DELIMITER.strip()])


def parsed_attributes(code: str) -> Attributes:
    """The attributes that `attribute_code` wrote; raises LimbeckError for what it would not write."""
    found: dict[str, str] = dict(part.split(": ", 1) for part in code.split(" | ") if ": " in part)
    buckets: dict[str, int | None] = {}
    for name, levels in (("Length", LENGTHS), ("Extractiveness", LEVELS), ("Specificity", LEVELS)):
        level = found.pop(name, None)
        if level is not None and level not in levels:
            raise LimbeckError(f"{level!r} is no level of {name.lower()}; there are {', '.join(levels)}")
        buckets[name.lower()] = None if level is None else levels.index(level)
    words = found.pop("Keywords", "")
    if found:
        raise LimbeckError(
            f"{next(iter(found))!r} is no control attribute; there are length, extractiveness, specificity, keywords"
        )
    return Attributes(**buckets, keywords=tuple(words.split(", ")) if words else ())


def _check(text: str) -> None:
    for mark in (CONTROL_MARK, END, DELIMITER):
        if mark in text:
            raise LimbeckError(f"the text holds {mark.strip()!r}, which Referee's format reserves; leave such rows out")
