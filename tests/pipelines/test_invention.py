"""Invention in the evaluation of a whole run: measured from the stored outputs, also for controls."""

import json
from collections.abc import Iterator
from pathlib import Path

from limbeck.corpus.parts import read_parts
from limbeck.corpus.text.invention.invented import invented


def measured(run: Path, subject: str) -> float:
    """The mean over documents of the share of a subject's stored test outputs that invent, without the code of evaluation."""
    documents = {row["source_id"]: row["document"] for row in read_parts(run / "rounds/000/sources/test").to_pylist()}
    outputs: dict[str, list[bool]] = {}
    for row in read_parts(run / f"evaluation/test/{subject}/candidates").to_pylist():
        outputs.setdefault(row["source_id"], []).append(bool(invented(documents[row["source_id"]], row["output"] or "")))
    return sum(sum(found) / len(found) for found in outputs.values()) / len(outputs)


def rows(run: Path) -> Iterator[tuple[str, float]]:
    for row in json.loads((run / "evaluation/test.json").read_text())["rounds"]["0"]:
        yield row["model"], row["invention"]["mean"]


def test_every_model_and_control_is_measured_from_what_is_stored(plain_run: Path) -> None:
    found = dict(rows(plain_run))
    assert found.keys() == {"teacher", "first-sentence", "mismatched", "document"}
    assert found["document"] == found["first-sentence"] == 0.0
    for model, mean in found.items():
        assert abs(mean - measured(plain_run, model)) < 1e-12
    page = (plain_run / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">invention</th>' in page and "lower is better" in page
