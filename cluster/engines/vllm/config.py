"""Config of vLLM engines; read on the driver, so it imports nothing heavy."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.models import fingerprint
from limbeck.cluster.engines.protocol import Engine, UserTurn
from limbeck.cluster.engines.shape import DTYPE_BYTES, beyond_vocabulary, shape_of
from limbeck.cluster.placement.demand import Model
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require

CPU_CACHE_BYTES = 2 << 30
CPU_BATCH_TOKENS = 2048  # vLLM's default, 4,096 or more, holds a row of the vocabulary per scored token
CPU_LOGITS = 3 * CPU_BATCH_TOKENS  # rows of the vocabulary, in float32, that the CPU build retains after scoring prompts
GPU_SHARE = 0.9  # default share of the worker's reserved GPU memory


class VllmConfig(EngineConfig):
    """A vLLM engine, in processes separate from the worker: on GPUs, or with its CPU build.

    `tensor_parallel_size` times `pipeline_parallel_size` GPUs of one node hold the model together. `gpu_memory_utilization` is
    the share of each GPU that vLLM takes; null: 0.9 of the worker's reservation (`cluster.gpus_per_worker`). `cache_bytes` is the
    key-value cache; null: the rest of that share on a GPU, 2 GiB on a CPU. `max_sequences` bounds the sequences decoded together
    and `batch_tokens` (null: vLLM's choice) the tokens of one step: lower it if log-probabilities of long prompts run out of
    memory, since every token of a step then has a row of the whole vocabulary. `enforce_eager` disables compilation and CUDA
    graphs; null: on a CPU only, where compilation takes longer than most runs. `max_logprobs` bounds the `top_k` of a cached
    teacher. `lora` names a folder with a PEFT adapter for the model.
    """

    extra: ClassVar[str | None] = "vllm"
    batches_across_callers: ClassVar[bool] = True
    holds_json_schemas: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset(
        {
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "gpu_memory_utilization",
            "cache_bytes",
            "max_sequences",
            "batch_tokens",
            "prefix_caching",
            "enforce_eager",
            "max_logprobs",
        }
    )

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
    max_logprobs: int = Field(default=64, ge=1)
    quantization: str | None = None
    lora: str | None = None
    trust_remote_code: bool = False

    @property
    def processes(self) -> int:
        """Number of processes (GPUs, on a GPU cluster) that hold the model together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def adapter(self) -> Path | None:
        """The folder of `lora`; raises LimbeckError if it holds no adapter."""
        if self.lora is None:
            return None
        folder = Path(self.lora).expanduser()
        if not (folder / "adapter_config.json").exists():
            raise LimbeckError(f"{self.lora} has no adapter_config.json; `lora` must name a folder with an adapter saved by PEFT")
        return folder

    def fingerprint(self) -> Mapping[str, str]:
        """Identifies the content of the model, and of the adapter if there is one."""
        adapter = self.adapter()
        return {**super().fingerprint(), **({"lora": fingerprint(adapter)} if adapter else {})}

    def problems(self, key: str) -> list[str]:
        """Reports a missing adapter."""
        try:
            self.adapter()
        except LimbeckError as error:
            return [f"{key}.lora: {error}"]
        return []

    def top_logprobs_problem(self, k: int) -> str | None:
        """More than vLLM is started for, or than the vocabulary."""
        if k > self.max_logprobs:
            return f"top_k is {k}, but max_logprobs of the teacher's engine is {self.max_logprobs}; raise it, or lower top_k"
        return beyond_vocabulary(self.model, k)

    def user_turn_problem(self, turn: UserTurn) -> str | None:
        """Why the model's chat template cannot be cut before this turn, or None."""
        from limbeck.cluster.engines.chat import user_turn_problem

        return user_turn_problem(self.folder(), turn, self.trust_remote_code)

    def footprint(self, key: str) -> Model:
        """Weights and cache in separate processes, spread over the requested GPUs."""
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
        """Return the engine once vLLM's processes have started; raises LimbeckError if they cannot load the model."""
        require(f"an engine of kind vllm (model {self.model})", "vllm")
        from limbeck.cluster.engines.vllm.engine import build

        return build(self)
