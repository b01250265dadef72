"""The invention measure on the outputs that finished runs stored; no model is loaded.

    python -m benchmarks.invention RUN...                                 invention by model on the test documents, speed
    python -m benchmarks.invention RUN... --draw 100 --seed 1 --out FILE  outputs to judge by hand, as JSON lines

`--draw` draws distinct flagged outputs of teachers and students (with `--unflagged`, of the others), each with its document and
what was found. Judge them with the rules fixed before the draw, and tune only on others.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.text.invention.invented import invented
from limbeck.students.evaluation.measures import CONTROLS
from limbeck.students.evaluation.statistics import interval, measure

TIMED = 5  # passes over all pairs


def main() -> None:
    """Print the table, or write a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test")
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--unflagged", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = {run: dict(outputs_of(run, arguments.split)) for run in arguments.runs}
    if arguments.draw:
        draw(found, arguments)
    else:
        show(found)


def outputs_of(run: Path, split: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield each subject of a split (for train: each round) with {source_id, document, output} of its usable outputs."""
    sources = {row["source_id"]: row for row in rows(run / "rounds" / "000" / "sources" / split)}
    folders = run.glob("rounds/*") if split == "train" else run.glob(f"evaluation/{split}/*")
    for folder in sorted(path for path in folders if (path / "candidates").is_dir()):
        usable = [row for row in rows(folder / "candidates") if row["error"] is None]
        yield folder.name, [sources[row["source_id"]] | {"output": row["output"]} for row in usable]


def rows(folder: Path) -> Iterator[dict[str, str]]:
    """The rows of a folder of Parquet files."""
    for file in sorted(folder.glob("*.parquet")):
        yield from pq.read_table(file, partitioning=None).to_pylist()


def show(found: dict[Path, dict[str, list[dict[str, str]]]]) -> None:
    """The share of every subject with its interval, and the speed."""
    print("| run | model | outputs | invention | 95 % interval |\n|---|---|---|---|---|")
    for run, subjects in found.items():
        for subject, outputs in subjects.items():
            columns = {name: [row.get(name) for row in outputs] for name in ("source_id", "document", "output")}
            table = pa.table(columns | {"reference": pa.nulls(len(outputs), pa.string()), "kept": [True] * len(outputs)})
            table = table.append_column("salient", pa.array([[]] * len(outputs), pa.list_(pa.int32())))
            measured = interval_of(table)
            print(f"| {run.name} | {subject} | {len(outputs)} | {measured} |")
    pairs = [(row["document"], row["output"]) for subjects in found.values() for rows in subjects.values() for row in rows]
    seconds = []
    for _ in range(TIMED):
        started = time.process_time()
        for document, output in pairs:
            invented(document, output)
        seconds.append(time.process_time() - started)
    characters = statistics.mean(len(document) for document, _ in pairs)
    speed = len(pairs) / statistics.median(seconds)
    print(f"\n{speed:,.0f} pairs per second of processor time (documents of {characters:,.0f} characters)")


def interval_of(table: pa.Table) -> str:
    """Mean and interval over documents."""
    found = interval(measure(table).means["invention"])
    return "– | –" if found is None else f"{100 * found.mean:.1f} % | {100 * found.low:.1f} to {100 * found.high:.1f}"


def draw(found: dict[Path, dict[str, list[dict[str, str]]]], arguments: argparse.Namespace) -> None:
    """Write distinct outputs of models, flagged or not, drawn by the seed."""
    models = [row for subjects in found.values() for name, rows in subjects.items() if name not in CONTROLS for row in rows]
    distinct = sorted({(row["document"], row["output"]) for row in models})
    judged = [(document, output, invented(document, output)) for document, output in distinct]
    wanted = [row for row in judged if bool(row[2]) != arguments.unflagged]
    sample = random.Random(arguments.seed).sample(wanted, min(arguments.draw, len(wanted)))
    lines = [json.dumps(dict(zip(("document", "output", "found"), row, strict=True)), ensure_ascii=False) for row in sample]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    which = "unflagged" if arguments.unflagged else "flagged"
    print(f"{len(distinct)} distinct outputs, {len(wanted)} of them {which}; {len(sample)} drawn")


if __name__ == "__main__":
    main()
