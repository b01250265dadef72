"""How well each filter separates a run's kept outputs from corrupted versions: AUROC per corruption, and a plot per filter.

    limbeck run pipelines/recipes/packages.yaml --set rounds=1 --set student=null --out runs/critics
    python -m benchmarks.critics runs/critics [--plots docs/filters/plots] [--nli MODEL] [--masked MODEL] [--only nli pmi ...] \
        [--corruptions mismatched renamed added ...]

takes the kept candidates of the run's first round and corrupts each in five ways: the output of another document (mismatched), an
entity or number exchanged for another output's (swapped), the statement negated (negated), cut off half-way (truncated), and
words in random order (shuffled); on request also a name alone exchanged (renamed), and another document's output added at its
end (added). 0.5 is chance, 1.0 separates all corrupted pairs from all kept ones, below 0.5 the filter
prefers the corrupted ones; n counts the pairs that a corruption applies to. The run selected by heuristics, length and PMI, so
the figures of these three are optimistic. Filters of repeats (novelty, duplicates) get the kept outputs first: a corrupted output
repeats one.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from benchmarks.corruptions import CORRUPTIONS, USUAL, spoil
from benchmarks.critics_plots import plot
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.corpus.text.rouge.index import RougeIndex
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.infinigram.build import Settings, build
from limbeck.pipelines.driver.jobs import with_sources
from limbeck.pipelines.recipe import FilterConfig
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.whatif import recorded_recipe

Scores = dict[str, npt.NDArray[np.float64]]  # column → one value per pair

# filter → (its section of a recipe, {column: +1 if higher is better, -1 if lower is})
CRITICS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "heuristics": ({"kind": "heuristics"}, {"cut_off": -1, "copied": -1, "repeated": -1, "preamble": -1}),
    "length": ({"kind": "length"}, {"output_tokens": 1, "compression": -1}),
    "repetition": ({"kind": "repetition"}, {"unterminated_lines": -1, "stop_words": 1, "duplicate_5_grams": -1}),
    "instructions": ({"kind": "instructions"}, {"truncated": -1, "words": 1}),
    "language": ({"kind": "language"}, {"probability": 1}),
    "privacy": ({"kind": "privacy"}, {"found": -1}),
    "toxicity": ({"kind": "toxicity"}, {"share": -1}),
    "attributes": ({"kind": "attributes"}, {"specificity": 1, "coverage": 1, "keyword_recall": 1}),
    "ngrams": ({"kind": "ngrams"}, {"longest_share": -1, "infgram_logprob": 1}),
    "embedding": ({"kind": "embedding"}, {"similarity": 1}),
    "nli": ({"kind": "nli"}, {"entailment": 1, "contradiction": -1}),
    "nli-windows": ({"kind": "nli", "windows": "sentences"}, {"entailment": 1, "contradiction": -1}),
    "equivalence": ({"kind": "equivalence"}, {"forward": 1, "backward": 1, "numbers_agree": 1}),
    "pmi": ({"kind": "pmi"}, {"faithfulness": 1, "saliency": 1, "pmi": 1}),
    "masked_pmi": ({"kind": "masked_pmi"}, {"faithfulness": 1, "saliency": 1, "pmi": 1}),
    "bottleneck": ({"kind": "bottleneck"}, {"bottleneck_nats": -1}),
    "fluency": ({"kind": "fluency"}, {"fluency": -1}),
    "grade": ({"kind": "grade"}, {"score": 1}),
}
SET_WISE = {"novelty": {"rouge_l": -1}, "duplicates": {"jaccard": -1}, "diversity": {"entails_or_entailed": 1}}
UNWANTED = "stupid*\nidiot*\ndamn*\ncrap*\nmoron*\n"  # a word list is required, and any will do here


def main() -> None:
    """Score kept and corrupted pairs with every filter; print the table, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--nli", default="embedded:nli-minilm", help="the NLI model: an id, a folder or an embedded name")
    parser.add_argument("--masked", help="a masked language model for masked_pmi, which is skipped without one")
    parser.add_argument("--only", nargs="*", choices=sorted({*CRITICS, *SET_WISE}))
    parser.add_argument("--corruptions", nargs="+", choices=sorted(CORRUPTIONS), default=USUAL)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    wanted = arguments.only or [name for name in (*CRITICS, *SET_WISE) if name != "masked_pmi" or arguments.masked]
    tables, engines, rows = pairs(arguments.run, arguments.corruptions), Engines(keep=2), []
    with tempfile.TemporaryDirectory() as folder:
        asking = Asking(arguments.run, Path(folder), arguments.nli, arguments.masked)
        for name in wanted:
            columns = SET_WISE[name] if name in SET_WISE else CRITICS[name][1]
            found = set_wise(name, tables, asking, engines) if name in SET_WISE else by_row(name, tables, asking, engines)
            for column, sign in columns.items():
                values = {kind: sign * scores[column] for kind, scores in found.items()}
                rows.append(
                    {"critic": name, "column": column, **{k: auroc(values["kept"], values[k]) for k in arguments.corruptions}}
                )
            if arguments.plots is not None:
                arguments.plots.mkdir(parents=True, exist_ok=True)
                shown = {column: {kind: scores[column] for kind, scores in found.items()} for column in columns}
                plot(shown, arguments.plots / f"{name}.svg")
    counts = {kind: table.num_rows for kind, table in tables.items()}
    print(json.dumps({"pairs": counts, "auroc": rows}, indent=2) if arguments.json else markdown(counts, rows))


