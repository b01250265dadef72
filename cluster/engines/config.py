"""The kinds of engines; read on the driver, so it imports nothing heavy."""

from typing import Literal

from pydantic import Field

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.precision import Dtype
from limbeck.cluster.engines.protocol import Engine, UserTurn
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.corpus.extras import installed

__all__ = ["AutoConfig", "EndpointConfig", "EngineConfig", "TransformersConfig", "VllmConfig"]


class AutoConfig(EngineConfig):
    """The fastest engine for the hardware of the run, as measured in docs/benchmarks.md.

    vllm if the workers have GPUs and vLLM is installed; otherwise transformers, which is faster on CPUs.
    """

    kind: Literal["auto"] = "auto"
    model: str
    dtype: Dtype = "auto"
    context_tokens: int | None = Field(default=None, ge=2)
    trust_remote_code: bool = False

    def choose(self, gpus_per_worker: float) -> EngineConfig:
        """The engine for workers with this number of GPUs each; a vLLM with more than one spreads the model over all of them."""
        settings = self.model_dump(exclude={"kind"})
        if gpus_per_worker and installed("vllm"):
            return VllmConfig(**settings, tensor_parallel_size=max(1, int(gpus_per_worker)))
        return TransformersConfig(**settings)

    def top_logprobs_problem(self, k: int) -> str | None:
        """Never asked: `auto` is decided when the recipe is resolved."""
        raise AssertionError("`auto` is decided when the recipe is resolved")

    def user_turn_problem(self, turn: UserTurn) -> str | None:
        """The answer of the kinds that it may choose: both read the model's chat template in the same way."""
        return TransformersConfig(model=self.model, trust_remote_code=self.trust_remote_code).user_turn_problem(turn)

    def build(self) -> Engine:
        """Never called: `auto` is decided when the recipe is resolved."""
        raise AssertionError("`auto` is decided when the recipe is resolved")


EngineConfig.add(AutoConfig, TransformersConfig, EndpointConfig, VllmConfig)
