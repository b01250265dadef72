"""Pairs by splicing: a word or a clause is inserted, giving a sentence with it, without it, and with another."""

import re
from collections.abc import Iterator
from random import Random

from limbeck.filters.nli_model import words
from limbeck.filters.nli_model.rules import Label, NliPair, articles, capital
from limbeck.filters.nli_model.swaps import counted

_PLURAL = re.compile(r"^((?:The )?[A-Z][a-z]{3,}s(?: [a-z]{3,}s)?)(?= (?:can|are|have|will|were) )")
_NOUN_SLOT = re.compile(r"\b(?:is|was|has|had|uses|provides|contains|offers|creates|had|built|makes|takes) (an?) (?=[a-z]+[ .])")
_UNCOUNTED = re.compile(
    r"\b(?:has|have|supports|provides|contains|includes|uses|offers|adds|needs|requires|returns|creates|generates) "
    r"(?=[a-z]{3,}s\b)"
)
_CLAUSE = re.compile(r"(?i)\b(?:that|which|who|where|because|although|while|since|so|or|can|will|may|should|have|has) |[,(]")
_EVENT = re.compile(r"\b(?:was|were|is|are) (?:\w+ly )?\w+(?:ed|en|wn|lt|de)\b")
_TAILS = (
    re.compile(r", (?:which|where) [^,.]+\.$"),
    re.compile(r" (?:because|since|so that|after|while) [^,.]+\.$"),
    re.compile(r" (?:for|with|from|by|on|in|through|using|via|under|during) [^,.]+\.$"),
)
_INDEPENDENT = re.compile(r"^(?:It|They|The \w+|This \w+|There|We|You) (?:is|are|can|has|have|will|was|were|\w+s) [^,]+\.$")
_ADVERB_SLOT = re.compile(r"^(?:[A-Z][\w.-]*(?: [a-z]+)?) (?:is |was |can |will )(?=[a-z]+ed\b|[a-z]+en\b)")

_SOME = ("some", "several", "many", "most")
_QUANTIFIERS: tuple[tuple[str, str, Label], ...] = (
    ("all", "some", "entailment"),
    ("all", "most", "entailment"),
    ("all", "many", "entailment"),
    ("most", "some", "entailment"),
    ("many", "some", "entailment"),
    ("several", "some", "entailment"),
    ("some", "all", "neutral"),
    ("some", "most", "neutral"),
    ("many", "all", "neutral"),
    ("many", "most", "neutral"),
    ("several", "most", "neutral"),
    ("most", "all", "neutral"),
    *((some, "no", "contradiction") for some in ("all", *_SOME)),
    *(("no", some, "contradiction") for some in ("all", *_SOME)),
)


def quantified(sentence: str, draw: Random) -> Iterator[NliPair]:
    """Statements about all, most, some and none, related by the square of opposition."""
    if words.NEGATED.search(sentence) or words.QUANTIFIED.search(sentence) or words.UNCERTAIN.search(sentence):
        return
    if found := _PLURAL.match(sentence):
        noun = re.sub(r"^the ", "", found[1][:1].lower() + found[1][1:])
        rest = f" {noun}{sentence[found.end() :]}"
        for before, after, label in _quantifiers(draw):
            yield NliPair(capital(before) + rest, capital(after) + rest, label, "quantifier")
    elif found := _UNCOUNTED.search(sentence):
        start, rest = sentence[: found.end()], sentence[found.end() :]
        for before, after, label in _quantifiers(draw):
            yield NliPair(f"{start}{before} {rest}", f"{start}{after} {rest}", label, "quantifier")


def _quantifiers(draw: Random) -> Iterator[tuple[str, str, Label]]:
    """One pair of quantifiers per label."""
    for label in ("entailment", "neutral", "contradiction"):
        yield draw.choice([entry for entry in _QUANTIFIERS if entry[2] == label])


def qualified(sentence: str, draw: Random) -> Iterator[NliPair]:
    """An adjective inserted into both sides: its opposite contradicts, a synonym is entailed, an unrelated one is neutral."""
    found = _NOUN_SLOT.search(sentence)
    if not found or words.UNCERTAIN.search(sentence):
        return

    def with_adjective(adjective: str) -> str:
        return articles(f"{sentence[: found.end()]}{adjective} {sentence[found.end() :]}")

    one, opposite = draw.choice(words.OPPOSITES)[:: draw.choice((1, -1))]
    yield NliPair(with_adjective(one), with_adjective(opposite), "contradiction", "antonym")
    others = [adjective for couple in words.OPPOSITES for adjective in couple if one not in couple and opposite not in couple]
    yield NliPair(with_adjective(one), with_adjective(draw.choice(others)), "neutral", "changed modifier")
    yield NliPair(with_adjective(one), sentence, "entailment", "drop modifier")
    yield NliPair(sentence, with_adjective(one), "neutral", "added modifier")


def numbered(sentence: str, draw: Random) -> Iterator[NliPair]:
    """A number inserted before a plural; then as in `swaps.counted`."""
    if (found := _UNCOUNTED.search(sentence)) and not re.search(r"\d", sentence):
        number = draw.choice(
            (*words.NUMBERS.values(), *map(str, (3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 50, 60, 100, 200, 300)))
        )
        yield from counted(f"{sentence[: found.end()]}{number} {sentence[found.end() :]}", draw)


def timed(sentence: str, draw: Random) -> Iterator[NliPair]:
    """A time, place or person added to an event: another one contradicts, none is entailed, and the reverse is neutral."""
    if words.UNCERTAIN.search(sentence) or not _EVENT.search(sentence) or _CLAUSE.search(sentence):
        return
    preposition, kind = draw.choice((("in", 3), ("on", 4), ("in", 5), ("in", 6), ("together with", 7)))
    names = [name for name in words.NAMES[kind] if name not in sentence]
    one, other = draw.sample(names, 2)
    full, changed = (f"{sentence[:-1]} {preposition} {name}." for name in (one, other))
    if kind != 7:
        yield NliPair(full, changed, "contradiction", "temporal" if kind < 5 else "entity")
    yield NliPair(full, sentence, "entailment", "drop modifier")
    yield NliPair(sentence, full, "neutral", "added content")


def enriched(sentence: str, other: str, draw: Random) -> Iterator[NliPair]:
    """The content of another sentence, appended: neutral; removed again: entailed."""
    if words.NEGATED.search(sentence) or re.search(r"[?:;]", sentence + other):
        return
    joined = list(with_clause(sentence, other))
    if found := _ADVERB_SLOT.search(sentence):
        joined.append(f"{sentence[: found.end()]}{draw.choice(words.SPLICED)} {sentence[found.end() :]}")
    if joined:
        text = draw.choice(joined)
        yield NliPair(sentence, text, "neutral", "added content")
        if not words.UNCERTAIN.search(text):
            yield NliPair(text, sentence, "entailment", "drop clause")


def with_clause(sentence: str, other: str) -> Iterator[str]:
    """The sentence with a clause of another sentence at its end; both end with a full stop."""
    for pattern in _TAILS:
        if (found := pattern.search(other)) and found[0].strip(" ,.") not in sentence and len(found[0].split()) <= 14:
            yield sentence[:-1] + found[0]
    if _INDEPENDENT.match(other):
        yield f"{sentence[:-1]}, and {other[:1].lower()}{other[1:]}"