class Asking:
    """What the filter configs need from this machine and run: models, a word list, an index of the run's documents."""

    def __init__(self, run: Path, folder: Path, nli: str, masked: str | None) -> None:
        """Write the word list and build the index in `folder`."""
        recipe = recorded_recipe(existing(run))
        self.teacher = recipe.teacher.model_dump(mode="json")
        self.nli, self.masked = {"model": nli}, {"model": masked}
        self.words, self.index = folder / "words.txt", folder / "index"
        self.words.write_text(UNWANTED)
        documents = read_parts(existing(run).sources("train"), SOURCES)["document"].to_pylist()
        (folder / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        build([folder / "documents.jsonl"], self.index, Settings(tokenizer=str(resolve(recipe.teacher.model))))

    def config(self, section: Mapping[str, Any]) -> Any:
        """A filter's config with its missing fields filled in."""
        adapter: TypeAdapter[Any] = TypeAdapter(FilterConfig)
        needs = {
            "toxicity": {"words": str(self.words)},
            "ngrams": {"index": str(self.index)},
            "nli": {"classifier": self.nli},
            "equivalence": {"classifier": self.nli},
            "masked_pmi": {"masked": self.masked},
            **dict.fromkeys(("pmi", "bottleneck", "fluency", "grade"), {"engine": self.teacher}),
        }
        return adapter.validate_python({**section, **needs.get(section["kind"], {})})


def pairs(run: Path, corruptions: Sequence[str]) -> dict[str, pa.Table]:
    """The kept candidates of the first round, and each corruption of them, as passed to filters."""
    folder = existing(run)
    candidates, decisions = read_parts(folder.candidates(0), CANDIDATES), read_table(folder.decisions(0))
    kept_ids = pa.array(decisions.filter(decisions["kept"])["candidate_id"].to_pylist())
    kept = candidates.filter(pc.is_in(candidates["candidate_id"], kept_ids)).sort_by("source_id")
    kept = with_sources(kept, read_parts(folder.sources("train"), SOURCES))
    count = Tokenizer.load(resolve(recorded_recipe(folder).teacher.model)).count
    return {"kept": kept, **{name: spoil(kept, name, count) for name in corruptions}}


def by_row(name: str, tables: Mapping[str, pa.Table], asking: Asking, engines: Engines) -> dict[str, Scores]:
    """The scores of a filter that scores one pair at a time."""
    section, columns = CRITICS[name]
    critic = asking.config(section).build(engines)
    scored = {kind: critic.score(table) for kind, table in tables.items()}
    return {kind: {column: numbers(table, column) for column in columns} for kind, table in scored.items()}


def set_wise(name: str, tables: Mapping[str, pa.Table], asking: Asking, engines: Engines) -> dict[str, Scores]:
    """The scores of a filter of repeats: each output against the kept outputs of all (kept ones: of all other) candidates."""
    kept = tables["kept"]["output"].to_pylist()
    ids = {f"{id_}-{kind}": place for place, id_ in enumerate(tables["kept"]["candidate_id"].to_pylist()) for kind in tables}
    found: dict[str, Scores] = {}
    for kind, table in tables.items():
        outputs = table["output"].to_pylist()
        if name == "novelty":
            index = RougeIndex(kept, floor=0.0)
            two = [index.nearest(output, 2) for output in outputs]
            values = [(near[1] if kind == "kept" else near[0]).rouge_l for near in two]
            found[kind] = {"rouge_l": np.array(values)}
        elif name == "duplicates":
            sets = [shingles(output) for output in kept]
            values = [
                max(jaccard(shingles(output), other) for place, other in enumerate(sets) if kind != "kept" or place != own)
                for own, output in enumerate(outputs)
            ]
            found[kind] = {"jaccard": np.array(values)}
        else:
            classifier = engines.hold(ClassifierConfig(model=asking.nli["model"]))
            origins = outputs if kind == "kept" else [kept[ids[id_]] for id_ in table["candidate_id"].to_pylist()]
            ways = [
                classifier.probabilities(list(zip(*way, strict=True)))[:, 0] for way in ((outputs, origins), (origins, outputs))
            ]
            found[kind] = {"entails_or_entailed": np.maximum(*ways)}
    return found


def shingles(text: str) -> set[tuple[str, ...]]:
    """Pairs of adjacent words, the default shingles of the duplicates filter."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return set(zip(words, words[1:], strict=False)) or {tuple(words)}


def jaccard(a: set[Any], b: set[Any]) -> float:
    """The Jaccard similarity of two sets."""
    return len(a & b) / len(a | b)


def numbers(table: pa.Table, column: str) -> npt.NDArray[np.float64]:
    """A column as float64, NaN for null."""
    return np.array(table[column].cast(pa.float64()).to_pandas(), dtype=np.float64)


def auroc(good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> float:
    """The probability that a good pair scores higher than a bad one, ties counting half; missing scores rank lowest."""
    from scipy.stats import rankdata

    good, bad = np.nan_to_num(good, nan=-np.inf), np.nan_to_num(bad, nan=-np.inf)
    if not len(good) or not len(bad):
        return float("nan")
    ranks = rankdata(np.concatenate([good, bad]))[: len(good)]
    return float((ranks.sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def markdown(counts: Mapping[str, int], rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    corruptions = [name for name in counts if name != "kept"]
    head = " | ".join(f"{name} (n={counts[name]})" for name in corruptions)
    lines = [f"{counts['kept']} kept pairs", "", f"| filter | column | {head} |", "|---|---|" + "---|" * len(corruptions)]
    for row in rows:
        lines.append(f"| {row['critic']} | {row['column']} | " + " | ".join(f"{row[name]:.2f}" for name in corruptions) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
