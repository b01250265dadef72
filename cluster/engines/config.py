"""Which engine to build, and with what limits; read on the driver, so it imports nothing heavy."""

from typing import Annotated, Literal

from pydantic import Field

from cluster.engines.endpoint_config import EndpointConfig
from cluster.engines.vllm_config import VllmConfig
from corpus.config import Config


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


EngineConfig = Annotated[TransformersConfig | EndpointConfig | VllmConfig, Field(discriminator="kind")]
"""Every engine's config. `model` means the same in each: which weights, so whose tokenizer, chat template and context."""


def for_student(teacher: EngineConfig, folder: str) -> EngineConfig:
    """The engine of a student, whole in its folder: the teacher's engine with other weights; in this process behind a server."""
    if isinstance(teacher, EndpointConfig):  # its server does not serve our students
        return TransformersConfig(model=folder)
    if isinstance(teacher, VllmConfig):  # an adapter and a quantization are of the teacher's weights alone
        return teacher.model_copy(update={"model": folder, "lora": None, "quantization": None})
    return teacher.model_copy(update={"model": folder})
