"""A finished run folder like that of a real run, made without any model; for tests of code that reads run folders."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.parts import write_json, write_part, write_parts, write_text
from limbeck.corpus.schemas import CANDIDATES, DECISIONS, SOURCES
from limbeck.pipelines.runs.card import DatasetFacts, write_dataset
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.report_model import Rows
from limbeck.students.evaluation.controls import controls
from limbeck.students.evaluation.statistics import evaluate, measure

SUBJECTS = ["A small library", "This command-line tool", "A fast parser", "An async client", "The plug-in", "A thin wrapper"]
VERBS = ["reads", "validates", "serves", "compresses", "draws", "schedules", "signs", "converts"]
OBJECTS = ["YAML files", "HTTP requests", "time series", "tables of numbers", "log lines", "web pages", "short texts", "graphs"]
EXTRAS = ["without any dependency", "in pure Python", "on every platform", "from a terminal", "with type hints", "at any scale"]
BOUNDS = {
    "length": {"compression": {"minimum": None, "maximum": 0.6}},
    "heuristics": {"copied": {"minimum": None, "maximum": 0.8}, "cut_off": {"minimum": None, "maximum": 0.0}},
    "pmi": {"faithfulness": {"minimum": 0.2, "maximum": None}, "saliency": {"minimum": 0.05, "maximum": None}},
}

SEPARATION = {"filter": "pmi", "column": "faithfulness", "side": "minimum", "limit": 0.2, "calibrated": True} | {
    **{"verdict": "separates", "auroc": 0.97, "auroc_low": 0.94, "auroc_high": 1.0, "passing": 0.5, "passing_mismatched": 0.02},
    **{"pairs": 120, "sources": 60},
}


def sentence(rng: random.Random) -> str:
    """A plausible sentence about a package."""
    return f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(EXTRAS)}."


def sources(split: str, count: int, seed: int = 0) -> pa.Table:
    """Documents of five sentences, each with a reference and two salient spans."""
    rng = random.Random(f"{split}{seed}")
    rows = []
    for index in range(count):
        document = " ".join(sentence(rng) for _ in range(5))
        rows.append(
            {
                "source_id": f"{split}{index:04d}",
                "document": document,
                "reference": sentence(rng),
                "origin": f"package-{split}-{index}",
                "split": split,
                "group": f"{split}{index:04d}",
                "document_tokens": len(document.split()),
                "cut_characters": 0,
                "salient": [0, 9, document.index(".") - 8, document.index(".")],
                "reason": None,
            }
        )
    return pa.Table.from_pylist(rows, schema=SOURCES)


def candidates(table: pa.Table, samples: int, round_number: int, output: str | None = None) -> pa.Table:
    """`samples` candidates per source; `output` replaces the first row's text."""
    rng = random.Random(round_number)
    rows: list[dict[str, Any]] = []
    for source in table.to_pylist():
        for sample in range(samples):
            text = sentence(rng) if rng.random() < 0.9 else "As an AI"
            rows.append(
                {
                    "candidate_id": f"{round_number}-{source['source_id']}-{sample}",
                    "source_id": source["source_id"],
                    "sample": sample,
                    "seed": rng.randrange(1 << 40),
                    "prompt": f"Summarise in one sentence:\n{source['document']}",
                    "output": text,
                    "prompt_tokens": 80,
                    "output_tokens": len(text.split()),
                    "finish_reason": "stop",
                    "error": None,
                }
            )
    if output is not None:
        rows[0]["output"] = output
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def scores(table: pa.Table, quality: float) -> dict[str, pa.Table]:
    """Made-up scores of each filter; `quality` raises PMI."""
    rng = random.Random(f"{quality}{table.num_rows}")
    ids, count = table["candidate_id"], table.num_rows
    copied = [max(0.0, rng.gauss(0.4, 0.2)) for _ in range(count)]
    faithfulness = [rng.gauss(0.15 + quality, 0.12) for _ in range(count)]
    saliency = [rng.gauss(0.06 + quality / 4, 0.05) for _ in range(count)]
    none = pa.nulls(count, pa.string())
    pmi = [(left + right) / 2 for left, right in zip(faithfulness, saliency, strict=True)]
    return {
        "length": pa.table(
            {
                "candidate_id": ids,
                "error": none,
                "compression": [max(0.02, rng.gauss(0.3, 0.12)) for _ in range(count)],
                "output_tokens": [float(value) for value in table["output_tokens"].to_pylist()],
            }
        ),
        "heuristics": pa.table(
            {
                "candidate_id": ids,
                "error": none,
                "copied": copied,
                "cut_off": [float(rng.random() < 0.1) for _ in range(count)],
            }
        ),
        "pmi": pa.table({"candidate_id": ids, "error": none, "faithfulness": faithfulness, "saliency": saliency, "pmi": pmi}),
    }


