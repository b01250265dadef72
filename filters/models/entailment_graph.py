"""The graph of entailment between the candidates of a source (Impossible Distillation, Algorithm 1).

An edge costs up to two model calls (four if the documents differ too), so unneeded calls are skipped: equal texts entail each
other, one direction is enough for an edge, each distinct question is asked once, and when only the connected components are
needed, pairs within one component are not asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from pydantic import Field
from rapidfuzz.distance import Indel

from limbeck.corpus.config import Config
from limbeck.filters.sets.diversity import Components

Question = tuple[str, str]
"""A premise and a hypothesis."""

Ask = Callable[[Sequence[Question]], Sequence[float]]
"""Premises and hypotheses → entailment probabilities, in order."""


class GraphConfig(Config):
    """Which links between the candidates of a source are computed.

    Two candidates are linked if the probability of entailment between their outputs, in either direction, is above `tau`; with
    `sides: both`, as in the paper, also if it is between their documents. Use that only if the candidates of a source have
    different documents, since equal documents link everything. `ask: edges` computes every link, so that any selection can be
    tried later; `components` computes only what the connected components of the currently passing rows need, and records the
    pairs it left out.
    """

    ask: Literal["edges", "components"] = "edges"
    sides: Literal["output", "both"] = "output"
    tau: float = Field(0.5, ge=0, lt=1)


@dataclass(frozen=True)
class Node:
    """A candidate in the graph."""

    candidate_id: str
    source_id: str
    document: str
    output: str


@dataclass(frozen=True)
class Links:
    """The links of a candidate, and the candidates for which a link was not (or not fully) computed. Both sorted."""

    entails: list[str]
    unasked: list[str]


def entailment_graph(nodes: Sequence[Node], ask: Ask, config: GraphConfig) -> dict[str, Links]:
    """Return the links of each node by its id; only nodes of the same source can be linked.

    The questions of all sources are batched into waves: at most 4 with `ask: edges`, and with `components` rarely more than a
    few times the number of nodes of the largest source. For n nodes of a source that is at most 2 n(n-1)/2 questions per side.
    """
    by_source: dict[str, list[Node]] = {}
    for node in nodes:
        by_source.setdefault(node.source_id, []).append(node)
    graphs = [_Graph(group, config) for group in by_source.values()]
    answers: dict[Question, float] = {}
    while True:
        wanted = [(graph, pair, graph.question(pair)) for graph in graphs for pair in graph.wanted()]
        if not wanted:
            break
        new = [question for question in dict.fromkeys(question for _, _, question in wanted) if question not in answers]
        answers.update(zip(new, ask(new), strict=True) if new else ())
        for graph, pair, question in wanted:
            graph.answer(pair, answers[question] > config.tau)
    return {id_: links for graph in graphs for id_, links in graph.links().items()}


_Pair = tuple[int, int]


class _Graph:
    """One source's nodes, the edges found so far, and for each open pair the number of its questions answered with no."""

    def __init__(self, nodes: Sequence[Node], config: GraphConfig) -> None:
        self._nodes = sorted(nodes, key=lambda node: node.candidate_id)
        self._spare = config.ask == "components"
        self._documents = config.sides == "both" and len({node.document for node in nodes}) > 1
        self._edges: set[_Pair] = set()
        self._open: dict[_Pair, int] = {}
        self._unlikely: dict[_Pair, float] = {}
        for pair in combinations(range(len(nodes)), 2):
            if any(premise == hypothesis for premise, hypothesis in self._questions(pair)):
                self._edges.add(pair)
            else:
                self._open[pair] = 0
                self._unlikely[pair] = -Indel.normalized_similarity(*self._outputs(pair))

    def question(self, pair: _Pair) -> Question:
        """The next question about an open pair."""
        return self._questions(pair)[self._open[pair]]

    def wanted(self) -> list[_Pair]:
        """The open pairs to ask about now; with components a spanning forest, so that no answer makes another pair redundant."""
        if not self._spare:
            return list(self._open)
        hoped = Components(len(self._nodes))
        for edge in self._edges:
            hoped.join(*edge)
        likely_first = sorted(self._open, key=lambda pair: (self._open[pair], self._unlikely[pair], pair))
        return [pair for pair in likely_first if hoped.join(*pair)]

    def answer(self, pair: _Pair, entails: bool) -> None:
        """Record the answer to `question(pair)`."""
        if entails:
            del self._open[pair]
            self._edges.add(pair)
        elif self._open[pair] + 1 < len(self._questions(pair)):
            self._open[pair] += 1
        else:
            del self._open[pair]

    def links(self) -> dict[str, Links]:
        """Candidate → its links; the pairs still open were skipped."""
        found = {node.candidate_id: Links([], []) for node in self._nodes}
        ids = [node.candidate_id for node in self._nodes]  # ascending, so sorted pairs give sorted lists
        for a, b in sorted(self._edges):
            found[ids[a]].entails.append(ids[b])
            found[ids[b]].entails.append(ids[a])
        for a, b in sorted(self._open):
            found[ids[a]].unasked.append(ids[b])
            found[ids[b]].unasked.append(ids[a])
        return found

    def _outputs(self, pair: _Pair) -> tuple[str, str]:
        return self._nodes[pair[0]].output, self._nodes[pair[1]].output

    def _questions(self, pair: _Pair) -> list[Question]:
        """With the longer text as the premise first: it is more likely to entail the shorter one than the reverse."""
        a, b = sorted(self._outputs(pair), key=lambda text: (-len(text), text))
        found = [(a, b), (b, a)]
        if self._documents:
            c, d = sorted((self._nodes[place].document for place in pair), key=lambda text: (-len(text), text))
            found += [(c, d), (d, c)]
        return found
