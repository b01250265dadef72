"""A balanced set of labelled pairs from any documents: every rule on every sentence, balanced over phenomena."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.salience import STOP_WORDS
from limbeck.corpus.sentences import split_sentences
from limbeck.corpus.text.words import WORD
from limbeck.filters.nli_model import rules as nli_rules
from limbeck.filters.nli_model import splices as nli_splices
from limbeck.filters.nli_model import swaps as nli_swaps
from limbeck.filters.nli_model.passages import composed, passages_of
from limbeck.filters.nli_model.rules import Label, NliPair, Rule
from limbeck.filters.nli_model.words import PLAIN

LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")

_RULES: tuple[Rule, ...] = (
    nli_rules.dropped,
    nli_rules.split,
    nli_rules.rephrased,
    nli_swaps.negated,
    nli_swaps.counted,
    nli_swaps.named,
    nli_swaps.reversed_,
)
_DRAWING: tuple[Rule, ...] = (nli_splices.quantified, nli_splices.qualified, nli_splices.numbered, nli_splices.timed)
_CHAINED: tuple[Rule, ...] = (nli_swaps.negated, nli_swaps.counted, nli_swaps.named, nli_swaps.reversed_, nli_rules.rephrased)
_WORDS = range(4, 36)  # words per sentence
_IN_COMPANY = 0.4  # the share of premises that keep one or two adjacent sentences
_CHAIN = 0.5  # the share of shortened sentences to which another rule is applied
_DRAWS = 5  # how often the rules that insert a random word are applied to a sentence
_REPEATS = 4  # how often a rare pair may be used, with other adjacent sentences
_UNRELATED = 0.3  # maximum Jaccard similarity of the words of two unrelated sentences of one document


@dataclass(frozen=True)
class Sentence:
    """A sentence that rules can be applied to, with its neighbours."""

    text: str
    before: str
    after: str
    document: int


def make_pairs(documents: Sequence[str], number: int, seed: int) -> list[NliPair]:
    """Return about `number` distinct pairs, a third per label, balanced over phenomena as far as possible.

    Deterministic in documents and seed. Raises LimbeckError if the documents have too few plain sentences.
    """
    draw = Random(seed)
    sentences = read_sentences(documents)
    by_kind: dict[tuple[Label, str], list[NliPair]] = defaultdict(list)
    by_rule = list(dict.fromkeys(_candidates(sentences, draw)))
    passages = passages_of(documents, {sentence.text for sentence in sentences})
    for pair in dict.fromkeys((*by_rule, *composed(passages, by_rule, draw))):
        by_kind[pair.label, pair.phenomenon].append(pair)
    chosen: list[NliPair] = []
    for label in LABELS:
        kinds = {kind: pairs for kind, pairs in sorted(by_kind.items()) if kind[0] == label}
        shares = _shares({kind: len(pairs) for kind, pairs in kinds.items()}, number // len(LABELS))
        for kind, share in shares.items():
            pool = kinds[kind] * -(-share // max(1, len(kinds[kind])))
            chosen += draw.sample(pool, share)
    if len(chosen) < max(30, number // 4):
        raise LimbeckError(
            f"{len(documents)} documents with {len(sentences)} plain sentences give {len(chosen)} pairs of {number}; "
            "give a larger corpus, or ask for fewer pairs"
        )
    by_text = {sentence.text: sentence for sentence in sentences}
    finished = list(dict.fromkeys(_in_company(pair, by_text, draw) for pair in chosen))
    draw.shuffle(finished)
    return finished


def read_sentences(documents: Iterable[str]) -> list[Sentence]:
    """The plain sentences of some documents, without repeats."""
    found: dict[str, Sentence] = {}
    for number, document in enumerate(documents):
        for paragraph in document.split("\n\n"):
            pieces = split_sentences(paragraph)
            for before, text, after in zip(["", *pieces], pieces, [*pieces[1:], ""], strict=False):
                if len(text.split()) in _WORDS and PLAIN.fullmatch(text) and "\n" not in text:
                    found.setdefault(text, Sentence(text, before, after, number))
    return list(found.values())


def _candidates(sentences: Sequence[Sentence], draw: Random) -> Iterator[NliPair]:
    """Every pair that a rule produces, in sentence order."""
    by_document: dict[int, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        by_document[sentence.document].append(sentence)
    for sentence in sentences:
        text = sentence.text
        for rule in _RULES:
            yield from rule(text, draw)
        for rule in _DRAWING * _DRAWS:
            yield from rule(text, draw)
        yield from nli_splices.enriched(text, draw.choice(sentences).text, draw)
        yield from _chained(text, draw)
        other = draw.choice(sentences)
        if other.document != sentence.document:
            yield NliPair(text, other.text, "neutral", "unrelated")
        other = draw.choice(by_document[sentence.document])
        if other.text not in (text, sentence.before, sentence.after) and _similarity(text, other.text) < _UNRELATED:
            yield NliPair(text, other.text, "neutral", "related")


def _chained(text: str, draw: Random) -> Iterator[NliPair]:
    """Pairs from a shorter form that the sentence entails: what it entails is entailed, what it contradicts is contradicted."""
    for shorter in (*nli_rules.dropped(text, draw), *nli_rules.split(text, draw)):
        if shorter.label != "entailment" or draw.random() > _CHAIN:
            continue
        for pair in nli_rules.dropped(shorter.hypothesis, draw):
            if pair.premise == shorter.hypothesis:
                yield replace(pair, premise=text)
        for rule in _CHAINED:
            for pair in rule(shorter.hypothesis, draw):
                if pair.premise == shorter.hypothesis:
                    yield replace(pair, premise=text)


def _in_company(pair: NliPair, sentences: dict[str, Sentence], draw: Random) -> NliPair:
    """The pair, in some draws with one or two adjacent sentences before and after the premise."""
    home = sentences.get(pair.premise) or sentences.get(pair.hypothesis)
    if home is None or draw.random() > _IN_COMPANY or pair.phenomenon == "unrelated":
        return pair
    before, after = draw.choice(((home.before, home.after), (home.before, ""), ("", home.after)))
    if pair.hypothesis in (before, after):
        return pair
    return replace(pair, premise=" ".join(part for part in (before, pair.premise, after) if part))


def _shares(available: dict[tuple[Label, str], int], number: int) -> dict[tuple[Label, str], int]:
    """The number of pairs of each kind: balanced, but no kind more often than it can be repeated."""
    shares = dict.fromkeys(available, 0)
    open_kinds = set(available)
    while open_kinds and sum(shares.values()) < number:
        each = max(1, (number - sum(shares.values())) // len(open_kinds))
        for kind in sorted(open_kinds):
            limit = available[kind] * (_REPEATS if kind[1] not in ("unrelated", "related") else 1)
            shares[kind] = min(limit, shares[kind] + min(each, number - sum(shares.values())))
        open_kinds = {kind for kind in open_kinds if shares[kind] < available[kind] * _REPEATS and kind[1] != "related"}
        if each == 1:
            break
    return shares


def _similarity(one: str, other: str) -> float:
    left, right = ({word for _, _, word in WORD.spans(text)} - STOP_WORDS for text in (one, other))  # content words
    return len(left & right) / max(1, len(left | right))


def counts(pairs: Iterable[NliPair]) -> dict[str, dict[str, int]]:
    """The number of pairs of each label and phenomenon."""
    found: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    for pair in pairs:
        found[pair.label][pair.phenomenon] += 1
    return {label: dict(sorted(phenomena.items())) for label, phenomena in found.items()}
