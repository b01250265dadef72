"""What a training shows while it runs: metrics of every step, the held-out loss, trackers, progress."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_training import build_trainer, train_config, train_here, train_settings, trained_rows
from limbeck.corpus.errors import LimbeckError
from limbeck.students.sft import SftConfig
from limbeck.students.training import tracking
from limbeck.students.training.config import LoraConfig
from limbeck.students.training.held_out import HeldOutLoss, lowest, rise, split
from limbeck.students.training.progress import Progress
from limbeck.students.training.step_log import StepLog, read_step_log

SAME_AGAIN = ("step", "loss", "held_out_loss", "learning_rate", "gradient_norm", "label_tokens", "tokens")


class Killed(Exception):
    pass


def killed_in_step(monkeypatch: pytest.MonkeyPatch, step: int, given: Any) -> None:
    """Train until an optimiser step is half done."""
    from limbeck.students.training import trainer

    plain = trainer.CompletionTrainer.training_step

    def dies(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.state.global_step == step:
            raise Killed
        return plain(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.CompletionTrainer, "training_step", dies)
        train_here(given)


def reproducible(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: line[key] for key in SAME_AGAIN if key in line} for line in lines]


def test_every_step_is_logged_once_also_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"epochs": 2, "held_out": 0.2, "eval_steps": 3, "keep_best": True, "learning_rate": 3e-2}
    metrics, lines, weights = [], [], []
    for killed in (False, True):
        given = train_settings(tmp_path, train_config(**changes))
        if killed:
            killed_in_step(monkeypatch, 7, given)
            assert [line["step"] for line in read_step_log(given.training / "metrics.jsonl")] == [0, 1, 2, 3, 4, 5, 6, 7]
            with (given.training / "metrics.jsonl").open("a") as file:
                file.write('{"step": 8, "lo')  # a line that the kill cut off
        metrics.append(train_here(given))
        lines.append(read_step_log(given.out / "metrics.jsonl"))
        weights.append((given.out / "model.safetensors").read_bytes())
        given.out.rename(tmp_path / f"student-{killed}")
        given.training.rename(tmp_path / f"training-{killed}")
    assert metrics[1]["resumed_from_step"] == 6
    assert [line["step"] for line in lines[0]] == list(range(metrics[0]["steps"] + 1))
    assert reproducible(lines[0]) == reproducible(lines[1])
    assert [line["step"] for line in lines[0] if "held_out_loss" in line] == [0, 3, 6, 9, 10]
    assert [line["loss"] for line in lines[0][1:]] == metrics[0]["loss_curve"]
    assert sum(line["tokens"] for line in lines[0][1:]) == metrics[0]["tokens"]
    assert all(
        line["tokens_per_second"] > 0 and line["memory_bytes"] > 1e6 and line["gradient_norm"] > 0 for line in lines[0][1:]
    )
    assert all(metrics[0][name] == metrics[1][name] for name in metrics[0] if name.startswith("held_out"))
    assert weights[0] == weights[1]


def test_the_held_out_loss_is_that_of_rows_that_are_not_trained_on(tmp_path: Path) -> None:
    import torch

    given = train_settings(tmp_path, train_config(held_out=0.2, micro_batch_size=4))
    trainer = build_trainer(given)
    held = [row for batch in trainer.held_out for row in batch]
    trained = {row.ids.tobytes() for row in trained_rows(trainer)}
    assert len(held) == 5 and len(trained) == 19 and not trained & {row.ids.tobytes() for row in held}
    total = labels = 0.0
    for row in held:
        with torch.no_grad():
            logits = trainer.model.eval()(torch.tensor(row.ids.tolist())[None]).logits[0, :-1].log_softmax(-1)
        wanted = torch.tensor(row.labels)[1:]
        total -= float(logits[wanted != -100].gather(1, wanted[wanted != -100][:, None]).sum())
        labels += int((wanted != -100).sum())
    found = trainer.held_out_loss(lambda words: None)
    assert found.mean == pytest.approx(total / labels, rel=1e-5)
    assert sum(found.labels) == labels and len(found.labels) == 2
    assert trainer.model.training


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8, target_modules=("q_proj", "down_proj"))])
def test_the_best_weights_are_published_and_training_is_not_disturbed(tmp_path: Path, lora: LoraConfig | None) -> None:
    """At this rate the loss on other rows rises after some steps."""
    from safetensors.torch import load_file

    changes: dict[str, Any] = {"epochs": 4, "held_out": 0.2, "eval_steps": 4, "learning_rate": 5e-2, "lora": lora}
    found, weights = {}, {}
    for keep in (False, True):
        given = train_settings(tmp_path, train_config(keep_best=keep, precision="float32", **changes))
        found[keep] = train_here(given)
        weights[keep] = load_file(given.out / "model.safetensors")
        given.out.rename(tmp_path / f"student-{keep}")
        given.training.rename(tmp_path / f"training-{keep}")
    assert found[True]["loss_curve"] == found[False]["loss_curve"]
    assert found[True]["held_out_curve"] == found[False]["held_out_curve"]
    best = min(found[True]["held_out_curve"], key=lambda point: point[1])
    assert found[True]["published_step"] == best[0] and found[True]["steps"] == found[False]["published_step"]
    assert "metrics.jsonl" in {path.name for path in (tmp_path / "student-True").iterdir()}
    (tmp_path / "model").rename(tmp_path / "base")
    (tmp_path / "student-True").rename(tmp_path / "model")  # measured as a base, it has the loss of the best step
    again = build_trainer(train_settings(tmp_path, train_config(precision="float32", **changes)))
    assert again.held_out_loss(lambda words: None).mean == pytest.approx(best[1], rel=1e-4)
    changed = any(bool((weights[True][name] != weights[False][name]).any()) for name in weights[True])
    assert changed == (best[0] < found[True]["steps"])
    if lora is not None:
        return
    assert best[0] < found[True]["steps"]
    assert "which is overfitting; train fewer epochs" in found[False]["warnings"][-1]
    assert found[True]["warnings"][-1].endswith(f"the student has the weights of step {best[0]}")


def test_weights_that_a_resumed_training_may_need_are_not_deleted(tmp_path: Path) -> None:
    from limbeck.students.training.steps import outdated

    for step in (0, 20, 40, 60, 100):
        (tmp_path / f"step-{step}").mkdir()
    assert [path.name for path in outdated(tmp_path, 50)] == ["step-0", "step-20", "step-60"]
    assert [path.name for path in outdated(tmp_path, 100)] == ["step-0", "step-20", "step-40", "step-60"]


@given(
    sources=st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(lambda found: len(set(found)) > 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_all_rows_of_a_source_are_held_out_together(sources: list[int], seed: int) -> None:
    table = pa.table({"source_id": [f"s{source}" for source in sources], "prompt": ["p"] * len(sources)})
    train, held = split(table, 0.3, seed)
    assert sorted(train + held) == list(range(len(sources))) and train and held
    inside, outside = {sources[row] for row in train}, {sources[row] for row in held}
    assert not inside & outside and len(outside) == max(1, round(0.3 * len(set(sources))))
    assert split(table, 0.3, seed) == (train, held)


def test_without_sources_the_same_prompt_is_one_source() -> None:
    prompts = [[{"role": "user", "content": text}] for text in "aabbcc"]
    train, held = split(pa.table({"prompt": prompts}), 0.3, 1)
    assert len(train) == 4 and len(held) == 2 and held[0] + 1 == held[1]
    mixed = pa.table({"prompt": prompts, "source_id": pa.array([None] * 6, pa.string())})
    assert split(mixed, 0.3, 1) == (train, held), "rows from elsewhere have no source"
    with pytest.raises(LimbeckError, match="at least 2 sources, but the dataset has 1"):
        split(pa.table({"prompt": ["a", "a"]}), 0.3, 1)


def test_only_a_rise_beyond_its_noise_is_reported() -> None:
    labels = (10, 10, 10, 10)
    low = HeldOutLoss(4, (10.0, 11.0, 9.0, 10.0), labels)
    noisy = HeldOutLoss(8, (14.0, 8.0, 12.0, 7.0), labels)
    high = HeldOutLoss(8, (12.0, 14.0, 11.0, 11.0), labels)
    assert rise([low, noisy], best_is_kept=False) is None
    assert rise([low, high, low], best_is_kept=False) is None, "the last is the lowest"
    assert rise([high, low], best_is_kept=False) is None
    words = rise([low, high], best_is_kept=False)
    assert words is not None and words.startswith("the held-out loss rose from 1.000 after step 4 to 1.200 after step 8")
    assert rise([HeldOutLoss(0, (1.0,), (1,)), HeldOutLoss(1, (9.0,), (1,))], best_is_kept=False) is None, "no error is known"
    assert lowest([HeldOutLoss(0, (float("nan"),), (1,)), low, high]) is low


def test_a_log_without_its_end_is_read_up_to_it(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "metrics.jsonl")
    log.begin(None)
    for step in range(4):
        log.add({"step": step, "loss": 1.0})
    log.begin(2)
    assert [line["step"] for line in log.lines()] == [0, 1, 2]
    log.begin(None)
    assert log.lines() == [] == read_step_log(tmp_path / "none")
    for damaged in ("{", "[1]", '{"step": "3"}', "[" * 9999):
        (tmp_path / "damaged").write_text('{"step": 1}\n' + damaged)
        assert read_step_log(tmp_path / "damaged") == [{"step": 1}]


def test_the_best_weights_need_held_out_rows() -> None:
    with pytest.raises(ValueError, match=r"keep_best needs rows to measure the loss on; set held_out"):
        SftConfig(keep_best=True)


def test_a_missing_tracker_is_one_sentence_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking._PACKAGES, "mlflow", ("no_such_package",))
    words = "report_to names mlflow, but the package no_such_package is not installed; run: pip install mlflow"
    assert tracking.missing(("mlflow",)) == words
    given = train_settings(tmp_path, train_config(report_to=("mlflow",)))
    assert given.config.problems("student", given.teacher, True) == [f"student: {words}"]
    with pytest.raises(LimbeckError, match="report_to names mlflow"):
        train_here(given)
    with pytest.raises(ValueError, match="report_to"):
        SftConfig.model_validate({"report_to": ["comet"]})


def test_tensorboard_gets_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setattr("os.environ", dict(__import__("os").environ))
    given = train_settings(tmp_path, train_config(report_to=("tensorboard",)))
    train_here(given)
    events = [path for path in (given.out.parent / "tracking" / "tensorboard").iterdir() if "tfevents" in path.name]
    assert events and b"train/loss" in events[0].read_bytes()


def test_trackers_use_no_network_unless_the_environment_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "environ", {"WANDB_DISABLED": "true", "MLFLOW_TRACKING_URI": "http://ours"})
    tracking.prepare(("wandb", "mlflow"), tmp_path / "tracking")
    assert os.environ["WANDB_MODE"] == "offline" and "WANDB_DISABLED" not in os.environ
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://ours"
    tracking.prepare((), tmp_path / "other")
    assert os.environ["WANDB_DISABLED"] == "true" and not (tmp_path / "other").exists()


def test_each_phase_of_a_training_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(Progress, "words", lambda self, words, often=False: reported.append(words))
    given = train_settings(tmp_path, train_config(held_out=0.2, keep_best=True, eval_steps=100))
    train_here(given)
    beginnings = ["importing", "tokenising 24 rows", "loading the model", "starting", "measuring the held-out loss, batch 1 of 3"]
    assert [words[: len(start)] for words, start in zip(reported, beginnings, strict=False)] == beginnings
    assert "step 2 of 5: saving a checkpoint" in reported and reported[-1] == "saving the student"
    last = json.loads(given.progress_file.read_text())
    assert last["step"] == last["steps"] == 5 and last["seconds_left"] == 0 and last["tokens_per_second"] > 0


def test_a_dataset_is_split_by_its_sources(tmp_path: Path) -> None:
    given = train_settings(tmp_path, train_config(held_out=0.3))
    table = pq.read_table(given.files[0])
    pq.write_table(table.append_column("source_id", pa.array([f"s{row // 6}" for row in range(24)])), given.files[0])
    trainer = build_trainer(given)
    assert sum(map(len, trainer.held_out)) == 6 and len(trained_rows(trainer)) == 18
