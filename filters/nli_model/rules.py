"""Pairs with a label that is certain by construction: rules on the form of a sentence give what it entails or contradicts.

Every rule takes one sentence and yields pairs. A rule applies only if its pattern leaves no doubt: nothing is dropped under
negation, restriction or comparison, and a swap needs a slot that takes only one value.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from limbeck.filters.nli_model import words
from limbeck.filters.nli_model.words import one_of

Label = Literal["entailment", "neutral", "contradiction"]


@dataclass(frozen=True)
class NliPair:
    """A premise and a hypothesis with their certain label, and the phenomenon of the rule."""

    premise: str
    hypothesis: str
    label: Label
    phenomenon: str


Rule = Callable[[str, Random], Iterator[NliPair]]

_ADJECTIVE = re.compile(
    rf"\b(an?|the|its|their|his|her|our|this|these|two|three|many|several) ({one_of(words.ADJECTIVES)}),? (?=[a-z]+[a-z-]* ?)"
)
_ADVERB = re.compile(rf"(?<=[a-z]) ({one_of(words.ADVERBS)})(?= [a-z])")
_OPENING = re.compile(
    r"^(?:However|Additionally|Furthermore|Moreover|In addition|As a result|In particular|Therefore|Thus|Unfortunately"
    r"|Fortunately|Finally|Nevertheless|Of course|Meanwhile|(?:In|Since) (?:\d{4}|[A-Z][a-z]+)), (?=\w)"
)
_BEFORE_MAIN = re.compile(
    r"^(?:Because|Although|Since|While|After) [^,]+, ((?:it|they|he|she|we|you|the|this|these|there|its) [^,]+)$"
)
_TAILS = (
    re.compile(r", (?:which|where|who) [^,]+(?=\.$)"),
    re.compile(r", (?:making|allowing|providing|giving|leaving|enabling|including|ensuring|letting|thus|thereby) [^.]+(?=\.$)"),
    re.compile(r",? (?:because|although|even though|whereas|so that) [^.]+(?=\.$)"),
    re.compile(r",? (?:such as|in order to) [^.]+(?=\.$)"),
    re.compile(r",? while \w+ing [^.]+(?=\.$)"),
)
_BRACKET = re.compile(r" \((?!or |and |not )[^()]*\)")  # "(or later)" widens, "(or rather" corrects
_RELATIVE = re.compile(r", (?:which|who) [^,]+,(?= (?:is|are|was|were|has|can|will|\w+s|\w+ed) )")
_HEADLESS = {
    "way",
    "lack",
    "part",
    "kind",
    "type",
    "number",
    "lot",
    "subset",
    "member",
    "matter",
    "piece",
    "set",
    "step",
    "thing",
    "one",
}
_IS_A = re.compile(
    r"^((?:The |This )?[\w.-]+(?: [\w.-]+)?) (is|was) (an? (?:[\w-]+,? ){0,3}?)([a-z]+) "
    r"(for|that|to|based on|written in|built on|inspired by|developed by|created by|designed for|from|with|of|in) (\S[^,]+)\.$"
)
_CLAUSES = re.compile(
    r"^([A-Z][^,;]+), and ((?:it|they|he|she|we|the \w+) (?:is|are|was|has|have|can|will|also|\w+s|\w+ed) [^,;]+)\.$"
)
_FINITE = one_of((*words.VERBS, "is", "has"))
_TWO_VERBS = re.compile(rf"^([A-Z][\w.-]*(?: [a-z]+)?) ({_FINITE}) ([^,]+?) and ({_FINITE}) ([^,]+)\.$")
_LIST = re.compile(r"(?<= )([\w.+#-]+), ([\w.+#-]+),? and ([\w.+#-]+)(?=\.$|, )")
_TWO = re.compile(r"(?<=[a-z] )([\w.+#-]+) and ([\w.+#-]+)(?=\.$)")
_PASSIVE = re.compile(
    rf"^((?:The |This )?[\w.-]+(?: [\w.-]+)?) was (?:originally |first )?({one_of(tuple(words.PASSIVES))}) by ([\w.' -]+)\.$"
)
_ACTIVE = re.compile(
    r"^([A-Z][\w.-]*) (uses|provides|supports|contains|includes|requires|handles) ((?:an? |the )?[a-z][\w-]*(?: [a-z][\w-]*)?)\.$"
)
_PARTICIPLE = {"contains": "contained in", "includes": "included in"}


def dropped(sentence: str, draw: Random) -> Iterator[NliPair]:
    """The sentence without a modifier, an adverb, a clause or an aside: entailed; the reverse: neutral."""
    if words.UNCERTAIN.search(sentence):
        return
    shorter: list[tuple[str, str]] = []
    for found in () if words.UNIQUE.search(sentence) else _ADJECTIVE.finditer(sentence):
        text = f"{sentence[: found.start()]}{found[1]} {sentence[found.end() :]}"
        shorter.append((articles(text), "drop modifier"))
    shorter += [(sentence[: found.start()] + sentence[found.end() :], "drop modifier") for found in _ADVERB.finditer(sentence)]
    shorter += [(text, "drop clause") for text in without_clause(sentence)]
    if (is_a := _IS_A.match(sentence)) and is_a[4] not in _HEADLESS:
        shorter.append((f"{is_a[1]} {is_a[2]} {is_a[3]}{is_a[4]}.", "drop clause"))
        if is_a[5] == "that" and is_a[6].split()[0] in words.VERBS:
            yield NliPair(sentence, f"{is_a[1]} {is_a[6]}.", "entailment", "paraphrase")
    for text, phenomenon in shorter:
        if len(text.split()) >= 3:
            yield NliPair(sentence, text, "entailment", phenomenon)
            yield NliPair(text, sentence, "neutral", phenomenon.replace("drop", "added"))


def without_clause(sentence: str) -> Iterator[str]:
    """The sentence without one of its clauses, asides or introductions; what is left need not be entailed."""
    if _OPENING.match(sentence):
        yield capital(_OPENING.sub("", sentence))
    if main := _BEFORE_MAIN.match(sentence):
        yield capital(main[1])
    for pattern in (*_TAILS, _BRACKET, _RELATIVE):
        if (tail := pattern.search(sentence)) and len(sentence[: tail.start()].split()) >= 2:
            yield sentence[: tail.start()] + sentence[tail.end() :]


def split(sentence: str, draw: Random) -> Iterator[NliPair]:
    """One member of a conjunction: entailed; the whole conjunction from one member: neutral."""
    if words.UNCERTAIN.search(sentence) or words.COLLECTIVE.search(sentence):
        return
    halves: list[str] = []
    if found := _CLAUSES.match(sentence):
        halves += [f"{found[1]}.", capital(f"{found[2]}.")]
    if (found := _TWO_VERBS.match(sentence)) and not words.SUBORDINATE.search(found[3]):
        halves += [f"{found[1]} {found[2]} {found[3]}.", f"{found[1]} {found[4]} {found[5]}."]
    if found := _LIST.search(sentence):
        before, after = sentence[: found.start()], sentence[found.end() :]
        halves += [f"{before}{found[left]} and {found[right]}{after}" for left, right in ((1, 2), (1, 3), (2, 3))]
    elif (
        (found := _TWO.search(sentence)) and found[1][:1].isupper() and found[2][:1].isupper()
    ):  # names: neither modifies the other
        halves += [f"{sentence[: found.start()]}{name}{sentence[found.end() :]}" for name in found.groups()]
    for half in halves:
        yield NliPair(sentence, half, "entailment", "conjunction")
        yield NliPair(half, sentence, "neutral", "conjunction")


def rephrased(sentence: str, draw: Random) -> Iterator[NliPair]:
    """A paraphrase, in both directions: entailed."""
    lowered = sentence.lower()
    for old, new in (*words.PARAPHRASES, *words.SYNONYMS):
        if old in lowered:
            pattern = re.compile(rf"\b{re.escape(old)}\b", re.IGNORECASE)
            if len(written := pattern.findall(sentence)) == 1:
                text = pattern.sub(capital(new) if written[0][:1].isupper() else new, sentence)
                yield from _both_ways(sentence, articles(text), "paraphrase")
    if found := _PASSIVE.match(sentence):
        text = f"{capital(found[3])} {words.PASSIVES[found[2]]} {_lowered(found[1])}."
        yield from _both_ways(sentence, text, "paraphrase")
    if (found := _ACTIVE.match(sentence)) and found[1] not in ("It", "He", "She", "This", "That"):
        verb = words.VERBS[found[2]]
        how = _PARTICIPLE.get(found[2], f"{verb}d by" if verb.endswith("e") else f"{verb}ed by")
        be = "are" if found[3].endswith("s") else "is"
        yield from _both_ways(sentence, f"{capital(found[3])} {be} {how} {found[1]}.", "paraphrase")


def _both_ways(one: str, other: str, phenomenon: str) -> Iterator[NliPair]:
    yield NliPair(one, other, "entailment", phenomenon)
    yield NliPair(other, one, "entailment", phenomenon)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _lowered(name: str) -> str:
    """A subject as an object: "The library" → "the library"; names stay."""
    return name[:1].lower() + name[1:] if name.split()[0] in ("The", "This") else name


def articles(text: str) -> str:
    """Choose `a` or `an` by the sound of the next word; unchanged if its letters do not determine the sound."""
    text = re.sub(r"\b([Aa]) (?=[aeio][a-z]|un(?!i)[a-z])(?!one\b|once\b|eu)", r"\1n ", text)
    return re.sub(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyz][a-z]|h(?!on|our|eir))", r"\1 ", text)
