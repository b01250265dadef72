"""Ways to corrupt an output so that the original is certainly the better one: what a judge must be able to tell apart.

One is easy (the output of another source), the others are subtle: one number, one name or one negation is changed, a clause is
added or dropped, and everything else stays. Texts are English; a corruption that finds nothing to change returns None. The forms
of sentences are those of `nli_model`, but without the conditions under which a label would be certain: here only the original
must be right.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from limbeck.corpus.sentences import split_sentences
from limbeck.filters.nli_model import words
from limbeck.filters.nli_model.rules import articles, capital, split, without_clause
from limbeck.filters.nli_model.splices import with_clause
from limbeck.filters.nli_model.swaps import denial
from limbeck.filters.nli_model.words import one_of

Corrupt = Callable[[str, Sequence[str], Random], str | None]
"""(output, outputs of other sources, random draws) → the corrupted output, or None."""


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt; a `subtle` one leaves all but one detail as it is."""

    words: str
    subtle: bool
    apply: Corrupt


_FIGURE = re.compile(
    rf"(?<![\w.,:/#$%+-])[$€£]?(\d[\d,]*(?:\.\d+)*|{one_of(tuple(words.NUMBERS.values()))})(?![\w/:-]|[.,]\d)", re.IGNORECASE
)
_LIST_NUMBER = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_CAPITALS = r"[A-Z][\w+#-]*(?:\.\w+)*[+#]*"
_NAME = re.compile(rf"(?<![\w.@/-]){_CAPITALS}(?: {_CAPITALS})*(?![\w@/-])")
_NO_NAME = frozenset("I I'm I've A An The Yes No OK Mr Mrs Ms Dr".split())
_NAMES = {name: kind for kind in words.NAMES for name in kind}
_NAMES_AT_STARTS = frozenset(name for name in _NAMES if name not in ("March", "May", "Turkey"))
_SENTENCE_START = re.compile(r"(?:^|\n\s*|[.!?:…][\"'”’)\]]*\s+|[\"'“‘(\[*_>-]\s*)$")

