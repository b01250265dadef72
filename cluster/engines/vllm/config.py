"""How vLLM is to hold a model; read on the driver, so it imports nothing heavy."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.models import fingerprint
from limbeck.cluster.engines.protocol import Engine
from limbeck.cluster.engines.shape import DTYPE_BYTES, shape_of
from limbeck.cluster.placement.demand import Model
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require

CPU_CACHE_BYTES = 2 << 30
CPU_BATCH_TOKENS = 2048  # vLLM's own choice, 4,096 and more, holds a row of the vocabulary for each token that is scored
CPU_LOGITS = 3 * CPU_BATCH_TOKENS  # rows of the vocabulary, in float32, that the CPU build keeps once it has scored prompts
GPU_SHARE = 0.9  # of what the worker reserved of a GPU, where the recipe says nothing


class VllmConfig(EngineConfig):
    """An engine of vLLM's own, in processes beside the worker: on GPUs, or with its CPU build.

    `tensor_parallel_size` times `pipeline_parallel_size` GPUs of one node hold the model together. `gpu_memory_utilization` is
    the share of each GPU that vLLM takes; null: 0.9 of what the worker reserved of it (`cluster.gpus_per_worker`).
    `cache_bytes` is the key-value cache; null: what that share leaves on a GPU, 2 GiB on a CPU. `max_sequences` bounds what is
    decoded together and `batch_tokens` (null: vLLM's choice) the tokens of one step: lower it where log-probabilities of long
    prompts run out of memory, since every token of a step then has a row of the whole vocabulary. `enforce_eager` leaves out
    compilation and CUDA graphs; null: on a CPU only, where compiling takes longer than most runs. `lora` names a folder with a
    PEFT adapter for the model.
    """

    extra: ClassVar[str | None] = "vllm"
    batches_across_callers: ClassVar[bool] = True

    kind: Literal["vllm"] = "vllm"
    model: str
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    cache_bytes: int | None = Field(default=None, ge=1 << 20)
    context_tokens: int | None = Field(default=None, ge=2)
    max_sequences: int = Field(default=256, ge=1)
    batch_tokens: int | None = Field(default=None, ge=16)
    prefix_caching: bool = True
    enforce_eager: bool | None = None
    quantization: str | None = None
    lora: str | None = None
    trust_remote_code: bool = False

    @property
    def processes(self) -> int:
        """How many processes, on a GPU cluster GPUs, hold the model together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def adapter(self) -> Path | None:
        """The folder of `lora`; raises LimbeckError where it holds no adapter."""
        if self.lora is None:
            return None
        folder = Path(self.lora).expanduser()
        if not (folder / "adapter_config.json").exists():
            raise LimbeckError(f"{self.lora} has no adapter_config.json; `lora` names a folder that PEFT saved an adapter to")
        return folder

    def fingerprint(self) -> Mapping[str, str]:
        """Names the content of the model, and of the adapter if there is one."""
        adapter = self.adapter()
        return {**super().fingerprint(), **({"lora": fingerprint(adapter)} if adapter else {})}

    def problems(self, key: str) -> list[str]:
        """The adapter is missing."""
        try:
            self.adapter()
        except LimbeckError as error:
            return [f"{key}.lora: {error}"]
        return []

    def footprint(self, key: str) -> Model:
        """Weights and cache in processes of its own, spread over the GPUs that it asks for."""
        shape = shape_of(self.model)
        return Model(
            key,
            self.model,
            self.identity,
            self.kind,
            weights_bytes=shape.bytes if self.quantization else shape.parameters * DTYPE_BYTES[self.dtype],
            cache_bytes=(self.cache_bytes or CPU_CACHE_BYTES) + CPU_LOGITS * shape.vocabulary * 4,
            gpu_share=self.gpu_memory_utilization,
            tensor_parallel=self.tensor_parallel_size,
            pipeline_parallel=self.pipeline_parallel_size,
            attention_heads=shape.heads,
            memory="processes",
        )

    def for_student(self, folder: str) -> "VllmConfig":
        """The same engine without adapter and quantization, which belong to the teacher's weights."""
        return self.model_copy(update={"model": folder, "lora": None, "quantization": None})

    def build(self) -> Engine:
        """Return the engine, once vLLM's processes are up; raises LimbeckError if they cannot load the model."""
        require(f"an engine of kind vllm (model {self.model})", "vllm")
        from limbeck.cluster.engines.vllm.engine import build

        return build(self)
