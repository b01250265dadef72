"""The output layer as data gives the model's own logits, for every way in which families compute them."""

from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from limbeck.corpus.errors import LimbeckError
from limbeck.students.training.heads import Asked, head_of, hidden_states, learn_through, logits, student_of

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WIDE = {**SIZES, "initializer_range": 0.5}  # so that a soft cap and a scale matter


def made(name: str) -> Any:
    torch.manual_seed(1)
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**WIDE))
    if name == "granite":
        return GraniteForCausalLM(GraniteConfig(**WIDE, logits_scaling=7.0))
    if name == "cohere":
        return CohereForCausalLM(CohereConfig(**WIDE, logit_scale=0.25))
    if name == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**WIDE, head_dim=8, final_logit_softcapping=5.0))
    if name == "phi":
        model = PhiForCausalLM(PhiConfig(**WIDE))
        torch.nn.init.normal_(model.lm_head.bias)
        return model
    assert name == "gpt2"
    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.5))


FAMILIES = ("llama", "granite", "cohere", "gemma2", "phi", "gpt2")
IDS = torch.tensor([[3, 9, 27, 81, 5, 15], [4, 16, 64, 70, 2, 8]])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_gives_the_models_own_logits(name: str) -> None:
    model = made(name).eval()
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        found = logits(hidden_states(model, input_ids=IDS), head_of(model))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert float(expected.std()) > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loss_through_the_head_has_the_gradients_of_one_on_logits(name: str) -> None:
    wanted = torch.tensor([[False, True, True, False, True, False], [False, False, True, True, False, False]])
    plain, through = made(name).eval(), made(name).eval()
    plain(input_ids=IDS).logits[wanted].square().sum().backward()
    learn_through(through)
    asked = Asked(wanted, lambda hidden, head: logits(hidden, head).square().sum())
    through(input_ids=IDS, use_cache=False, asked=asked).backward()
    for (key, one), other in zip(plain.named_parameters(), through.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None, key
        torch.testing.assert_close(other.grad, one.grad, atol=1e-3, rtol=1e-3, msg=key)
    torch.testing.assert_close(through(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_logits_of_another_kind_are_refused() -> None:
    model = made("granite")
    forward = model.forward
    model.forward = lambda **named: _twice(forward(**named))  # as of a family whose config has another name for it
    with pytest.raises(LimbeckError, match="computes its logits in a way that distillation does not know"):
        head_of(model)


def _twice(output: Any) -> Any:
    output.logits = output.logits * 2
    return output


def test_an_adapted_output_layer_is_refused() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(made("llama"), LoraConfig(target_modules=["q_proj", "lm_head"]))
    with pytest.raises(LimbeckError, match="needs a linear layer"):
        learn_through(student_of(model))
