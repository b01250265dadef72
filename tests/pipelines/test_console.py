"""What a run prints when its output is not a terminal, and a preview of which nothing passes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.gates import wait_for
from helpers.tiny_run import write_recipe
from limbeck.corpus.amounts import minutes
from limbeck.pipelines.console import check
from limbeck.pipelines.console.panel import PlainLines, sentence
from limbeck.pipelines.runs.events import acceptance_words


def test_plain_lines_follow_a_training_until_the_next_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress, lines, printed = tmp_path / "progress.json", PlainLines(interval=0.01), [""]

    def said(words: str) -> bool:
        printed[0] += capfd.readouterr().err
        return words in printed[0]

    lines({"event": "training_started", "round": 1, "rows": 7, "progress": str(progress)})
    wait_for(lambda: said("round 1: training, starting"))
    progress.write_text(json.dumps({"unit": "step", "step": 3, "steps": 9, "loss": 0.5}))
    wait_for(lambda: said("round 1: training, step 3 of 9, loss 0.500"))
    lines({"event": "trained", "round": 1})
    progress.write_text(json.dumps({"unit": "step", "step": 9, "steps": 9, "loss": 0.1}))
    assert said("round 1: student trained") and not said("step 9 of 9")
    assert len(re.findall("step 3 of 9", printed[0])) == 1, "a progress that did not move is not printed again"
    lines.close()


def test_a_phase_without_progress_is_reported_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress, lines, printed = tmp_path / "progress.json", PlainLines(interval=0.01, silence=0.05), [""]
    progress.write_text(json.dumps({"words": "loading the model"}))

    def said(pattern: str) -> bool:
        printed[0] += capfd.readouterr().err
        return re.search(pattern, printed[0]) is not None

    lines({"event": "training_started", "round": 0, "rows": 7, "progress": str(progress)})
    wait_for(lambda: said(r"round 0: training, loading the model \(for \d+ s\)"))
    lines.close()


def test_a_line_of_a_held_out_part_names_the_model() -> None:
    event: dict[str, Any] = {"event": "part_done", "stage": "test/candidates", "part": "part-00000", "rows": 4, "seconds": 1.0}
    event |= {"output_tokens": 0, "failed_rows": []}
    assert sentence({**event, "subject": "student-001"}).startswith("test/candidates of student-001 part-00000: 4 rows")
    assert sentence(event).startswith("test/candidates part-00000: 4 rows"), "events of older versions name none"


def test_the_reasons_of_unused_sources_are_printed_with_their_counts() -> None:
    event = {"event": "sources_read", "used": 3, "train": 1, "dev": 1, "test": 1, "rejected": 5, "rows_are": "tasks"}
    assert sentence({**event, "reasons": {"empty": 2, "too short": 3}}).endswith("5 not used (2 empty, 3 too short)")
    assert sentence(event) == "3 tasks: 1 train, 1 dev, 1 test; 5 not used"


def test_a_preview_shows_every_row_even_if_none_passes(tmp_path: Path) -> None:
    filters = [{"kind": "length", "min_output_tokens": 1000}, {"kind": "pmi"}]
    recipe = write_recipe(tmp_path, rounds=1, student=None, filters=filters)
    as_json = limbeck("preview", recipe, "-n", 2, "--json")
    found = json.loads(as_json.stdout)
    assert as_json.returncode == 1 and found["problem"].startswith("0 of 6 candidates pass the absolute bounds")
    assert found["problem"] in as_json.stderr
    assert len(found["candidates"]) == 6 and all(row["prompt"] and row["scores"] for row in found["candidates"])
    assert {row["rejected_by"] for row in found["candidates"]} == {"length"}
    shown = limbeck("preview", recipe, "-n", 2)
    assert shown.returncode == 1 and shown.stdout.count("rejected by length") == 6
    assert "0 of 6 candidates kept, by the bounds that are numbers" in shown.stdout


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "less than a minute"), (29, "less than a minute"), (59.9, "less than a minute"), (60, "about 1 minute"),
        (89, "about 1 minute"), (91, "about 2 minutes"), (60_000, "about 1,000 minutes"),
    ],
)  # fmt: skip
def test_an_estimated_duration_agrees_with_its_unit(seconds: float, words: str) -> None:
    assert minutes(seconds) == words
    facts = {"accepted": 2, "target": 4, "rate": 0.5, "candidates": 4, "tokens_per_accepted": 9.0, "seconds_left": seconds}
    assert acceptance_words(facts).endswith(f", {words} left")


def test_an_estimate_names_its_units(capsys: pytest.CaptureFixture[str]) -> None:
    target = {"rows": 400, "train_sources": 100, "acceptance": 0.1, "candidates_per_source": 40}
    cost: dict[str, Any] = {"completions": 1196, "tokens": {"complete": 9000}, "seconds": {"total": 61.0}, "target": target}
    found: dict[str, Any] = {"models": {}, "cluster": "none", "problems": [], "rejected_sources": {}, "rows_are": "draws"}
    found["documents"] = {"train": 592, "dev": 16, "test": 32, "rejected": 0}
    check.show({**found, "estimate": cost})
    printed = capsys.readouterr().out
    words = "400 rows per round, from 100 of 592 train draws, if 10% of up to 40 candidates of each are accepted"
    assert f"estimate: {words} (calibration.pass_rate)" in printed and "estimate: 1,196 completions; tokens:" in printed
    assert "estimate: about 1 minute on " in printed and "196 candidates" not in printed
