"""Load a model folder into memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from limbeck.cluster.engines.chat import end_tokens, load_tokenizer
from limbeck.cluster.engines.devices import device_of, loaded_as
from limbeck.cluster.engines.local import attention
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.local.packing import Pack
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, describe, resolve
from limbeck.cluster.engines.precision import dtype_on

_PROBE_TOKENS = 12
_PROBE_TOLERANCE = 0.05  # of the logits' spread; bfloat16 rounds to 0.004 of a value, a missing bias or sink deviates far more


@dataclass
class Loaded:
    """A model with its tokenizer and settings; `packed`: it supports our attention (see `takes_packing`)."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    context_tokens: int
    end_tokens: frozenset[int]
    packed: bool

    @property
    def place_bytes(self) -> int:
        """Bytes of the keys and values of one token, over all layers."""
        text = self.model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return int(2 * text.num_hidden_layers * heads * size * self.model.dtype.itemsize)


def load(config: TransformersConfig) -> Loaded:
    """Load a model for inference; raises LimbeckError if it is missing, truncated or not a causal language model."""
    folder = resolve(config.model)
    device = device_of(config.device)
    with loaded_as(folder, "a causal language model"):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_dtype(config),
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
        )
        model = model.to(device).eval()
    return _finish(config, folder, model)


def _dtype(config: TransformersConfig) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype_on(config.dtype, device_of(config.device).type))
    return found


def reload(loaded: Loaded, config: TransformersConfig) -> Loaded | None:
    """Put the weights of another folder into a loaded model, or return None if the architectures differ."""
    folder = resolve(config.model)
    model = loaded.model
    same_place = model.dtype == _dtype(config) and model.device.type == device_of(config.device).type
    if not same_place or config.trust_remote_code:
        return None
    if _architecture(AutoConfig.from_pretrained(folder, local_files_only=True)) != _architecture(model.config):
        return None
    wanted = model.state_dict()
    files = sorted(folder.glob("*.safetensors"))
    held: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as handle:
            held.update(handle.keys())
    tied = set(model.all_tied_weights_keys)
    if not held <= set(wanted) or set(wanted) - held - tied:
        return None
    with torch.inference_mode(False), torch.no_grad():
        for file in files:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118  (the handle is not a mapping)
                    wanted[name].copy_(handle.get_tensor(name))
    return _finish(config, folder, model)


def takes_packing(model: PreTrainedModel) -> bool:
    """Whether full causal attention is the only interaction between a model's tokens, so that rows may be packed.

    Sliding windows, positions that depend on the length, and models without the attention interface are excluded by their config;
    the rest (linear attention, biases, sinks) by a probe: a short row must give the logits of the unmodified model.
    """
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    rope = getattr(config, "rope_parameters", None) or {}
    if not getattr(model, "_supports_attention_backend", False) or set(layers) != {"full_attention"}:
        return False
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return False
    if getattr(config, "attn_logit_softcapping", None) or rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return False
    return _probe(model)


def _probe(model: PreTrainedModel) -> bool:
    tokens = tuple((7 * i + 3) % model.config.get_text_config().vocab_size for i in range(_PROBE_TOKENS))
    ids = torch.tensor(tokens, device=model.device)
    plain_name = model.config._attn_implementation
    pack = Pack()
    pack.add(0, tokens[:-2], 0)
    pack.add(1, tokens, _PROBE_TOKENS - 4)  # a branch: four tokens again, and two more
    last = torch.tensor([len(pack.tokens) - 1], device=model.device)
    with torch.inference_mode():
        expected = model(ids[None], use_cache=False).logits[0, -1].float()
        try:
            model.set_attn_implementation(attention.NAME)
            plan = attention.PackedPlan(attention.blocks(pack, model.dtype, model.device))
            row, positions = (torch.tensor(x, device=model.device) for x in (pack.tokens, pack.positions))
            found = attention.forward(model, row, positions, plan, last)[0].float()
        except (TypeError, ValueError, AttributeError, KeyError, RuntimeError):  # the model does not support the interface
            found = torch.full_like(expected, torch.inf)
    spread = float(torch.nan_to_num(expected, 0.0, 0.0, 0.0).std())
    agree = bool(torch.allclose(found, expected, rtol=0, atol=_PROBE_TOLERANCE * spread, equal_nan=True))
    if not agree:
        model.set_attn_implementation(plain_name)
    return agree


def _finish(config: TransformersConfig, folder: Path, model: PreTrainedModel) -> Loaded:
    tokenizer = load_tokenizer(folder, config.trust_remote_code)
    packed = model.config._attn_implementation == attention.NAME or takes_packing(model)
    limit = min(describe(folder).context_tokens, config.context_tokens or NO_LIMIT_TOKENS)
    return Loaded(folder, model, tokenizer, limit, end_tokens(tokenizer, model.config, model.generation_config), packed)


def _architecture(config: Any) -> dict[str, Any]:
    ignored = {"_name_or_path", "_model_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "is_local"}
    return {key: value for key, value in config.to_dict().items() if key not in ignored and not key.endswith("_token_id")}
