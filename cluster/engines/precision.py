"""The number type in which models compute, where a recipe leaves it open (`auto`); imports nothing heavy.

bfloat16 halves memory and its traffic, but a CPU without instructions for it emulates every product: on a CPU with AVX2 alone a
matrix product in bfloat16 takes about 57 times as long as in float32 (DECISIONS.md).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from limbeck.corpus.config import Config

Concrete = Literal["bfloat16", "float32", "float16"]
Dtype = Literal["auto", "bfloat16", "float32", "float16"]
Precision = Literal["auto", "bf16", "float32"]

_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # Intel's and AMD's names, and Arm's
_TRAINING: dict[Concrete, str] = {"bfloat16": "bf16", "float32": "float32"}
AnySection = TypeVar("AnySection")


@cache
def cpu_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> Concrete:
    """The faster type of this machine's CPU: bfloat16 if it has instructions for it, otherwise float32."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux: float32 is correct and never slow
        return "float32"
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    return "bfloat16" if lines and all(_FLAGS & set(line.split()) for line in lines) else "float32"


@cache
def gpu_here() -> bool:
    """Whether this machine has a GPU, by its device files: the driver does not load torch to find out."""
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/kfd"))


def dtype_on(wanted: Dtype, device: str) -> Concrete:
    """The type of a model that is loaded on a device (`cpu`, `cuda`)."""
    if wanted != "auto":
        return wanted
    return cpu_dtype() if device == "cpu" else "bfloat16"


def bf16_on(wanted: Precision, use_gpu: bool) -> bool:
    """Whether training computes in bfloat16."""
    return wanted == "bf16" or (wanted == "auto" and (use_gpu or cpu_dtype() == "bfloat16"))


def settled(section: AnySection, gpus: bool, cpu: Concrete) -> AnySection:
    """A section of a recipe with every open number type decided, at any depth.

    `gpus`: whether its models run on GPUs unless they ask for the CPU; `cpu`: the type for those that run on CPUs.
    """
    if isinstance(section, tuple):
        return tuple(settled(entry, gpus, cpu) for entry in section)  # type: ignore[return-value]
    if isinstance(section, Mapping):
        inside = {key: settled(value, gpus, cpu) for key, value in section.items()}
        return inside if any(inside[key] is not section[key] for key in section) else section  # type: ignore[return-value]
    if not isinstance(section, Config):
        return section
    device = getattr(section, "device", "auto")
    chosen: Concrete = "bfloat16" if device == "cuda" or (gpus and device != "cpu") else cpu
    changes: dict[str, Any] = {}
    for key in type(section).model_fields:
        value = getattr(section, key)
        if key in ("dtype", "precision") and value == "auto":
            changes[key] = chosen if key == "dtype" else _TRAINING[chosen]
        elif (inner := settled(value, gpus, cpu)) is not value:
            changes[key] = inner
    return section.model_copy(update=changes) if changes else section
