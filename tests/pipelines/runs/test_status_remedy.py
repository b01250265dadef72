"""What `limbeck status` tells the user to do after a failure."""

from pathlib import Path

import pytest

from limbeck.corpus.parts import write_json
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.status import show, status

KEPT_NOTHING = "round 0 kept 0 of 8 candidates; see `limbeck inspect`, then relax that filter or improve the prompt, in a new run"
EXHAUSTED = (
    "the sources are exhausted: 3 of 9 rows accepted; add documents, raise generator.samples or relax a bound, in a new run"
)


@pytest.mark.parametrize(
    ("words", "resumes"),
    [
        (KEPT_NOTHING, False),
        (EXHAUSTED, False),
        ("calibration.json has no minimum for pmi.faithfulness: start a new run for this recipe", False),
        ("sources have lost parts: restore them, or start again with another --out", False),
        ("budget.tokens is spent; raise it and rerun the same command to resume", False),  # it says so itself
        ("interrupted", True),
        ("the engine stopped", True),
    ],
)
def test_resuming_is_offered_where_it_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, resumes: bool
) -> None:
    write_json(tmp_path / "lock.json", {"stages": {}})
    (tmp_path / "rounds").mkdir()
    events = Events(tmp_path / "events.jsonl")
    events.emit("run_started")
    events.emit("run_failed", words=words)
    show(status(tmp_path))
    printed = capsys.readouterr().out
    assert f"stopped before its first stage: {words}" in printed
    assert printed.rstrip().endswith("; rerun the same command to resume") == resumes