_VERBS = one_of(tuple(words.VERBS))
_SAID_NO = re.compile(r"\b(is|are|was|were|can|do|does|did|has|have|had|will|would|should|could|must)(?: not\b|n['’]t\b)")
_CANNOT = re.compile(r"\bcannot\b|\bcan['’]t\b|\bwon['’]t\b")
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|will|should|must|could|would|has been|have been)\b(?! not\b|n['’]t\b| no\b)")
_VERB = re.compile(rf"(?<=[a-z\d] )({_VERBS})(?= [a-z\"'“‘])")
_NOT_A_VERB = re.compile(
    r"\b(?:the|an?|its|their|his|her|of|to|no|not|this|these|those|all|some|any|in|for|with|by|from) $", re.I
)

_LAST_PART = re.compile(
    r",\s(?!and\b|or\b)[^,;]+(?=[.!?]$)|\s(?:and|but|so|because|which|while|if|when) [^,;.]+(?=[.!?]$)|;[^;]+(?=[.!?]$)"
)
_OPENER = re.compile(
    r"(?:The|This|These|Those|It|They|There|He|She|We|You|An?|In|On|At|For|Its|Their|Many|Some|Most|All) [a-z\w]"
)
_TRIES = 8
_CLAUSE_WORDS = 4  # the fewest that are added


def other_output(output: str, others: Sequence[str], draw: Random) -> str | None:
    """The output of another source."""
    different = [other for other in others if other.strip() != output.strip()]
    return draw.choice(different) if different else None


def another_number(output: str, others: Sequence[str], draw: Random) -> str | None:
    """One number, year, version or number word replaced by another; numbers of a list's items stay."""
    items = [found.span() for found in _LIST_NUMBER.finditer(output)]
    places = [found for found in _FIGURE.finditer(output) if not any(a <= found.start(1) < b for a, b in items)]
    for found in draw.sample(places, min(_TRIES, len(places))):
        new = _changed_number(found[1], draw)
        if new != found[1] and new not in (place[1] for place in places):
            return output[: found.start(1)] + new + output[found.end(1) :]
    return None


def _changed_number(number: str, draw: Random) -> str:
    """Another number of the same form."""
    if not number[0].isdigit():
        new = draw.choice([word for word in words.NUMBERS.values() if word != number.lower()])
        return capital(new) if number[0].isupper() else new
    before, dot, last = number.rpartition(".")
    if dot:  # a decimal or a version: its last component changes, with the same number of digits
        width = len(last)
        return f"{before}.{(int(last) + draw.randint(1, 10**width - 1)) % 10**width:0{width}d}"
    value = int(number.replace(",", ""))
    if 1500 <= value < 2100 and "," not in number:  # a year stays a year
        return str(value + draw.choice((-30, -17, -8, -3, -1, 1, 2, 5, 9)))
    step = max(1, value * draw.choice((20, 50, 100, 200)) // 100)
    other = value + step if value <= step or draw.random() < 0.5 else value - step
    return f"{other:,}" if "," in number else str(other)


def another_name(output: str, others: Sequence[str], draw: Random) -> str | None:
    """One proper name replaced, wherever it occurs, by one of the same kind, or else by one from another source's output."""
    own = list(dict.fromkeys(names(output)))
    for name in draw.sample(own, len(own)):
        alike = [other for other in _NAMES.get(name, ()) if other not in output]
        found = alike or list(dict.fromkeys(new for other in others for new in names(other) if new not in output))
        if found:
            return draw.choice(found).join(re.split(rf"(?<!\w){re.escape(name)}(?!\w)", output))
    return None


def names(text: str) -> list[str]:
    """The proper names of a text: capitalised words inside sentences, and well-known names anywhere."""
    found = []
    for match in _NAME.finditer(text):
        name, start = match[0], match.start()
        if _SENTENCE_START.search(text[:start]) and name not in _NAMES_AT_STARTS:
            first, _, rest = name.partition(" ")
            name = rest if first not in _NAMES_AT_STARTS else first
        if name and name not in _NO_NAME and not all(part in _NO_NAME for part in name.split()):
            found.append(name)
    return found


def another_polarity(output: str, others: Sequence[str], draw: Random) -> str | None:
    """One sentence negated, or its negation removed."""
    return _in_a_sentence(output, draw, lambda sentence: _negated(sentence, draw))


def _negated(sentence: str, draw: Random) -> str | None:
    if found := _SAID_NO.search(sentence):
        return f"{sentence[: found.start()]}{found[1]}{sentence[found.end() :]}"
    if found := _CANNOT.search(sentence):
        verb = "will" if found[0].startswith("won") else "can"
        return f"{sentence[: found.start()]}{verb}{sentence[found.end() :]}"
    if words.NEGATED.search(sentence) or sentence.endswith("?"):
        return None
    if (strict := denial(sentence, draw)) is not None:
        return strict
    if found := _AUXILIARY.search(sentence):
        first, _, rest = found[1].partition(" ")
        return f"{sentence[: found.start()]}{first} not{' ' * bool(rest)}{rest}{sentence[found.end() :]}"
    for found in _VERB.finditer(sentence):
        if not _NOT_A_VERB.search(sentence[: found.start()]):
            return f"{sentence[: found.start()]}does not {words.VERBS[found[1]]}{sentence[found.end() :]}"
    return None


def added_clause(output: str, others: Sequence[str], draw: Random) -> str | None:
    """A clause of another source's output, joined to a sentence."""
    given = [piece for other in others for piece in split_sentences(other) if piece.endswith(".") and piece not in output]
    given = draw.sample(given, min(len(given), 4 * _TRIES))

    def added(sentence: str) -> str | None:
        if not sentence.endswith(".") or sentence.endswith(".."):
            return None
        joined = [text for other in given for text in with_clause(sentence, other)]
        joined = [text for text in joined if len(text.split()) >= len(sentence.split()) + _CLAUSE_WORDS]
        if joined:
            return draw.choice(joined)
        whole = next((other for other in given if _OPENER.match(other) and len(other.split()) <= 20), None)
        return None if whole is None else f"{sentence[:-1]}, and {whole[:1].lower()}{whole[1:]}"

    return _in_a_sentence(output, draw, added)


def dropped_clause(output: str, others: Sequence[str], draw: Random) -> str | None:
    """A clause, an aside or one half of a conjunction left out of a sentence."""

    def dropped(sentence: str) -> str | None:
        shorter = list(without_clause(sentence))
        shorter += [pair.hypothesis for pair in split(sentence, draw) if pair.premise == sentence and pair.label == "entailment"]
        if not shorter and (found := _LAST_PART.search(sentence)):
            shorter = [sentence[: found.start()] + sentence[found.end() :]]
        shorter = [text for text in map(articles, shorter) if 3 <= len(text.split()) <= len(sentence.split()) - 2]
        return draw.choice(shorter) if shorter else None

    return _in_a_sentence(output, draw, dropped)


def _in_a_sentence(text: str, draw: Random, change: Callable[[str], str | None]) -> str | None:
    """The text with one sentence changed, the first in random order that can be."""
    spans = list(_sentence_spans(text))
    for start, end in draw.sample(spans, len(spans)):
        sentence = text[start:end]
        changed = change(sentence) if "\n" not in sentence else None
        if changed is not None and changed != sentence:
            return text[:start] + changed + text[end:]
    return None


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    end = 0
    for sentence in split_sentences(text):
        start = text.index(sentence, end)
        end = start + len(sentence)
        yield start, end


CORRUPTIONS: Mapping[str, Corruption] = {
    "other_output": Corruption("the output of another source", False, other_output),
    "number": Corruption("one number changed", True, another_number),
    "name": Corruption("one name changed", True, another_name),
    "negation": Corruption("one negation added or removed", True, another_polarity),
    "clause_added": Corruption("a clause added", True, added_clause),
    "clause_dropped": Corruption("a clause dropped", True, dropped_clause),
}
