"""The decoder families whose models can be cut or built anew, and what their configs call the sizes. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_object

FAMILIES = (
    *("arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_neox"),
    *(
        "granite",
        "helium",
        "hunyuan_v1_dense",
        "llama",
        "ministral",
        "mistral",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "persimmon",
    ),
    *("phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2"),
)
"""The `model_type` of every family that the tests cut, save, load and build anew."""

_KEYS = {
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "intermediate": ("intermediate_size", "n_inner"),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a decoder; None: in the teacher's proportion."""

    layers: int
    width: int
    heads: int
    kv_heads: int | None = None
    intermediate: int | None = None


def family_problem(folder: Path, what: str) -> str | None:
    """Why the model of a folder cannot be used for `what`, as a clause; None if it can."""
    family = read_object(folder / "config.json", "choose another model, or restore its folder").get("model_type", "unknown")
    if family in FAMILIES:
        return None
    return f"{what} knows the families {', '.join(FAMILIES)}, but {folder} is of the family {family}"


def scaled(settings: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The keys of a teacher's config with which a model of these sizes differs; raises LimbeckError if it has no such size.

    `settings` is the content of config.json. What is left open keeps the teacher's proportions: the feed-forward width per width,
    rounded up to a multiple of 8, and the heads per key-value head if they divide the heads, else one.
    """
    keys = {size: next((key for key in names if key in settings), None) for size, names in _KEYS.items()}
    teachers = {size: settings[key] for size, key in keys.items() if key is not None and settings[key] is not None}
    wanted = asdict(sizes)
    if sizes.intermediate is None and "intermediate" in teachers:
        wanted["intermediate"] = -(-teachers["intermediate"] * sizes.width // (teachers["width"] * 8)) * 8
    if sizes.kv_heads is None and "kv_heads" in teachers:
        each = teachers["heads"] // teachers["kv_heads"]
        wanted["kv_heads"] = sizes.heads // each if sizes.heads % each == 0 else sizes.heads
    changed: dict[str, Any] = {}
    for size, value in wanted.items():
        key = keys[size]
        if value is None:
            continue
        if key is None:
            raise LimbeckError(f"the family {settings.get('model_type')} has no {size} of its own; remove base.{size}")
        changed[key] = value
    if settings.get("head_dim") is not None:
        changed["head_dim"] = sizes.width // sizes.heads
    return changed
