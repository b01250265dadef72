import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import LimbeckError
from students import loop, sft
from students.config import LoraConfig, SftConfig
from tests.tiny_students import make_dataset, make_model


def _config(**changes: Any) -> SftConfig:
    return SftConfig(**{"batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, "checkpoint_steps": 2, **changes})


def _settings(root: Path, config: SftConfig, **model: Any) -> loop.Settings:
    """A model and a dataset in `root`, made where they are not there."""
    if not (root / "model").exists():
        make_model(root / "model", **model)
        make_dataset(root / "dataset")
    files = tuple(sft.dataset_files(root / "dataset"))
    return loop.Settings(
        config, files, root / "model", root / "model", root / "round" / "student", root / "round" / "training", 3, False
    )


def _run(given: loop.Settings) -> dict[str, Any]:
    return loop.run({"settings": given})


def _trainer(given: loop.Settings) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.base)
    return loop._build(given, loop._read_rows(given.files), tokenizer)[0]


@pytest.mark.parametrize("conversational", [True, False])
def test_only_the_completion_and_its_end_token_are_learned(tmp_path: Path, conversational: bool) -> None:
    from tokenizers import Tokenizer

    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset", rows=6, conversational=conversational)
    trainer = _trainer(_settings(tmp_path, _config()))
    backend = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    end = backend.token_to_id("<|end|>")
    rows = loop._read_rows(tuple(sft.dataset_files(tmp_path / "dataset")))
    wanted = Counter(row["completion"][0]["content"] if conversational else row["completion"] for row in rows)
    learned: Counter[str] = Counter()
    for row in trainer.train_dataset:
        labels = row["labels"]
        start = next(index for index, label in enumerate(labels) if label != -100)
        prompt, completion = row["input_ids"][:start], labels[start:]
        assert completion == row["input_ids"][start:]
        assert end in completion
        assert backend.decode(prompt, skip_special_tokens=False).endswith("<|start|>assistant\n" if conversational else "")
        assert "Say " in backend.decode(prompt, skip_special_tokens=False)
        learned[backend.decode(completion[: completion.index(end)], skip_special_tokens=False)] += 1
    assert learned == wanted


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_loss_equals_the_plain_loss(tmp_path: Path, precision: str) -> None:
    import torch

    from students.trainer import completion_loss

    trainer = _trainer(_settings(tmp_path, _config(precision=precision)))
    model = trainer.model
    for inputs in trainer.get_train_dataloader():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            plain = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.float()
        wanted = inputs["labels"][:, 1:]
        plain_loss = torch.nn.functional.cross_entropy(
            plain[:, :-1].flatten(0, 1), wanted.flatten(), reduction="sum", ignore_index=-100
        )
        plain_gradients = torch.autograd.grad(plain_loss, list(model.parameters()))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss, outputs = completion_loss(model, inputs)
        assert outputs.logits.shape[1] < inputs["input_ids"].shape[1]
        tolerance = 1e-5 if precision == "float32" else 1e-2
        torch.testing.assert_close(loss, plain_loss, rtol=tolerance, atol=tolerance)
        for gradient, expected in zip(torch.autograd.grad(loss, list(model.parameters())), plain_gradients, strict=True):
            assert float((gradient - expected).norm() / expected.norm().clamp(min=1e-6)) < tolerance * 10


def test_a_batch_without_labels_has_loss_zero(tmp_path: Path) -> None:
    import torch

    from students.trainer import completion_loss

    trainer = _trainer(_settings(tmp_path, _config()))
    ids = torch.tensor([[5, 6, 7]])
    loss, _ = completion_loss(trainer.model, {"input_ids": ids, "attention_mask": ids * 0 + 1, "labels": ids * 0 - 100})
    loss.backward()
    assert loss.item() == 0.0


def test_micro_batches_do_not_change_what_is_learned(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = []
    for micro in (1, 4):
        given = _settings(tmp_path, _config(micro_batch_size=micro, precision="float32"))
        _run(given)
        weights.append(load_file(given.out / "model.safetensors"))
        given.out.rename(tmp_path / f"micro-{micro}")
    start = load_file(tmp_path / "model" / "model.safetensors")
    for name, value in weights[0].items():
        step = (value - start[name]).norm()
        assert float((value - weights[1][name]).norm()) < 0.02 * float(step), name


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    epochs=st.integers(1, 3),
    batch_size=st.sampled_from([1, 4, 8]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=60, deadline=None)
def test_each_epoch_learns_every_usable_row_once(lengths: list[int], epochs: int, batch_size: int, seed: int) -> None:
    config = SftConfig(batch_size=batch_size, micro_batch_size=1, epochs=epochs, max_sequence_tokens=30)
    order = loop.training_order(lengths, config, seed)
    usable = [row for row, length in enumerate(lengths) if length <= 30]
    assert Counter(order) == Counter(dict.fromkeys(usable, epochs))
    assert order == loop.training_order(lengths, config, seed)
    for start in range(0, len(order), batch_size):
        batch = [lengths[row] for row in order[start : start + batch_size]]
        assert batch == sorted(batch, reverse=True)
    # which rows meet in a batch has nothing to do with their lengths
    other = loop.training_order([7] * len(usable), config, seed)
    renamed = [usable.index(row) for row in order]
    for start in range(0, len(order), batch_size):
        assert sorted(renamed[start : start + batch_size]) == sorted(other[start : start + batch_size])


def test_the_rate_never_starts_at_zero() -> None:
    from students.trainer import rate_factor

    for shape in ("linear", "cosine", "constant_with_warmup"):
        factors = [rate_factor(step, 10, 3, shape) for step in range(10)]
        assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
        assert all(factor > 0 for factor in factors) and factors[3:] == sorted(factors[3:], reverse=True)
        assert rate_factor(0, 1, 0, shape) == 1.0


def test_most_weights_move_in_a_few_steps_at_a_small_rate(tmp_path: Path) -> None:
    given = _settings(tmp_path, _config(learning_rate=2e-5), dtype="bfloat16")
    metrics = _run(given)
    assert metrics["steps"] == 6
    assert metrics["weights_moved_fraction"] > 0.5


def test_the_student_is_a_whole_model_folder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    given = _settings(tmp_path, _config(epochs=4, learning_rate=1e-2), dtype="bfloat16")
    metrics = _run(given)
    base, out = given.base, given.out
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()} | {"training.json"}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((out / "config.json").read_text()) == json.loads((base / "config.json").read_text())
    student = AutoModelForCausalLM.from_pretrained(out)
    assert student.dtype == torch.bfloat16
    assert metrics["loss_last"] < metrics["loss_first"] - 1 and len(metrics["loss_curve"]) == metrics["steps"] == 24
    assert metrics["tokens"] == 4 * sum(len(row) for row in _trainer(_settings(tmp_path, _config())).train_dataset["input_ids"])
    assert metrics["train_seconds"] > 0 and metrics["load_seconds"] > 0 and metrics["save_seconds"] > 0


def test_too_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    given = _settings(tmp_path, _config(max_sequence_tokens=28))
    metrics = _run(given)
    assert 0 < metrics["rows_too_long"] < metrics["rows"] == 24
    trainer = _trainer(given)
    assert max(len(ids) for ids in trainer.train_dataset["input_ids"]) <= 28
    assert len(trainer.train_dataset) == 24 - metrics["rows_too_long"]
    with pytest.raises(LimbeckError, match=r"longer than max_sequence_tokens \(3;"):
        _trainer(_settings(tmp_path, _config(max_sequence_tokens=3)))


def test_merged_adapters_answer_as_they_did_apart(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(rank=4, alpha=8, target_modules=("q_proj", "down_proj"))
    given = _settings(tmp_path, _config(lora=lora, learning_rate=1e-2, epochs=3, precision="float32"))
    trainer = _trainer(given)
    before = loop._sample_weights(trainer.model)
    assert before and all("lora_" in name for name in before)
    trainer.train()
    ids = torch.tensor([[5, 9, 20, 31, 8, 77, 12]])
    trainer.model.eval()
    with torch.inference_mode():
        apart = trainer.model(input_ids=ids).logits.clone()
    metrics = loop._publish(trainer, given, before, {"save_seconds": 0.0})
    student = AutoModelForCausalLM.from_pretrained(given.out).eval()
    base = AutoModelForCausalLM.from_pretrained(given.base).eval()
    with torch.inference_mode():
        torch.testing.assert_close(student(ids).logits, apart, atol=1e-4, rtol=1e-4)
        assert float((base(ids).logits - apart).abs().max()) > 0.01
    assert metrics["weights_moved_fraction"] > 0.5
    assert not list(given.out.glob("adapter*"))


_KILLED = """
import os, signal, sys, pickle
sys.path.insert(0, os.getcwd())
from students import loop, trainer
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


@pytest.mark.parametrize(("when", "resumed"), [("inside a step", 4), ("inside a checkpoint", 2)])
def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path, when: str, resumed: int) -> None:
    import pickle
    from dataclasses import replace

    given = _settings(tmp_path, _config(epochs=2, lora=None), dtype="bfloat16")
    plain = replace(given, out=tmp_path / "plain" / "student", training=tmp_path / "plain" / "training")
    uninterrupted = _run(plain)
    assert uninterrupted["steps"] == 12 and uninterrupted["resumed_from_step"] == 0
    note = tmp_path / "note"
    note.write_bytes(pickle.dumps((when, given)))
    died = subprocess.run([sys.executable, "-c", _KILLED, str(note)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert not given.out.exists()
    metrics = _run(given)
    assert metrics["resumed_from_step"] == resumed
    assert metrics["loss_curve"] == uninterrupted["loss_curve"]
    assert (given.out / "model.safetensors").read_bytes() == (plain.out / "model.safetensors").read_bytes()
    checkpoints = given.training / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-10"]  # the last step has the student itself


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    from students.trainer import whole_checkpoints

    given = _settings(tmp_path, _config(epochs=2, checkpoint_steps=3, keep_checkpoints=2))
    _run(given)
    assert [path.name for path in whole_checkpoints(given.training / "checkpoints")] == ["checkpoint-6", "checkpoint-9"]


def test_a_full_disk_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from students import trainer

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "publish_checkpoint", full)
    with pytest.raises(LimbeckError, match="No space left"):
        _run(_settings(tmp_path, _config()))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train here instead of on Ray's workers."""

    def fit(work: Any, config: dict[str, Any], workers: int, placement: Any, storage: Path) -> Any:
        return work(config)

    monkeypatch.setattr(sft, "fit", fit)


def test_train_publishes_once_and_leaves_no_checkpoints(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset")
    out = tmp_path / "round" / "student"
    metrics = sft.train(_config(), tmp_path / "dataset", tmp_path / "model", out, 3)
    assert [path.name for path in out.parent.iterdir()] == ["student"]
    monkeypatch.setattr(sft, "fit", None)  # a second call trains nothing
    again = sft.train(_config(), tmp_path / "dataset", tmp_path / "model", out, 3)
    assert again == json.loads((out / "training.json").read_text()) and again["loss_curve"] == metrics["loss_curve"]


def test_checkpoints_of_another_plan_are_never_resumed(tmp_path: Path, in_process: None) -> None:
    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset")
    files = sft.dataset_files(tmp_path / "dataset")
    training = tmp_path / "round" / "training"
    sft._start_afresh_unless_same(training, _config(), files, tmp_path / "model", 3)
    (training / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    sft._start_afresh_unless_same(training, _config(), files, tmp_path / "model", 3)
    assert (training / "checkpoints" / "checkpoint-2").exists()
    sft._start_afresh_unless_same(training, _config(), files, tmp_path / "model", 4)
    assert not (training / "checkpoints").exists()


@pytest.mark.parametrize(
    ("columns", "message"), [({"prompt": [], "completion": []}, "no rows"), ({"prompt": ["a"]}, "lacks the column 'completion'")]
)
def test_a_dataset_that_cannot_be_learned_is_refused(tmp_path: Path, columns: dict[str, list[str]], message: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "dataset").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "dataset" / "train.parquet")
    with pytest.raises(LimbeckError, match=message):
        sft.train(_config(), tmp_path / "dataset", tmp_path, tmp_path / "student", 3)
    with pytest.raises(LimbeckError, match="no Parquet file"):
        sft.train(_config(), tmp_path / "nothing", tmp_path, tmp_path / "student", 3)


def test_batches_must_divide() -> None:
    with pytest.raises(ValueError, match="multiple of micro_batch_size × workers = 8"):
        SftConfig(batch_size=12, micro_batch_size=4, workers=2)


def test_configuring_a_student_imports_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "trl", "ray")
    code = f"import students.sft, students.compatibility, sys; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert answer.stdout.strip() == "[]", answer.stderr


@pytest.mark.model
def test_the_real_teacher_learns(tmp_path: Path) -> None:
    from cluster.engines.models import resolve

    teacher = resolve("embedded:smollm2-135m-instruct")
    make_dataset(tmp_path / "dataset", rows=12)
    files = tuple(sft.dataset_files(tmp_path / "dataset"))
    config = SftConfig(batch_size=4, micro_batch_size=4, learning_rate=2e-5)
    given = loop.Settings(config, files, teacher, teacher, tmp_path / "student", tmp_path / "training", 3, False)
    metrics = _run(given)
    assert metrics["steps"] == 3
    assert metrics["weights_moved_fraction"] > 0.5
    assert metrics["loss_last"] < metrics["loss_first"]
