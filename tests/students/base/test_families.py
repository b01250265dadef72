import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_families import make_family
from limbeck.corpus.errors import LimbeckError
from limbeck.students.base import layers
from limbeck.students.base.families import FAMILIES, Sizes, family_problem, scaled
from limbeck.students.base.scratch import new_model
from limbeck.students.base.trimming import trim
from limbeck.students.training.sample_loss import nats_per_token

SAMPLE = [[5, 9, 20, 31, 8, 77, 12, 6, 5, 40], [40, 3, 9, 9, 50], [7, 8]]
QUICK = ("llama", "gemma2", "gpt2", "gpt_neox", "smollm3")  # plain, mixed attention, other names, no rotary embedding
EACH = [pytest.param(family, marks=[] if family in QUICK else pytest.mark.slow) for family in FAMILIES]
LABELS = sum(len(row) - 1 for row in SAMPLE)


def _reloaded(model: Any, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _same(one: Any, other: Any) -> None:
    import torch

    ids = torch.tensor(SAMPLE[:1])
    with torch.inference_mode():
        torch.testing.assert_close(one(ids).logits, other(ids).logits, rtol=0, atol=1e-5)
        cached, plain = (other.generate(ids, max_new_tokens=12, do_sample=False, use_cache=cache) for cache in (True, False))
    assert cached.tolist() == plain.tolist()


@pytest.mark.parametrize("family", EACH)
def test_every_family_can_be_measured_and_cut(tmp_path: Path, family: str) -> None:
    """Each layer's importance is that of a whole model without it, and what is saved is what was cut."""
    stack = layers.Stack(make_family(family))
    fast = layers.losses_without(stack, range(6), SAMPLE)
    for skipped, loss in enumerate(fast):
        stack.cut([layer for layer in range(6) if layer != skipped])
        assert loss == pytest.approx(nats_per_token(stack.model, SAMPLE) * LABELS, abs=1e-3)
    stack.cut([0, 3, 4])
    _same(stack.model, _reloaded(stack.model, tmp_path / "cut"))


@pytest.mark.parametrize("family", EACH)
def test_every_family_can_be_made_anew_and_trimmed(tmp_path: Path, family: str) -> None:
    import torch

    config = make_family(family).config
    sizes = Sizes(layers=3, width=48, heads=6)
    model, again = (new_model(sizes, config, seed=5) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    saved = _reloaded(model, tmp_path / "new")
    _same(model, saved)
    assert (saved.config.num_hidden_layers, saved.config.hidden_size, saved.config.num_attention_heads) == (3, 48, 6)
    kept = [token for token in range(100) if token % 3 == 0 or token in SAMPLE[0]]
    ids = torch.tensor(SAMPLE[:1])
    with torch.inference_mode():
        before = model(ids).logits[..., kept]
        trim(model, kept)
        after = model(torch.tensor([[kept.index(token) for token in SAMPLE[0]]])).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id = None, None, None
    reloaded = _reloaded(model, tmp_path / "trimmed")
    assert reloaded.config.vocab_size == len(kept)
    with torch.inference_mode():
        new = torch.tensor([[kept.index(token) for token in SAMPLE[0]]])
        torch.testing.assert_close(reloaded(new).logits, after, rtol=0, atol=1e-5)


def test_proportions_are_the_teachers() -> None:
    settings = {"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
                "num_key_value_heads": 3, "intermediate_size": 1536, "head_dim": 64}  # fmt: skip
    assert scaled(settings, Sizes(8, 288, 6)) == {
        "num_hidden_layers": 8, "hidden_size": 288, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 768,
        "head_dim": 48,
    }  # fmt: skip
    assert scaled(settings, Sizes(8, 288, 4))["num_key_value_heads"] == 4
    assert scaled(settings, Sizes(8, 288, 4, kv_heads=1, intermediate=100))["num_key_value_heads"] == 1
    with pytest.raises(LimbeckError, match=r"gpt_neox has no kv_heads of its own; remove base\.kv_heads"):
        scaled({"model_type": "gpt_neox", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}, Sizes(1, 8, 1, 1))


def test_an_unknown_family_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    assert "of the family bloom" in str(family_problem(tmp_path, "kind: layers"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert family_problem(tmp_path, "kind: layers") is None
