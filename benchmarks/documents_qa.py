"""documents_qa, measured: do answers follow from their own document, and questions belong to it, more often than by chance?

    python -m benchmarks.documents_qa [--documents 60] [--styles plain chat] [--nli MODEL] [--model M]

asks the generator of the recipe `documents-qa` about documents of its sources, and scores questions and answers with its
filters, on the own document and on another one (`corpus.other_documents`; the null columns of the filters). Figures are
means over documents with bootstrap 95 % intervals. Without `--nli` the filter `nli` is left out.
"""

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.critics import auroc
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.corpus.other_documents import NO_OTHER, OtherDocuments, groups_of, other_rows
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.sources import read_sources
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.models.nli import NliConfig
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.models.question_pmi import QuestionPmiConfig
from limbeck.generators.contract import TEACHER
from limbeck.generators.documents_qa.generator import DocumentsQaConfig
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.jobs import with_sources
from limbeck.students.evaluation.statistics import interval

Floats = npt.NDArray[np.float64]
ENTAILED = 0.75
FALSE_ACCEPTANCE = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--styles", nargs="+", default=["plain", "chat"], choices=["plain", "chat"])
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--nli", help="a model, such as embedded:nli-minilm")
    arguments = parser.parse_args()
    recipe = recipes.load("documents-qa")
    sources = read_sources(recipe.sources, Tokenizer.load(resolve(arguments.model)), recipe.seed)
    sources = sources.filter(pc.not_equal(sources["split"], "rejected")).slice(0, arguments.documents)
    for style in arguments.styles:
        settings = {**recipe.generator.model_dump(), "style": style, "questions": arguments.questions}
        measure(DocumentsQaConfig.model_validate(settings), sources, arguments.model, arguments.nli)


def measure(generator: DocumentsQaConfig, sources: pa.Table, model: str, nli: str | None) -> None:
    """Print the figures of one style."""
    engines, engine = Engines(), TransformersConfig(model=model)
    cpu = time.process_time()
    drawn = Runner(generator.build(), 0, 0).run(sources, {TEACHER: engines.get(engine)}).select(CANDIDATES.names)
    seconds = time.process_time() - cpu
    print(f"\nstyle {generator.style}: {sources.num_rows} documents, {drawn.num_rows} questions, {seconds:.0f} s of CPU")
    for reason, count in Counter(reason for reason in drawn["error"].to_pylist() if reason).items():
        print(f"- rejected: {reason}: {count}")
    kept = drawn.filter(pc.is_null(drawn["error"]))
    for row in kept.slice(0, 8).to_pylist():
        print(f"  Q: {row['prompt']}\n  A: {row['output'][:200]}")
    table = _with_others(with_sources(kept, sources), sources)
    documents = np.array(table["source_id"].to_pylist())
    questions = QuestionPmiConfig(engine=engine).build(engines)
    margins, crossed = (questions.score(rows)["margin"].to_numpy() for rows in (table, _with_other_questions(table)))
    print(f"margins: own question {_quartiles(margins)}; question of another document {_quartiles(crossed)}", flush=True)
    for bound in (0.0, 0.1, 0.2, 0.3):
        _compare(f"question_pmi, margin >= {bound}", margins, crossed, bound, documents)
    pmi = PmiConfig(engine=engine, null=True).build(engines).score(table)
    own, other = (pmi[name].to_numpy() for name in ("faithfulness", "faithfulness_null"))
    bound = float(np.quantile(other[np.isfinite(other)], 1 - FALSE_ACCEPTANCE))
    _compare(f"pmi, faithfulness >= {bound:.3f}", own, other, bound, documents)
    passes, passes_null = own >= bound, other >= bound
    if nli is not None:
        settings: dict[str, Any] = {"classifier": {"model": nli}, "windows": "sentences"}
        found = NliConfig.model_validate({**settings, "min_entailment": {"false_acceptance": 0.05}}).build(engines).score(table)
        own, other = (found[name].to_numpy() for name in ("entailment", "entailment_null"))
        _compare(f"nli, entailment >= {ENTAILED}", own, other, ENTAILED, documents)
        passes, passes_null = passes & (own >= ENTAILED), passes_null & (other >= ENTAILED)
    print(f"all of them: {_mean(passes, documents)}, with another document {_mean(passes_null, documents)}", end="")
    print(f", difference {_mean(passes.astype(float) - passes_null, documents)}")
    whole = passes & (margins > 0)
    for row, fine in zip(kept.to_pylist(), whole, strict=True):
        if fine:
            print(f"  + {row['prompt']} | {row['output'][:160]}")


def _with_others(table: pa.Table, sources: pa.Table) -> pa.Table:
    """Further columns: the other documents of every candidate."""
    split = OtherDocuments.of_table(sources)
    for more in (split.crossed(table, [True] * table.num_rows), split.several(table, QuestionPmiConfig().others)):
        for name in more.column_names:
            table = table.append_column(more.schema.field(name), more[name])
    return table


def _with_other_questions(table: pa.Table) -> pa.Table:
    """Each document with the question of the next one that is no near-duplicate."""
    rows = other_rows(table["source_id"].to_pylist(), groups_of(table))
    asked = table["prompt"].take(pa.array(rows, mask=rows == NO_OTHER))
    return table.set_column(table.column_names.index("prompt"), "prompt", asked)


def _compare(what: str, own: Floats, other: Floats, bound: float, documents: npt.NDArray[np.str_]) -> None:
    both = np.isfinite(own) & np.isfinite(other)
    print(f"{what}: AUROC {auroc(own[both], other[both]):.3f}", end="")
    print(f", passes {_mean(own >= bound, documents)}, with another document {_mean(other >= bound, documents)}", end="")
    print(f", difference {_mean((own >= bound).astype(float) - (other >= bound), documents)}")


def _mean(values: npt.NDArray[Any], documents: npt.NDArray[np.str_]) -> str:
    """The mean over documents, with its interval."""
    found = interval(np.array([values[documents == document].mean() for document in np.unique(documents)], np.float64))
    return "none" if found is None else f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _quartiles(values: Floats) -> str:
    return ", ".join(f"{value:.2f}" for value in np.nanquantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))


if __name__ == "__main__":
    main()
