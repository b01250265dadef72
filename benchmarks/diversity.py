"""Savings of the equivalence filter over the naive methods in one run: classifier questions, and time of tree distances.

Questions: groups of candidates with planted equivalents, made from real sentences of installed packages' descriptions, and an
oracle in place of the classifier, so that only questions are counted. The naive method asks every ordered pair. Each method must
find the components of the transitive closure of all answers.

Distances: dependency trees of the same sentences, against the packages zss and apted, which must give the same numbers.

    python benchmarks/diversity.py [--sources 40] [--candidates 16] [--equivalents 2 4 8 16] [--classifier FOLDER] [--json]

With `--classifier` a model answers instead of the oracle, and seconds are compared too.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from itertools import permutations
from typing import Any

import numpy as np

from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
from limbeck.corpus.sentences import split_sentences
from limbeck.filters.models.edit_distance import ParserConfig, Tree, tree_distance
from limbeck.filters.models.entailment_graph import GraphConfig, Node, Question, entailment_graph

Answer = Callable[[Sequence[Question]], list[float]]
TAU = 0.5


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=40)
    parser.add_argument("--candidates", type=int, default=16, help="per source")
    parser.add_argument("--equivalents", type=int, nargs="+", default=[2, 4, 8, 16], help="mean number of equivalent candidates")
    parser.add_argument("--agreement", type=float, default=0.9, help="how often the oracle recognises equivalent texts")
    parser.add_argument("--classifier", help="a model for natural-language inference, in place of the oracle")
    parser.add_argument("--trees", type=int, default=200, help="pairs of sentences")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"sources": arguments.sources, "candidates_of_a_source": arguments.candidates}
    for equivalents in arguments.equivalents:
        figures |= {f"{equivalents}_alike_{name}": value for name, value in questions(arguments, equivalents).items()}
    figures |= distances(arguments.trees)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:>36}  {value}" for name, value in figures.items()))


def questions(arguments: argparse.Namespace, equivalents: int) -> dict[str, Any]:
    """Build the graphs of all sources with the naive method, with all edges, and with only what the components need."""
    nodes, says = planted(arguments, equivalents)
    asked: list[Question] = []
    model = loaded(arguments.classifier) if arguments.classifier else oracle(says, arguments.agreement)

    def ask(wanted: Sequence[Question]) -> list[float]:
        asked.extend(wanted)
        return model(wanted)

    ways: dict[str, Callable[[], set[frozenset[str]]]] = {
        "plain": lambda: plain_components(nodes, ask),
        "edges": lambda: components(nodes, ask, GraphConfig(tau=TAU)),
        "components": lambda: components(nodes, ask, GraphConfig(ask="components", tau=TAU)),
    }
    found, counts, seconds = {}, {}, {}
    for name, way in ways.items():
        asked.clear()
        clock = time.perf_counter()
        found[name] = way()
        seconds[name], counts[name] = time.perf_counter() - clock, len(asked)
    assert found["plain"] == found["edges"] == found["components"]
    figures: dict[str, Any] = {"components": len(found["plain"])}
    for name in ways:
        figures[f"questions_{name}"] = counts[name]
        if arguments.classifier:
            figures[f"seconds_{name}"] = round(seconds[name], 2)
    for name in ("edges", "components"):
        figures[f"questions_saved_{name}"] = f"{1 - counts[name] / counts['plain']:.1%}"
        if arguments.classifier:
            figures[f"seconds_ratio_{name}"] = round(seconds["plain"] / seconds[name], 2)
    return figures


def planted(arguments: argparse.Namespace, equivalents: int) -> tuple[list[Node], dict[str, tuple[int, int]]]:
    """Candidates made of real sentences with some words left out, and the (source, sentence) that each text states."""
    rng = random.Random(0)
    sentences = real_sentences()
    nodes: list[Node] = []
    says: dict[str, tuple[int, int]] = {}
    for source in range(arguments.sources):
        kinds = max(1, round(arguments.candidates / equivalents))
        chosen = rng.sample(range(len(sentences)), kinds)
        for place in range(arguments.candidates):
            kind = rng.choice(chosen)
            words = [word for word in sentences[kind].split() if rng.random() > 0.25]
            text = f"{' '.join(words)} ({source}.{place})"  # so that no two are equal
            says[text] = (source, kind)
            nodes.append(Node(f"{source:03}-{place:03}", str(source), "document", text))
    return nodes, says


def real_sentences() -> list[str]:
    """Sentences of 8 to 30 words from the descriptions of the installed packages."""
    found: set[str] = set()
    for distribution in distributions():
        for line in str(distribution.metadata.get_payload() or "").split("\n"):
            if line[:1].isalpha():
                found.update(s for s in split_sentences(line) if 8 <= len(s.split()) <= 30 and s.endswith("."))
    return sorted(found)


def oracle(says: dict[str, tuple[int, int]], agreement: float) -> Answer:
    """Answers yes for a share `agreement` of the ordered pairs of texts that state the same sentence, deterministically."""

    def answer(asked: Sequence[Question]) -> list[float]:
        return [0.9 if says[a] == says[b] and random.Random(f"{a}\0{b}").random() < agreement else 0.1 for a, b in asked]

    return answer


def loaded(model: str) -> Answer:
    """Answers of a real classifier."""
    classifier = ClassifierConfig(model=model, dtype="float32").load()
    return lambda asked: classifier.probabilities(asked)[:, 0].tolist()


def components(nodes: Sequence[Node], ask: Answer, config: GraphConfig) -> set[frozenset[str]]:
    """The components of the graph as the filter builds it."""
    links = entailment_graph(nodes, ask, config)
    return closure([node.candidate_id for node in nodes], {(id_, other) for id_, of in links.items() for other in of.entails})


def plain_components(nodes: Sequence[Node], ask: Answer) -> set[frozenset[str]]:
    """The components from asking every ordered pair of every source."""
    by_source: dict[str, list[Node]] = {}
    for node in nodes:
        by_source.setdefault(node.source_id, []).append(node)
    pairs = [pair for group in by_source.values() for pair in permutations(group, 2)]
    answers = ask([(a.output, b.output) for a, b in pairs])
    edges = {(a.candidate_id, b.candidate_id) for (a, b), answer in zip(pairs, answers, strict=True) if answer > TAU}
    return closure([node.candidate_id for node in nodes], edges)


def closure(ids: Sequence[str], edges: set[tuple[str, str]]) -> set[frozenset[str]]:
    """The connected components by traversal from every node."""
    neighbours: dict[str, set[str]] = {id_: set() for id_ in ids}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    groups = set()
    for id_ in ids:
        reached, new = {id_}, [id_]
        while new:
            new = [other for node in new for other in neighbours[node] if other not in reached]
            reached.update(new)
        groups.add(frozenset(reached))
    return groups


def distances(pairs: int) -> dict[str, Any]:
    """Time tree edit distances, alternating with two published packages on the same trees."""
    rng = random.Random(0)
    sentences = real_sentences()
    parser = ParserConfig().load()
    chosen = [(rng.choice(sentences), rng.choice(sentences)) for _ in range(pairs)]
    parsed = parser.parse([text for pair in chosen for text in pair])
    trees = [(x.tree, y.tree) for a, b in chosen if (x := parsed[a]) and (y := parsed[b])]
    seconds: dict[str, list[float]] = {"ours": [], "zss": [], "apted": []}
    for a, b in trees:
        found = {}
        for name, distance in (("ours", tree_distance), ("zss", zss_distance), ("apted", apted_distance)):
            clock = time.perf_counter()
            found[name] = distance(a, b)
            seconds[name].append(time.perf_counter() - clock)
        assert len(set(found.values())) == 1, found
    figures: dict[str, Any] = {
        "tree_pairs": len(trees),
        "tree_nodes_mean": round(float(np.mean([len(t.labels) for pair in trees for t in pair])), 1),
        "parse_ms_a_sentence": round(parser.usage.model_seconds * 1000 / len(parsed), 2),
        "tree_distance_ms": round(float(np.mean(seconds["ours"])) * 1000, 3),
    }
    for name in ("zss", "apted"):
        ratios = np.array(seconds[name]) / np.array(seconds["ours"])
        low, high = np.percentile(ratios, [5, 95])
        total = sum(seconds[name]) / sum(seconds["ours"])
        figures[f"ratio_to_{name}"] = f"{total:.1f} (of totals; pairs {low:.1f} to {high:.1f})"
    return figures


def nested(tree: Tree) -> tuple[str, list[Any]]:
    """A tree as (label, children)."""
    stack: list[tuple[int, tuple[str, list[Any]]]] = []  # leftmost leaf, node
    for label, leftmost in zip(tree.labels, tree.leftmost, strict=True):
        children = []
        while stack and stack[-1][0] >= leftmost:
            children.append(stack.pop()[1])
        stack.append((leftmost, (label, children[::-1])))
    return stack[0][1]


def zss_distance(a: Tree, b: Tree) -> int:
    """The result of the package zss (including building its trees, which is little)."""
    import zss

    def node(tree: tuple[str, list[Any]]) -> Any:
        return zss.Node(tree[0], [node(child) for child in tree[1]])

    return int(zss.simple_distance(node(nested(a)), node(nested(b)), label_dist=lambda x, y: int(x != y)))


def apted_distance(a: Tree, b: Tree) -> int:
    """The result of the package apted (including building its trees, which is little)."""
    from apted import APTED
    from apted.helpers import Tree as AptedTree

    def node(tree: tuple[str, list[Any]]) -> Any:
        return AptedTree(tree[0], *(node(child) for child in tree[1]))

    return int(APTED(node(nested(a)), node(nested(b))).compute_edit_distance())


if __name__ == "__main__":
    main()
