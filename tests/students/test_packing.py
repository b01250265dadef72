"""Packed rows against the same rows one by one: loss, gradients, and whole trainings."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_training import train_config, train_here, train_settings
from limbeck.corpus.errors import LimbeckError
from limbeck.students.sft import SftConfig
from limbeck.students.training.batches import micro_batches, packed_tokens, training_order
from limbeck.students.training.rows import Row

ARCHITECTURES = ("llama", "gpt_neox", "qwen3", "gpt2")


def make(architecture: str, **settings: Any) -> Any:
    """A random model of two layers in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **settings}
    if architecture in ("llama", "qwen3"):
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
    if architecture == "gpt2":
        sizes = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes)).eval()


def some_rows(prompts: int = 4, each: int = 3) -> list[Row]:
    """Rows of several lengths, most of them with the prompt of another row."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(prompts):
        prompt = generator.integers(0, 97, 1 + 7 * number)
        for row in range(1 + (each + number) % 4):
            rows.append(Row(np.concatenate([prompt, generator.integers(0, 97, 2 + row * 3)]).astype(np.int32), len(prompt)))
    return rows


def loss_and_gradients(model: Any, batches: list[dict[str, Any]]) -> tuple[float, list[Any]]:
    import torch

    from limbeck.students.training.trainer import completion_loss

    loss = sum(completion_loss(model, batch)[0] for batch in batches)
    return float(loss), list(torch.autograd.grad(loss, [each for each in model.parameters() if each.requires_grad]))


@pytest.mark.parametrize("share_prompts", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_have_the_loss_and_gradients_of_separate_rows(architecture: str, share_prompts: bool) -> None:
    from limbeck.students.training import packing
    from limbeck.students.training.batches import padded

    model, rows = make(architecture), some_rows()
    expected, gradients = loss_and_gradients(model, [padded([row], 0) for row in rows])
    packing.use(model, 40)
    batch = packing.packed(rows, share_prompts=share_prompts)
    tokens = sum(len(row.ids) for row in rows)
    assert (batch["input_ids"].shape[1] < 0.8 * tokens) if share_prompts else batch["input_ids"].shape[1] == tokens
    loss, found = loss_and_gradients(model, [batch])
    assert loss == pytest.approx(expected, rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    assert max(float((one - other).abs().max()) for one, other in zip(found, gradients, strict=True)) < 1e-5 * scale


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_segments_are_what_transformers_makes_of_restarted_positions(implementation: str) -> None:
    """The second oracle: its own mask for packed rows, which it makes of the positions if it is given no mask."""
    import torch

    from limbeck.students.training import packing

    model, rows = make("llama"), some_rows()
    model.set_attn_implementation(implementation)
    batch = packing.packed(rows, share_prompts=False)
    given = {name: batch[name] for name in ("input_ids", "position_ids")}
    with torch.no_grad():
        theirs = model(**given, use_cache=False).logits
        masked = model(**given, attention_mask=torch.ones_like(batch["input_ids"]), use_cache=False).logits
        packing.use(model, 40)
        ours = model(**given, segments=batch["segments"], use_cache=False).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert float((masked - ours).abs().max()) > 1e-3, "a mask of ones lets rows see each other, which is why none is given"


def test_a_shared_prompt_is_what_a_mask_of_the_whole_sequence_makes_of_it() -> None:
    """The naive form: positions that restart, and a mask with a row and a column per token."""
    import torch

    from limbeck.students.training import packing

    model, rows = make("llama"), some_rows()
    batch = packing.packed(rows, share_prompts=True)
    tokens = batch["input_ids"].shape[1]
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    for one in batch["segments"]:
        mask[one.start : one.fork, one.start : one.fork] = torch.ones(one.fork - one.start, one.fork - one.start).tril().bool()
        if one.mask is not None:
            mask[one.fork : one.stop, one.start : one.stop] = one.mask
    given = {name: batch[name] for name in ("input_ids", "position_ids")}
    with torch.no_grad():
        theirs = model(**given, attention_mask=mask[None, None], use_cache=False).logits
        packing.use(model, 40)
        ours = model(**given, segments=batch["segments"], use_cache=False).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_an_empty_batch_has_no_label() -> None:
    from limbeck.students.training import packing

    batch = packing.packed([], share_prompts=True)
    assert batch["input_ids"].shape == (1, 1) and batch["labels"].tolist() == [[-100]]


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("bloom", {"n_layer": 2, "n_head": 4}, "packing cannot be used with BloomForCausalLM"),
        ("mamba", {"state_size": 4, "expand": 2}, "packing cannot be used with MambaForCausalLM"),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64}, "whose attention has softcap"),
        (
            "mistral",
            {"num_key_value_heads": 2, "intermediate_size": 64, "sliding_window": 39},
            "a window of 39 tokens, and rows have 40",
        ),
    ],
)
def test_a_model_whose_attention_cannot_do_it_is_refused(architecture: str, settings: dict[str, Any], message: str) -> None:
    from limbeck.students.training import packing

    with pytest.raises(LimbeckError, match=message):
        packing.use(make(architecture, **settings), 40)


def test_a_training_with_packed_rows_is_that_without(tmp_path: Path) -> None:
    """The same draws, so the same losses up to rounding; the student's files are those of its base."""
    curves, tokens = {}, {}
    for how in ("none", "rows"):
        found = train_settings(
            tmp_path, train_config(packing=how, precision="float32", batch_size=8, micro_batch_size=4, epochs=2)
        )
        metrics = train_here(found)
        curves[how], tokens[how] = metrics["loss_curve"], metrics["tokens"]
        assert json.loads((found.out / "config.json").read_text()) == json.loads((found.base / "config.json").read_text())
        found.out.rename(tmp_path / how)
        found.training.rename(tmp_path / f"{how}-training")
    assert tokens["none"] == tokens["rows"]
    assert curves["rows"] == pytest.approx(curves["none"], abs=1e-4)


