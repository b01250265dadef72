"""The sizes that determine a model's memory, read from its folder without loading it."""

import json
from dataclasses import dataclass
from functools import lru_cache

from limbeck.cluster.engines.models import describe, resolve

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "auto": 4}  # not yet decided: the larger


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; `bytes` is its weights' size on disk, `cached` the values in its key-value cache per token."""

    parameters: int
    bytes: int
    context: int
    vocabulary: int
    heads: int
    layers: int
    hidden: int
    cached: int


def beyond_vocabulary(model: str, k: int) -> str | None:
    """That a model has fewer than `k` tokens, as a sentence, or None."""
    most = shape_of(model).vocabulary
    return f"top_k is {k}, but the vocabulary of {model} has {most} tokens; lower it" if k > most else None


@lru_cache(maxsize=256)
def shape_of(model: str) -> Shape:
    """The shape of a model that a recipe names, looked up once; raises LimbeckError if it cannot be resolved."""
    folder = resolve(model)
    info = describe(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config

    def first(*names: str) -> int:
        return next((int(text[name]) for name in names if text.get(name)), 0)

    heads, hidden = first("num_attention_heads", "n_head", "num_heads"), first("hidden_size", "d_model", "n_embd")
    layers = first("num_hidden_layers", "n_layer", "num_layers")
    head = first("head_dim") or (hidden // heads if heads else 0)
    cached = 2 * layers * (first("num_key_value_heads") or heads) * head
    return Shape(
        parameters=info.parameters,
        bytes=info.bytes,
        context=info.context_tokens,
        vocabulary=info.vocab_size,
        heads=heads,
        layers=layers,
        hidden=hidden,
        cached=cached,
    )
