"""The output layer of a causal language model as data, and a forward pass that ends in a loss instead of logits."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.corpus.errors import LimbeckError
from limbeck.students.losses.chunked import Head

_PROBE_TOKENS = 6
_PROBE_TOLERANCE = 0.05  # of the logits' spread: bfloat16 rounds to 0.004 of a value, a missing scale deviates far more


@dataclass(frozen=True)
class Asked:
    """What a forward pass computes in place of logits: `loss(hidden, head)` at the `wanted` positions.

    `wanted` is [batch, tokens], `hidden` [wanted positions, width], row by row.
    """

    wanted: Tensor
    loss: Callable[[Tensor, Head], Tensor]


def head_of(model: Any) -> Head:
    """The output layer of a model, with the logit scale and soft cap that its config names.

    Known are `logits_scaling` (Granite), `logit_scale` (Cohere), `lm_head_multiplier` (Falcon H1) and `final_logit_softcapping`
    (Gemma). Raises LimbeckError if the output layer is not linear, or if the model computes its logits in yet another way: a few
    logits are compared.
    """
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    if type(layer) is not torch.nn.Linear:
        raise LimbeckError(
            f"the output layer of {model.config.name_or_path} is {type(layer).__name__}, but distillation needs a linear layer "
            "with all of its weights; do not adapt or quantise it, or use kind: sft"
        )
    scale = float(getattr(config, "logit_scale", None) or 1.0) * float(getattr(config, "lm_head_multiplier", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    head = Head(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None))
    if not _agrees(model, head):
        raise LimbeckError(
            f"{model.config.name_or_path} computes its logits in a way that distillation does not know ({type(model).__name__}); "
            "use kind: sft"
        )
    return head


def logits(hidden: Tensor, head: Head) -> Tensor:
    """The logits of some hidden states, all at once.  # [positions, width] -> [positions, vocabulary]"""
    found = torch.nn.functional.linear(hidden, head.weight, head.bias) * head.scale
    return found if head.soft_cap is None else head.soft_cap * torch.tanh(found / head.soft_cap)


def hidden_states(model: Any, **inputs: Any) -> Tensor:
    """What the output layer of a model is applied to.  # [batch, tokens, width]"""
    found: Tensor = model.base_model(use_cache=False, **inputs).last_hidden_state
    return found


def student_of(model: Any) -> Any:
    """The model inside an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def learn_through(inner: Any) -> None:
    """Make a student's forward pass take `asked` and return its loss; without `asked` it is as before.

    The loss is computed inside the output layer's forward pass: so wrappers that gather a divided weight when its layer runs
    (ZeRO 3), or that wait for a gradient of every weight (distributed data parallel), see an ordinary layer.
    """
    layer, head = inner.get_output_embeddings(), head_of(inner)
    plain, of_layer = inner.forward, layer.forward

    @functools.wraps(plain)
    def forward(*arguments: Any, asked: Asked | None = None, **named: Any) -> Any:
        if asked is None:
            return plain(*arguments, **named)
        assert not arguments, "a student is called with keywords"
        inputs = {name: named[name] for name in ("input_ids", "position_ids", "segments") if named.get(name) is not None}
        return layer(hidden_states(inner, **inputs)[asked.wanted], asked=asked)

    @functools.wraps(of_layer)
    def layer_forward(hidden: Tensor, asked: Asked | None = None) -> Tensor:
        if asked is None:
            return of_layer(hidden)  # type: ignore[no-any-return]
        return asked.loss(_autocast(hidden), Head(layer.weight, layer.bias, head.scale, head.soft_cap))

    inner.forward, layer.forward = forward, layer_forward


def _autocast(hidden: Tensor) -> Tensor:
    """Hidden states in the dtype in which a linear layer would compute here."""
    kind = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else hidden


def _agrees(model: Any, head: Head) -> bool:
    """Whether the head gives the model's own logits for a short row."""
    vocabulary, device = len(head.weight), head.weight.device
    ids = torch.tensor([[(7 * place + 3) % vocabulary for place in range(_PROBE_TOKENS)]], device=device)
    training = model.training
    model.eval()
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits[0].float()
        found = logits(hidden_states(model, input_ids=ids)[0], head).float()
    model.train(training)
    return bool(torch.allclose(found, expected, rtol=0, atol=_PROBE_TOLERANCE * float(expected.std())))
