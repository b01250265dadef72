import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.paths import child_environment
from helpers.tiny_students import make_dataset, make_model
from helpers.tiny_training import build_trainer, train_config, train_here, train_settings, trained_rows
from limbeck.corpus.errors import LimbeckError
from limbeck.students.sft import SftConfig
from limbeck.students.training import driver, loop
from limbeck.students.training.batches import training_order
from limbeck.students.training.config import LoraConfig
from limbeck.students.training.rows import Row, read_rows
from limbeck.students.training.settings import Settings


@pytest.mark.parametrize("conversational", [True, False])
def test_only_the_completion_and_its_end_token_are_learned(tmp_path: Path, conversational: bool) -> None:
    from tokenizers import Tokenizer

    make_model(tmp_path / "model")
    make_dataset(tmp_path / "dataset", rows=6, conversational=conversational)
    trainer = build_trainer(train_settings(tmp_path, train_config()))
    backend = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    end = backend.token_to_id("<|end|>")
    rows = read_rows(driver.dataset_files(tmp_path / "dataset")).to_pylist()
    wanted = Counter(row["completion"][0]["content"] if conversational else row["completion"] for row in rows)
    learned: Counter[str] = Counter()
    for row in trained_rows(trainer):
        ids, labels = row.ids.tolist(), row.labels
        start = next(index for index, label in enumerate(labels) if label != -100)
        prompt, completion = ids[:start], labels[start:]
        assert completion == ids[start:]
        assert completion[-1] == end and completion.count(end) == 1, "what a model generates last is learned last"
        assert backend.decode(prompt, skip_special_tokens=False).endswith("<|start|>assistant\n" if conversational else "")
        assert "Say " in backend.decode(prompt, skip_special_tokens=False)
        learned[backend.decode(completion[: completion.index(end)], skip_special_tokens=False)] += 1
    assert learned == wanted


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_loss_equals_the_plain_loss(tmp_path: Path, precision: str) -> None:
    import torch

    from limbeck.students.training.trainer import completion_loss

    trainer = build_trainer(train_settings(tmp_path, train_config(precision=precision)))
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


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_virtual_tokens_are_refused(tmp_path: Path, method: str) -> None:
    """They shift the positions: the loss would be that of other tokens."""
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    from limbeck.students.training.trainer import completion_loss

    trainer = build_trainer(train_settings(tmp_path, train_config()))
    inputs = next(iter(trainer.get_train_dataloader()))
    config = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}[method]
    model = get_peft_model(trainer.model, config(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(LimbeckError, match=rf"{method.upper()}_TUNING\) puts 4 virtual tokens .*; use LoRA"):
        completion_loss(model, inputs)


def test_a_batch_without_labels_has_loss_zero(tmp_path: Path) -> None:
    import torch

    from limbeck.students.training.trainer import completion_loss

    trainer = build_trainer(train_settings(tmp_path, train_config()))
    ids = torch.tensor([[5, 6, 7]])
    loss, _ = completion_loss(trainer.model, {"input_ids": ids, "attention_mask": ids * 0 + 1, "labels": ids * 0 - 100})
    loss.backward()
    assert loss.item() == 0.0


def test_micro_batches_do_not_change_what_is_learned(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = []
    for micro in (1, 4):
        given = train_settings(tmp_path, train_config(micro_batch_size=micro, precision="float32"))
        train_here(given)
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
    rows = [Row(np.zeros(length, dtype=np.int32), 1) for length in lengths]
    order = training_order(rows, config, seed)
    usable = [row for row, length in enumerate(lengths) if length <= 30]
    assert Counter(order) == Counter(dict.fromkeys(usable, epochs))
    assert order == training_order(rows, config, seed)
    for start in range(0, len(order), batch_size):
        batch = [lengths[row] for row in order[start : start + batch_size]]
        assert batch == sorted(batch, reverse=True)
    # which rows meet in a batch has nothing to do with their lengths
    other = training_order([Row(np.zeros(7, dtype=np.int32), 1) for _ in usable], config, seed)
    renamed = [usable.index(row) for row in order]
    for start in range(0, len(order), batch_size):
        assert sorted(renamed[start : start + batch_size]) == sorted(other[start : start + batch_size])


def test_the_rate_never_starts_at_zero() -> None:
    from limbeck.students.training.trainer import rate_factor

    for shape in ("linear", "cosine", "constant_with_warmup"):
        factors = [rate_factor(step, 10, 3, shape) for step in range(10)]
        assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
        assert all(factor > 0 for factor in factors) and factors[3:] == sorted(factors[3:], reverse=True)
        assert rate_factor(0, 1, 0, shape) == 1.0


def test_most_weights_move_in_a_few_steps_at_a_small_rate(tmp_path: Path) -> None:
    given = train_settings(tmp_path, train_config(learning_rate=2e-5), dtype="bfloat16")
    metrics = train_here(given)
    assert metrics["steps"] == 6
    assert metrics["weights_moved_fraction"] > 0.5


def test_the_student_is_a_whole_model_folder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    given = train_settings(tmp_path, train_config(epochs=4, learning_rate=1e-2), dtype="bfloat16")
    metrics = train_here(given)
    base, out = given.base, given.out
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()} | {"training.json", "metrics.jsonl"}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((out / "config.json").read_text()) == json.loads((base / "config.json").read_text())
    student = AutoModelForCausalLM.from_pretrained(out)
    assert student.dtype == torch.bfloat16
    assert metrics["loss_last"] < metrics["loss_first"] - 1 and len(metrics["loss_curve"]) == metrics["steps"] == 24
    assert metrics["tokens"] == 4 * sum(
        len(row.ids) for row in trained_rows(build_trainer(train_settings(tmp_path, train_config())))
    )
    assert metrics["train_seconds"] > 0 and metrics["load_seconds"] > 0 and metrics["save_seconds"] > 0


def test_too_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    given = train_settings(tmp_path, train_config(max_sequence_tokens=28))
    metrics = train_here(given)
    assert 0 < metrics["rows_too_long"] < metrics["rows"] == 24
    trainer = build_trainer(given)
    assert max(len(row.ids) for row in trained_rows(trainer)) <= 28
    assert len(trained_rows(trainer)) == 24 - metrics["rows_too_long"]
    with pytest.raises(LimbeckError, match=r"longer than max_sequence_tokens \(3;"):
        build_trainer(train_settings(tmp_path, train_config(max_sequence_tokens=3)))


def test_merged_adapters_answer_as_they_did_apart(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(rank=4, alpha=8, target_modules=("q_proj", "down_proj"))
    given = train_settings(tmp_path, train_config(lora=lora, learning_rate=1e-2, epochs=3, precision="float32"))
    trainer = build_trainer(given)
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


@pytest.mark.parametrize(
    ("columns", "message"), [({"prompt": [], "completion": []}, "no rows"), ({"prompt": ["a"]}, "lacks the column 'completion'")]
)
def test_a_dataset_that_cannot_be_learned_is_refused(tmp_path: Path, columns: dict[str, list[str]], message: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "dataset").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "dataset" / "train.parquet")
    with pytest.raises(LimbeckError, match=message):
        driver.train(train_config(), tmp_path / "dataset", tmp_path, tmp_path / "student", 3)
    with pytest.raises(LimbeckError, match="no Parquet file"):
        driver.train(train_config(), tmp_path / "nothing", tmp_path, tmp_path / "student", 3)


def test_batches_must_divide() -> None:
    with pytest.raises(ValueError, match="multiple of micro_batch_size × workers = 8"):
        SftConfig(batch_size=12, micro_batch_size=4, workers=2)


def test_configuring_a_student_imports_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "trl", "ray")
    code = f"import limbeck.students.training.driver, sys; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert answer.stdout.strip() == "[]", answer.stderr


@pytest.mark.model
def test_the_real_teacher_learns(tmp_path: Path) -> None:
    from limbeck.cluster.engines.models import resolve

    teacher = resolve("embedded:smollm2-135m-instruct")
    make_dataset(tmp_path / "dataset", rows=12)
    files = tuple(driver.dataset_files(tmp_path / "dataset"))
    config = SftConfig(batch_size=4, micro_batch_size=4, learning_rate=2e-5, epochs=2)
    given = Settings(config, files, teacher, teacher, tmp_path / "student", tmp_path / "training", 3, False)
    metrics = train_here(given)
    assert metrics["steps"] == 6
    assert metrics["weights_moved_fraction"] > 0.5
    assert sum(metrics["loss_curve"][3:]) < sum(metrics["loss_curve"][:3])  # the same rows in each epoch
