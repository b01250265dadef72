"""Which engine to build, and with what limits; read on the driver, so it imports nothing heavy."""

import importlib.util
from typing import Annotated, Literal

from pydantic import Field

from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.corpus.config import Config


class TransformersConfig(Config):
    """An engine in this process: any causal language model that transformers loads, on a CPU or one GPU.

    `batch_sequences` bounds the samples that are decoded together, `pack_tokens` the tokens of one packed forward pass,
    `cache_bytes` the key-value cache. `context_tokens` lowers the model's own limit.
    """

    kind: Literal["transformers"] = "transformers"
    model: str
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_sequences: int = Field(default=256, ge=1)
    pack_tokens: int = Field(default=2048, ge=16)
    cache_bytes: int = Field(default=2 << 30, ge=1 << 20)
    context_tokens: int | None = Field(default=None, ge=2)
    trust_remote_code: bool = False


class AutoConfig(Config):
    """Whichever engine is the fastest where the run computes, as measured in docs/benchmarks.md.

    vllm where the workers have GPUs and vLLM is installed; else transformers, which on CPUs is the faster one.
    """

    kind: Literal["auto"] = "auto"
    model: str
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    context_tokens: int | None = Field(default=None, ge=2)
    trust_remote_code: bool = False

    def choose(self, gpus_per_worker: float) -> TransformersConfig | VllmConfig:
        """The engine for workers with so many GPUs each; a vLLM with more than one GPU spreads the model over all of them."""
        settings = self.model_dump(exclude={"kind"})
        if gpus_per_worker and importlib.util.find_spec("vllm") is not None:
            return VllmConfig(**settings, tensor_parallel_size=max(1, int(gpus_per_worker)))
        return TransformersConfig(**settings)


EngineConfig = Annotated[AutoConfig | TransformersConfig | EndpointConfig | VllmConfig, Field(discriminator="kind")]
"""Every engine's config. `model` means the same in each: which weights, so whose tokenizer, chat template and context."""


def for_student(teacher: EngineConfig, folder: str) -> EngineConfig:
    """The engine of a student, whole in its folder: the teacher's engine with other weights; in this process behind a server."""
    if isinstance(teacher, EndpointConfig):  # its server does not serve our students
        return TransformersConfig(model=folder)
    if isinstance(teacher, VllmConfig):  # an adapter and a quantization are of the teacher's weights alone
        return teacher.model_copy(update={"model": folder, "lora": None, "quantization": None})
    return teacher.model_copy(update={"model": folder})