def test_a_training_with_shared_prompts_learns_and_measures(tmp_path: Path) -> None:
    found = train_settings(tmp_path, train_config(packing="prompts", held_out=0.2, learning_rate=1e-2, epochs=3))
    metrics = train_here(found)
    assert metrics["loss_last"] < metrics["loss_first"] - 0.5
    assert metrics["held_out_loss_last"] < metrics["held_out_loss_first"]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=40),
    copies=st.integers(1, 5),
    micro=st.sampled_from([1, 2, 4]),
    workers=st.sampled_from([1, 2]),
    how=st.sampled_from(["none", "rows", "prompts"]),
)
@settings(max_examples=60, deadline=None)
def test_packing_changes_no_step_and_no_bound_of_memory(
    lengths: list[tuple[int, int]], copies: int, micro: int, workers: int, how: Any
) -> None:
    rows = [
        Row(np.array([number] * prompt + [copy] * completion, dtype=np.int32), prompt)
        for number, (prompt, completion) in enumerate(lengths)
        for copy in range(1 + (copies + number) % copies)
    ]
    config = SftConfig(batch_size=8, micro_batch_size=micro, workers=workers, packing=how, max_sequence_tokens=25)
    order = training_order(rows, config, 5)
    assert Counter(order) == Counter(row for row, one in enumerate(rows) if len(one.ids) <= 25)
    passes, per_step = micro_batches(order, rows, config), 8 // micro
    assert len(passes) % workers == 0
    for start in range(0, len(order), 8):
        step = order[start : start + 8]
        mine = passes[start // 8 * per_step :][:per_step]
        assert sorted(row for one in mine for row in one) == sorted(step)
        most = micro * max(len(rows[row].ids) for row in step)
        assert all(sum(len(rows[row].ids) for row in one) <= most for one in mine) or how == "prompts"
    plain = training_order(rows, config.model_copy(update={"packing": "none"}), 5)
    if how != "prompts":
        assert order == plain, "the same draws"


def test_the_rows_of_a_prompt_are_drawn_together() -> None:
    rows = [Row(np.array([number // 3] * 5 + [number], dtype=np.int32), 5) for number in range(24)]
    config = SftConfig(batch_size=12, micro_batch_size=6, packing="prompts")
    passes = micro_batches(training_order(rows, config, 1), rows, config)
    assert [Counter(row // 3 for row in one).most_common()[-1][1] for one in passes] == [3] * 4
    assert packed_tokens([0, 1, 2], rows) == 4 + 3 * 2
