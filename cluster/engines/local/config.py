"""Config of a transformers model in the worker's process; read on the driver, so it imports nothing heavy."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.precision import Dtype
from limbeck.cluster.engines.protocol import Engine, UserTurn
from limbeck.cluster.engines.shape import DTYPE_BYTES, beyond_vocabulary, shape_of
from limbeck.cluster.placement.demand import Model
from limbeck.corpus.extras import require


class TransformersConfig(EngineConfig):
    """An engine in this process: any causal language model that transformers loads, on a CPU or one GPU.

    `batch_sequences` bounds the samples that are decoded together, `pack_tokens` the tokens of one packed forward pass,
    `cache_bytes` the key-value cache. `context_tokens` lowers the model's own limit.
    """

    extra: ClassVar[str | None] = "local"
    holds_constraints: ClassVar[bool] = True
    contrasts: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset({"device", "batch_sequences", "pack_tokens", "cache_bytes"})

    kind: Literal["transformers"] = "transformers"
    model: str
    dtype: Dtype = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_sequences: int = Field(default=256, ge=1)
    pack_tokens: int = Field(default=2048, ge=16)
    cache_bytes: int = Field(default=2 << 30, ge=1 << 20)
    context_tokens: int | None = Field(default=None, ge=2)
    trust_remote_code: bool = False

    def top_logprobs_problem(self, k: int) -> str | None:
        """More than the vocabulary."""
        return beyond_vocabulary(self.model, k)

    def user_turn_problem(self, turn: UserTurn) -> str | None:
        """Why the model's chat template cannot be cut before this turn, or None."""
        from limbeck.cluster.engines.chat import user_turn_problem

        return user_turn_problem(self.folder(), turn, self.trust_remote_code)

    def footprint(self, key: str) -> Model:
        """Weights, plus the key-value cache and one row of logits per packed token while it computes."""
        shape, width = shape_of(self.model), DTYPE_BYTES[self.dtype]
        context = min(shape.context, self.context_tokens or shape.context)
        cache = min(self.cache_bytes, self.batch_sequences * context * shape.cached * width)
        work = cache + self.pack_tokens * shape.vocabulary * DTYPE_BYTES["float32"]
        return Model(key, self.model, self.identity, self.kind, shape.parameters * width, work, device=self.device)

    def start(self, left: list[Any]) -> Engine:
        """Load it, into the memory of the engine that it replaces if both have the same architecture."""
        require(f"an engine of kind transformers (model {self.model})", "local")
        from limbeck.cluster.engines.local.engine import TransformersEngine, build
        from limbeck.cluster.engines.unloading import unload

        alike = left.pop() if left and isinstance(left[-1], TransformersEngine) else None
        unload(left)
        return build(self, alike)

    def build(self) -> Engine:
        """Return the loaded engine; raises LimbeckError if its model cannot be loaded."""
        return self.start([])
