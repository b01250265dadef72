"""Pairs whose premise is a passage of a document: what one of its sentences entails or contradicts, and summaries with a fault.

A run asks whether a document of several sentences entails an output of one or two. So the premise is a stretch of a document, and
the hypothesis comes from one of its sentences, from two of them, from one and another document (an added sentence), or it has the
name of another document.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from limbeck.corpus.sentences import split_sentences
from limbeck.filters.nli_model import words
from limbeck.filters.nli_model.rules import NliPair

PASSAGE_WORDS = 110  # at most: the encoder reads 256 tokens of premise and hypothesis
_LEAST_WORDS = 25
_NAME = re.compile(r"(?<=[a-z,] )(?:[A-Z][A-Za-z]*[a-z][A-Za-z0-9]*|[A-Z]{2,}[A-Za-z0-9]*)(?=[ ,.])")  # inside a sentence
_DRAWS = 2  # compositions of each kind per sentence


@dataclass(frozen=True)
class Passage:
    """Adjacent sentences of one document."""

    sentences: tuple[str, ...]
    document: int

    @property
    def text(self) -> str:
        """The sentences, joined."""
        return " ".join(self.sentences)

    def with_instead(self, old: str, new: str | None) -> str:
        """The text with one of its sentences replaced, or left out."""
        kept = (new if sentence == old else sentence for sentence in self.sentences)
        return " ".join(sentence for sentence in kept if sentence)


def passages_of(documents: Sequence[str], wanted: set[str]) -> dict[str, Passage]:
    """A passage around each wanted sentence: its paragraph, as far as it fits. A sentence with too little around it has none."""
    found: dict[str, Passage] = {}
    for number, document in enumerate(documents):
        for paragraph in document.split("\n\n"):
            pieces = [" ".join(piece.split()) for piece in split_sentences(paragraph)]
            for place, piece in enumerate(pieces):
                if piece in wanted and piece not in found and pieces.count(piece) == 1:
                    passage = Passage(_around(pieces, place), number)
                    if len(passage.text.split()) >= _LEAST_WORDS and len(passage.sentences) > 1:
                        found[piece] = passage
    return found


def _around(pieces: Sequence[str], place: int) -> tuple[str, ...]:
    """The sentence at `place` with as many neighbours as fit, alternately after and before it."""
    first = last = place
    words_left = PASSAGE_WORDS - len(pieces[place].split())
    for after in (True, False) * len(pieces):
        other = last + 1 if after else first - 1
        if 0 <= other < len(pieces) and len(pieces[other].split()) <= words_left:
            words_left -= len(pieces[other].split())
            first, last = min(first, other), max(last, other)
    return tuple(pieces[first : last + 1])


def composed(passages: dict[str, Passage], by_rule: Sequence[NliPair], draw: Random) -> Iterator[NliPair]:
    """Pairs whose premise is a passage; `by_rule` are pairs of single sentences, of which the passages have the premises."""
    entailed: dict[str, list[str]] = defaultdict(list)
    contradicted: dict[str, list[str]] = defaultdict(list)
    for pair in by_rule:
        if pair.premise in passages and pair.label != "neutral":
            (entailed if pair.label == "entailment" else contradicted)[pair.premise].append(pair.hypothesis)
    names = sorted({name for sentence in passages for name in _NAME.findall(sentence)} - _ordinary())
    sentences = sorted(passages)
    for sentence in sentences:
        passage = passages[sentence]
        said = [sentence, *entailed[sentence]]
        yield NliPair(passage.text, draw.choice(said), "entailment", "in a passage")
        if contradicted[sentence]:
            yield NliPair(passage.text, draw.choice(contradicted[sentence]), "contradiction", "in a passage")
        if not words.NEGATED.search(sentence):
            yield NliPair(passage.with_instead(sentence, None), draw.choice(said), "neutral", "left out of a passage")
        for _ in range(_DRAWS):
            strange = draw.choice(sentences)
            if passages[strange].document != passage.document:
                yield NliPair(passage.text, f"{draw.choice(said)} {strange}", "neutral", "added sentence")
                yield NliPair(passage.text, strange, "neutral", "another document")
            other = draw.choice([one for one in passage.sentences if one in passages] or [sentence])
            if other != sentence:
                yield from _two(passage, draw.choice(said), [other, *entailed[other]], contradicted[other], draw)
            yield from _renamed(passage, draw.choice(said), names, draw)


def _two(passage: Passage, one: str, said: list[str], denied: list[str], draw: Random) -> Iterator[NliPair]:
    """Two statements about a passage, both true or one of them false."""
    yield NliPair(passage.text, f"{one} {draw.choice(said)}", "entailment", "two sentences")
    if denied:
        both = [one, draw.choice(denied)]
        draw.shuffle(both)
        yield NliPair(passage.text, " ".join(both), "contradiction", "two sentences")


def _renamed(passage: Passage, statement: str, names: Sequence[str], draw: Random) -> Iterator[NliPair]:
    """A statement with one of its names exchanged for one that the passage does not have."""
    if words.NEGATED.search(statement):
        return
    if own := [found for found in _NAME.finditer(statement) if found[0] in set(names)]:
        found = draw.choice(own)
        name = draw.choice(names)
        if name.lower() not in passage.text.lower() and found[0].lower() not in name.lower():
            text = f"{statement[: found.start()]}{name}{statement[found.end() :]}"
            yield NliPair(passage.text, text, "contradiction", "another name")


def _ordinary() -> set[str]:
    """Words that are written with a capital within a sentence without being a name that can be exchanged."""
    return {"I", "OK", "A", "The", "NOT", "AND", "OR", *words.NAMES[3], *words.NAMES[4]}
