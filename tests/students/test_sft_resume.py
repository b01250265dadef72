"""Checkpoints, publishing and what is left after a kill."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_students import make_dataset, make_model
from helpers.tiny_training import train_config, train_here, train_settings
from limbeck.corpus.errors import LimbeckError
from limbeck.students.training import driver
from limbeck.students.training.config import LoraConfig

_KILLED = """
import os, signal, sys, pickle
from limbeck.students.training import loop, trainer
when, given = pickle.load(open(sys.argv[1], "rb"))
if when == "inside a step":
    plain = trainer.CompletionTrainer.training_step
    def step(self, *a, **k):
        if self.state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *a, **k)
    trainer.CompletionTrainer.training_step = step
else:
    plain = trainer.publish_checkpoint
    def publish(written, *rest):
        if written.name == "checkpoint-4":
            os.remove(written / "optimizer.pt")
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(written, *rest)
    trainer.publish_checkpoint = publish
loop.run({"settings": given})
"""


ADAPTERS = LoraConfig(rank=4, alpha=8, dropout=0.1, target_modules=("q_proj", "down_proj"))


@pytest.mark.parametrize(
    ("when", "resumed", "lora"),
    [
        ("inside a step", 4, None),
        pytest.param("inside a checkpoint", 2, None, marks=pytest.mark.slow),
        pytest.param("inside a step", 4, ADAPTERS, marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path, when: str, resumed: int, lora: LoraConfig | None) -> None:
    import pickle
    from dataclasses import replace

    given = train_settings(tmp_path, train_config(epochs=2, lora=lora), dtype="bfloat16")
    plain = replace(given, out=tmp_path / "plain" / "student", training=tmp_path / "plain" / "training")
    uninterrupted = train_here(plain)
    assert uninterrupted["steps"] == 12 and uninterrupted["resumed_from_step"] == 0
    note = tmp_path / "note"
    note.write_bytes(pickle.dumps((when, given)))
    died = subprocess.run([sys.executable, "-c", _KILLED, str(note)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert not given.out.exists()
    metrics = train_here(given)
    assert metrics["resumed_from_step"] == resumed
    assert metrics["loss_curve"] == uninterrupted["loss_curve"]
    assert (given.out / "model.safetensors").read_bytes() == (plain.out / "model.safetensors").read_bytes()
    checkpoints = given.training / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-10"]  # the last step has the student itself


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    from limbeck.students.training.trainer import whole_checkpoints

    given = train_settings(tmp_path, train_config(epochs=2, checkpoint_steps=3, keep_checkpoints=2))
    train_here(given)
    assert [path.name for path in whole_checkpoints(given.training / "checkpoints")] == ["checkpoint-6", "checkpoint-9"]


def test_a_full_disk_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.students.training import trainer

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "publish_checkpoint", full)
    with pytest.raises(LimbeckError, match="No space left"):
        train_here(train_settings(tmp_path, train_config()))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train here instead of on Ray's workers."""

    def fit(work: Any, config: dict[str, Any], workers: int, placement: Any, storage: Path) -> Any:
        return work(config)

    monkeypatch.setattr(driver, "fit", fit)


def test_train_publishes_once_and_leaves_no_checkpoints(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset")
    out = tmp_path / "round" / "student"
    metrics = driver.train(train_config(), tmp_path / "dataset", tmp_path / "model", out, 3)
    assert [path.name for path in out.parent.iterdir()] == ["student"]
    monkeypatch.setattr(driver, "fit", None)  # a second call trains nothing
    again = driver.train(train_config(), tmp_path / "dataset", tmp_path / "model", out, 3)
    assert again == json.loads((out / "training.json").read_text()) and again["loss_curve"] == metrics["loss_curve"]


def test_checkpoints_of_another_plan_are_never_resumed(tmp_path: Path, in_process: None) -> None:
    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset")
    files = driver.dataset_files(tmp_path / "dataset")
    training = tmp_path / "round" / "training"
    driver._start_afresh_unless_same(training, train_config(), files, tmp_path / "model", 3)
    (training / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    driver._start_afresh_unless_same(training, train_config(), files, tmp_path / "model", 3)
    assert (training / "checkpoints" / "checkpoint-2").exists()
    driver._start_afresh_unless_same(training, train_config(), files, tmp_path / "model", 4)
    assert not (training / "checkpoints").exists()


def test_an_interrupted_training_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    """It recorded operational keys, and none of those that were added since."""
    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset")
    files, training = driver.dataset_files(tmp_path / "dataset"), tmp_path / "training"
    driver._start_afresh_unless_same(training, train_config(), files, tmp_path / "model", 3)
    (training / "checkpoints").mkdir()
    plan = json.loads((training / "plan.json").read_text())
    plan["config"] = {"checkpoint_steps": 2, **plan["config"]}
    del plan["config"]["scheduler"]  # as if it were new
    (training / "plan.json").write_text(json.dumps(plan))
    driver._start_afresh_unless_same(training, train_config(), files, tmp_path / "model", 3)
    assert (training / "checkpoints").exists()
    (training / "plan.json").write_text(json.dumps(plan))
    driver._start_afresh_unless_same(training, train_config(scheduler="linear"), files, tmp_path / "model", 3)
    assert not (training / "checkpoints").exists()
