"""The self-test of `judge` and `grade` outside of a run: outputs are the first two sentences of package descriptions.

    python -m benchmarks.self_test [--model M] [--pairs N] [--only judge|grade] [--tokens N] [--json]

The same pairs, questions and figures as in a run. The true outputs are literally in their documents, so a judge of faithfulness
has an easy task; a summary in other words is harder.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.corpus.parts import write_part
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.corpus.sentences import split_sentences
from limbeck.corpus.sources import PackagesSources, read_sources
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.contract import ProbedFilter
from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.filters.models.grade import GradeConfig
from limbeck.filters.models.judge import JudgeConfig
from limbeck.pipelines.driver.self_test import draw_pairs
from limbeck.pipelines.runs.self_test import SelfTest, Share, evaluate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=20, help="per corruption")
    parser.add_argument("--only", choices=("judge", "grade"))
    parser.add_argument("--tokens", type=int, default=120, help="of a document")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    engine = TransformersConfig(model=arguments.model)
    filters = [JudgeConfig(engine=engine, compare="lead"), GradeConfig(engine=engine)]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.model, arguments.tokens)
        pairs = draw_pairs(Path(folder) / "candidates", Path(folder) / "sources", arguments.pairs, run_seed=0)
    engines = Engines()
    for config in (config for config in filters if arguments.only in (None, config.kind)):
        built = config.build(engines)
        assert isinstance(built, ProbedFilter)
        answers = built.probe(pairs)
        identity = {name: pairs[name] for name in ("source_id", "corruption")}
        table = pa.table({**identity, **{name: answers[name] for name in answers.column_names}})
        found = evaluate(config.name, config.kind, config.probing.by, table)
        print(json.dumps(found.model_dump()) if arguments.json else markdown(found), flush=True)


def write(folder: Path, model: str, tokens: int) -> None:
    """The descriptions of installed packages as sources, and their first two sentences as candidates."""
    settings: dict[str, Any] = {
        "kind": "installed-packages",
        "max_source_tokens": tokens,
        "split": {"train": 1.0, "dev": 0.0, "test": 0.0},
    }
    table = read_sources(PackagesSources.model_validate(settings), Tokenizer.load(resolve(model)), seed=0)
    rows = []
    for row in table.to_pylist():
        sentences = split_sentences(row["document"])
        if row["split"] == "train" and len(sentences) > 2:
            facts = {"candidate_id": f"{row['source_id']}-0", "source_id": row["source_id"], "sample": 0, "seed": 0}
            texts = {"prompt": "Summarise the text.", "output": " ".join(sentences[:2]), "finish_reason": "stop"}
            rows.append({**facts, **texts, "prompt_tokens": 0, "output_tokens": 0})
    train = table.filter(pa.array([split == "train" for split in table["split"].to_pylist()]))
    write_part(folder / "sources", "part-00000", train, SOURCES)
    write_part(folder / "candidates", "part-00000", pa.Table.from_pylist(rows, schema=CANDIDATES), CANDIDATES)


def markdown(found: SelfTest) -> str:
    """The table of the report as Markdown."""
    lines = [f"{found.kind}, by its {found.by}: {found.verdict}; {found.sources} sources", ""]
    lines += ['| corruption | pairs | right | orders agree | answers "A" | higher score |', "|---|---|---|---|---|---|"]
    for one in (*found.corruptions, *found.together):
        words = CORRUPTIONS[one.corruption].words if one.corruption in CORRUPTIONS else one.corruption
        agree, says_a = (("–" if share is None else f"{100 * share:.0f} %") for share in (one.orders_agree, one.answer_a))
        lines.append(f"| {words} | {one.pairs} | {_share(one.answers)} | {agree} | {says_a} | {_share(one.scores)} |")
    return "\n".join(lines) + "\n"


def _share(share: Share | None) -> str:
    return "–" if share is None else f"{100 * share.share:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"


if __name__ == "__main__":
    main()
