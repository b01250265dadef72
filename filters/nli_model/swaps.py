"""Pairs by exchange: a negation, another number, another name, the opposite word."""

import re
from collections.abc import Iterator
from random import Random

from limbeck.filters.nli_model import words
from limbeck.filters.nli_model.rules import Label, NliPair, articles
from limbeck.filters.nli_model.words import one_of

_AUXILIARY = re.compile(r"\b(is|are|was|were|can|will|should|has been|have been)\b(?! not)(?!n['’]t)")
_NOT_BEHIND = re.compile(
    r"^ (?:also|only|just|still|already|even|often|usually|sometimes|always|never|probably|mostly|simply|now|too|no|either|not)\b"
)
_CONTRACTED = {"is": "isn't", "are": "aren't", "was": "wasn't", "were": "weren't", "can": "can't", "will": "won't"}
_VERB = re.compile(rf"^((?:The |This |It|He|She|Its |Each )?[\w.-]*(?: [a-z-]+)?) ({one_of(tuple(words.VERBS))})(?= [a-z])")
_HAS_A = re.compile(r"\b(has|have|had|there is|there was|There is|There was) an? (?=[a-z])")

_NUMBER = re.compile(
    rf"(?<= )(\d{{1,4}}|{one_of(tuple(words.NUMBERS.values()))})(?= (?:[a-z]+ )?[a-z]{{3,}}s\b)"
    r"(?! (?:times|bits|versions|others)\b)"
)
_YEAR = re.compile(r"(?<=\bin )((?:19|20)\d\d)(?=[.,]| [a-z])")
_COUNTABLE = re.compile(r"\b(?:has|have|are|were|supports|provides|contains|includes|uses|with|offers|adds|needs|requires) $")
_NOT_EXACT = re.compile(
    r"(?i)\b(?:least|most|than|up|to|over|about|around|nearly|almost|approximately|roughly|under|below|above|between|or|and|version|each"
    r"|every|per|can|may|could|might|if|for|example|like|first|last|next|any)\b"
)
_SLOT = re.compile(
    r"\b(?:written|implemented|developed|created|founded|released|published|based|located|born|hosted|launched|invented|started"
    r"|built|designed|opened|signed|held|made|introduced|coded)(?: originally| first| mainly| entirely)? (?:in|by|at|on) "
    r"([A-Z][\w+]*)(?=[.,]| in | and )"
)
_SUBJECT = re.compile(r"^([A-Z][\w.-]*)(?= (?:is|was) (?:an?|the|written|built|based|developed|created|named) )")
_NO_NAME = {"It", "This", "That", "There", "He", "She", "What", "Here", "Each", "One", "Everything", "Nothing", "Another"}
_PREDICATE = re.compile(r"\b(?:is|are|was|were) (?:an? )?(?:very )?([a-z-]+)\b")
_COUNTS: tuple[tuple[str, str, int, Label], ...] = (  # premise, hypothesis, how much larger its number is, label
    ("", "at least ", -1, "entailment"),
    ("", "more than ", -1, "entailment"),
    ("", "fewer than ", 1, "entailment"),
    ("at least ", "at least ", -1, "entailment"),
    ("more than ", "more than ", -1, "entailment"),
    ("exactly ", "", 0, "entailment"),
    ("at least ", "at least ", 1, "neutral"),
    ("more than ", "more than ", 1, "neutral"),
    ("at least ", "exactly ", 1, "neutral"),
    ("fewer than ", "exactly ", -1, "neutral"),
    ("", "more than ", 1, "contradiction"),
    ("", "fewer than ", -1, "contradiction"),
    ("at least ", "fewer than ", -1, "contradiction"),
)


def negated(sentence: str, draw: Random) -> Iterator[NliPair]:
    """The main verb negated, or its negation removed: contradicted."""
    text = denial(sentence, draw)
    if text is not None:
        yield NliPair(sentence, text, "contradiction", "negation")
        yield NliPair(text, sentence, "contradiction", "negation")
        yield NliPair(text, text.replace("n't ", " not ").replace("ca not", "cannot"), "entailment", "negation")


def denial(sentence: str, draw: Random) -> str | None:
    """The sentence with its main verb negated, or None if that is not certain."""
    if words.NEGATED.search(sentence) or sentence.endswith("?"):
        return None
    if (found := _HAS_A.search(sentence)) and _plain_subject(sentence[: found.start()]) and draw.random() < 0.5:
        return f"{sentence[: found.start()]}{found[1]} no {sentence[found.end() :]}"
    if found := _VERB.match(sentence):
        if _plain_subject(found[1]):
            how = draw.choice(("does not", "doesn't", "does not", "never"))
            verb = found[2] if how == "never" else words.VERBS[found[2]]
            return f"{found[1]} {how} {verb}{sentence[found.end() :]}"
        return None
    found = _AUXILIARY.search(sentence)
    if not found or _NOT_BEHIND.match(sentence[found.end() :]) or not _plain_subject(sentence[: found.start()]):
        return None
    verb = found[1]
    if verb in _CONTRACTED and draw.random() < 0.4:
        new = _CONTRACTED[verb]
    else:
        new = "cannot" if verb == "can" else f"{verb.split()[0]} not{verb[len(verb.split()[0]) :]}"
    return sentence[: found.start()] + new + sentence[found.end() :]