def decide(table: pa.Table, found: dict[str, pa.Table]) -> tuple[pa.Table, dict[str, list[bool]]]:
    """Decisions by `BOUNDS`, and whether each filter alone would pass each row."""
    values = {name: scored.to_pylist() for name, scored in found.items()}
    passes: dict[str, list[bool]] = {name: [] for name in BOUNDS}
    rows = []
    for index, row in enumerate(table.to_pylist()):
        faults = []
        for name, columns in BOUNDS.items():
            mine = [fault for column, limit in columns.items() if (fault := _fault(column, values[name][index][column], limit))]
            passes[name].append(not mine)
            faults += [(name, fault) for fault in mine[:1]]
        rejected_by, reason = faults[0] if faults else (None, None)
        rows.append({key: row[key] for key in ("candidate_id", "source_id", "sample")})
        rows[-1] |= {"kept": not faults, "rejected_by": rejected_by, "reason": reason}
    return pa.Table.from_pylist(rows, schema=DECISIONS), passes


def _fault(column: str, value: float, limit: dict[str, float | None]) -> str | None:
    if limit["minimum"] is not None and value < limit["minimum"]:
        return f"{column} {value:.2f} is below {limit['minimum']}"
    if limit["maximum"] is not None and value > limit["maximum"]:
        return f"{column} {value:.2f} is above {limit['maximum']}"
    return None


def evaluation_table(documents: pa.Table, table: pa.Table, quality: float) -> pa.Table:
    """The input table of `limbeck.students.evaluation.statistics.evaluate`."""
    found = scores(table, quality)
    decisions, passes = decide(table, found)
    by_id = {row["source_id"]: row for row in documents.to_pylist()}
    owners = [by_id[source_id] for source_id in table["source_id"].to_pylist()]
    columns = {name: table[name] for name in ("source_id", "sample", "output")}
    columns |= {name: [owner[name] for owner in owners] for name in ("document", "reference", "salient")}
    columns |= {"kept": decisions["kept"], **{f"pass_{name}": passed for name, passed in passes.items()}}
    columns |= {name: found["pmi"][name] for name in ("faithfulness", "saliency", "pmi")}
    return pa.table({**columns, "compression": found["length"]["compression"]})


def make_run(
    folder: Path, *, rounds: int = 2, finished: bool = True, output: str | None = None, qualities: Any = (0, 0.05, 0.1)
) -> Path:
    """Write the run; `output` is the text of one candidate of round 0, `qualities` those of the teacher and of each student."""
    write_text(folder / "recipe.yaml", "name: made-up\nrounds: 2\nteacher:\n  kind: transformers # a comment\n")
    write_json(folder / "lock.json", {"stages": {}, "versions": {"python": "3.11", "torch": "2.13.0"}, "seed": 7})
    calibration = {"bounds": BOUNDS, "pass_rate_target": 0.25, "pass_rate": 0.251, "candidates": 240, "level": 0.4, "note": None}
    write_json(folder / "calibration.json", calibration | {"separation": [SEPARATION]})
    train, dev, test = sources("train", 60), sources("dev", 20), sources("test", 24)
    for split, table in (("train", train), ("dev", dev), ("test", test)):
        write_parts(folder / "rounds" / "000" / "sources" / split, table, 25, SOURCES)
    counts = {"used": 104, "train": 60, "dev": 20, "test": 24, "rejected": {"shorter than 200 characters": 9}}
    write_json(
        folder / "rounds" / "000" / "sources" / "_done.json", {"fingerprint": "x", "rows_in": 113, "rows_out": 104, **counts}
    )
    events, on_test = Events(folder / "events.jsonl"), {}
    events.emit("run_started")
    first = {
        split: measure(evaluation_table(table, candidates(table, 4, 99), qualities[0]))
        for split, table in (("dev", dev), ("test", test))
    }
    for number in range(rounds):
        seconds = {"candidates": (40.0, 37.0), "scores/pmi": (30.0, 28.0), "student": (60.0, 44.0), "evaluation": (25.0, 20.0)}
        for stage, (total, model) in seconds.items():
            events.emit("stage_done", stage=f"round-{number}/{stage}", seconds=total, model_seconds=model)
        on_test[str(number)] = _round(
            folder, number, train, {"dev": dev, "test": test}, first, (output if number == 0 else None, qualities)
        )
    if finished:
        write_json(
            folder / "evaluation" / "test.json",
            {"rounds": {number: [row.model_dump() for row in rows] for number, rows in on_test.items()}},
        )
        write_json(folder / "evaluation" / "_done.json", {"fingerprint": "x"})
        events.emit("run_done", seconds=310.0)
    return folder


def _round(
    folder: Path, number: int, train: pa.Table, held_out: dict[str, pa.Table], first: dict[str, pa.Table], given: Any
) -> Any:
    output, qualities = given
    home = folder / "rounds" / f"{number:03d}"
    drawn = candidates(train, 4, number, output)
    found = scores(drawn, qualities[number])
    decisions, _ = decide(drawn, found)
    for name, table in found.items():
        for index, start in enumerate(range(0, table.num_rows, 100)):
            write_part(home / "scores" / name, f"part-{index:05d}", table.slice(start, 100))
    for index, start in enumerate(range(0, drawn.num_rows, 100)):
        write_part(home / "candidates", f"part-{index:05d}", drawn.slice(start, 100), CANDIDATES)
    pq.write_table(decisions, home / "decisions.parquet")
    reasons = [name for name in decisions["rejected_by"].to_pylist() if name]
    kept = sum(decisions["kept"].to_pylist())
    rows = Rows(sources=60, candidates=240, kept=kept, rejected_by={name: reasons.count(name) for name in BOUNDS})
    write_json(home / "rows.json", rows.model_dump())
    _dataset(
        home / "dataset",
        train,
        drawn,
        decisions,
        found["pmi"],
        DatasetFacts(name="made-up", round=number, rows=rows, teacher="t", seed=7),
    )
    evaluations: dict[str, list[Any]] = {}
    for split, documents in held_out.items():
        student = measure(evaluation_table(documents, candidates(documents, 4, 50 + number), qualities[number + 1]))
        evaluations[split] = [evaluate("student", split, student, first[split])]
        if number == 0:
            evaluations[split].insert(0, evaluate("teacher", split, first[split]))
        if split == "test":
            made = controls(documents, candidates(documents, 4, 99), lambda texts: [len(text.split()) for text in texts])
            rates = {"first-sentence": 0.0, "mismatched": -0.2, "document": -0.1}
            evaluations[split] += [
                evaluate(name, split, measure(evaluation_table(documents, table, rates[name])), first[split])
                for name, table in made.items()
            ]
    training = {"loss_first": 2.31, "loss_last": 1.74, "steps": 15, "tokens": 12_000, "train_seconds": 44.0, "base": "teacher"}
    teacher = {"name": "embedded:smollm2-135m-instruct" if number == 0 else f"round-{number - 1}/student", "fingerprint": "abc"}
    report = {
        "rows": rows.model_dump(),
        "evaluation": [row.model_dump() for row in evaluations["dev"]],
        "training": training,
        "teacher": teacher,
    }
    write_json(home / "evaluation.json", report | {"student": {"name": f"round-{number}/student", "fingerprint": f"f{number}"}})
    return evaluations["test"]


def _dataset(folder: Path, train: pa.Table, drawn: pa.Table, decisions: pa.Table, pmi: pa.Table, facts: DatasetFacts) -> None:
    by_id = {row["source_id"]: row for row in train.to_pylist()}
    rows = [
        {
            "candidate_id": row["candidate_id"],
            "source_id": row["source_id"],
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["output"]}],
            "document": by_id[row["source_id"]]["document"],
            "output": row["output"],
            "reference": by_id[row["source_id"]]["reference"],
            "pmi": score,
        }
        for row, kept, score in zip(drawn.to_pylist(), decisions["kept"].to_pylist(), pmi["pmi"].to_pylist(), strict=True)
        if kept
    ]
    write_dataset(folder, [pa.Table.from_pylist(rows)], facts)
    write_json(folder / "_done.json", {"fingerprint": "x"})