def _plain_subject(subject: str) -> bool:
    """Whether the text before a verb is one short subject, without a clause or a quantity."""
    bare = (
        not words.SUBORDINATE.search(subject) and not words.QUANTIFIED.search(subject) and not re.search(r"[,:;()\"“]", subject)
    )
    return bare and 0 < len(subject.split()) <= 6


def counted(sentence: str, draw: Random) -> Iterator[NliPair]:
    """Another number or year: contradicted; a bound on it: by arithmetic; none: entailed, and neutral in reverse."""
    if words.NEGATED.search(sentence) or "?" in sentence:
        return
    found = _YEAR.search(sentence)
    if found and len(_YEAR.findall(sentence)) == 1 and re.search(r"\b(?:was|were|\w+ed)\b", sentence[: found.start()]):
        year = int(found[1]) + draw.choice((-30, -17, -8, -3, -1, 1, 2, 5, 9))
        yield NliPair(sentence, _put(sentence, found, str(year)), "contradiction", "number")
    found = _NUMBER.search(sentence)
    before = sentence[: found.start()] if found else ""
    if (
        not found
        or _NOT_EXACT.search(before)
        or re.search(r"[A-Z]\w* $|\d", before)
        or re.search(r"[\d(]", sentence[found.end() :])
    ):
        return
    number = next((value for value, name in words.NUMBERS.items() if name == found[1]), 0) or int(found[1])
    if not 2 <= number <= 5000:
        return
    step = max(1, number * draw.choice((20, 50, 100, 200)) // 100)
    more, fewer = _spelt(number + step, found[1]), _spelt(max(2, number - step), found[1])
    for other in sorted({more, fewer} - {found[1]}):
        yield NliPair(sentence, _put(sentence, found, other), "contradiction", "number")
    bound, other_bound, change, label = draw.choice(_COUNTS)
    other = _spelt(max(1, number + change * step), found[1])
    if (change == 0) == (other == found[1]) and number + change * step >= 1:
        yield NliPair(_put(sentence, found, bound + found[1]), _put(sentence, found, other_bound + other), label, "number")
    if not words.UNCERTAIN.search(sentence) and _COUNTABLE.search(before):
        less = re.sub(r"  +", " ", _put(sentence, found, ""))
        yield NliPair(sentence, less, "entailment", "number")
        yield NliPair(less, sentence, "neutral", "number")


def _spelt(number: int, like: str) -> str:
    return words.NUMBERS.get(number, str(number)) if not like.isdigit() else str(number)


def _put(sentence: str, found: re.Match[str], text: str) -> str:
    """The sentence with a pattern's first group replaced."""
    return sentence[: found.start(1)] + text + sentence[found.end(1) :]


def named(sentence: str, draw: Random) -> Iterator[NliPair]:
    """Another name of the same kind, if the sentence has room for only one: contradicted."""
    if words.NEGATED.search(sentence) or "?" in sentence:
        return
    if (found := _SLOT.search(sentence)) and not re.search(r" (?:and|or) [A-Z]", sentence[found.end() :]):
        for kind in words.NAMES:
            if found[1] in kind:
                others = [name for name in kind if name not in sentence]
                for other in draw.sample(others, 2):
                    yield NliPair(sentence, _put(sentence, found, other), "contradiction", "entity")
    if (found := _SUBJECT.match(sentence)) and found[1] not in _NO_NAME and sentence.count(found[1]) == 1:
        other = draw.choice([name for kind in words.NAMES[:3] for name in kind if name != found[1]])
        yield NliPair(sentence, _put(sentence, found, other), "contradiction", "entity")


def reversed_(sentence: str, draw: Random) -> Iterator[NliPair]:
    """The opposite of the subject's attribute: contradicted."""
    if words.UNCERTAIN.search(sentence.replace(" before ", " after ")):
        return
    for left, right in words.OPPOSITES:
        for old, new in ((left, right), (right, left)):
            for found in _PREDICATE.finditer(sentence):
                if found[1] == old and new not in sentence and not re.match(r",|(?: and| or)\b", sentence[found.end() :]):
                    yield NliPair(sentence, articles(_put(sentence, found, new)), "contradiction", "antonym")
    for left, right in words.OPPOSITE_VERBS:
        for old, new in ((left, right), (right, left)):
            verb = re.search(rf"(?<=[a-z] )({old})(?= [a-z])", sentence)
            if verb and new not in sentence and not words.SUBORDINATE.search(sentence[: verb.start()]):
                yield NliPair(sentence, _put(sentence, verb, new), "contradiction", "antonym")
