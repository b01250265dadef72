"""The contract of engine configs, so that no other module depends on the kind of engine; imports nothing heavy."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from limbeck.cluster.engines.models import fingerprint, resolve
from limbeck.cluster.engines.precision import Dtype
from limbeck.cluster.engines.protocol import Engine, UserTurn
from limbeck.cluster.engines.shape import DTYPE_BYTES, shape_of
from limbeck.cluster.placement.demand import Model
from limbeck.corpus.config import Config
from limbeck.corpus.kinds import Kind

ACTIVATIONS = 32  # values per hidden unit and token that a scoring model holds in a forward pass
BATCH_TOKENS = 32768  # tokens per forward pass, for a scoring model that chooses by its device


class EngineConfig(Kind):
    """The base of every engine's config. `model` has the same meaning in all: the weights, hence the tokenizer and chat template.

    A kind must implement `build`, and `footprint` if it holds weights; the other defaults are those of an engine that
    runs in the worker's process.
    """

    family: ClassVar[str] = "engine"

    extra: ClassVar[str | None] = None
    """The extra of this distribution that it needs (`pip install 'limbeck[...]'`); None: the core is enough."""

    batches_across_callers: ClassVar[bool] = False
    """Whether it batches requests of several threads, so that the jobs of one process should use it concurrently."""

    paid: ClassVar[bool] = False
    """Whether its completions cost money: those of an unfinished part are then stored in a journal."""

    remote: ClassVar[bool] = False
    """Whether its weights are outside the cluster: it then stays loaded when other models are loaded."""

    holds_json_schemas: ClassVar[bool] = False
    """Whether it supports `Sampling.json_schema`; others answer such a request with an error."""

    holds_constraints: ClassVar[bool] = False
    """Whether it supports `Sampling.constraint`; others must answer such a request with an error."""

    contrasts: ClassVar[bool] = False
    """Whether it supports `Sampling.contrast`; others answer such a request with an error."""

    model: str

    def choose(self, gpus_per_worker: float) -> "EngineConfig":
        """The engine for workers with this number of GPUs each; only `auto` is replaced by another."""
        return self

    def folder(self) -> Path:
        """The folder with the files that the engine reads here; raises LimbeckError if it is missing."""
        return resolve(self.model)

    def fingerprint(self) -> Mapping[str, str]:
        """Identifies the content of everything that determines its answers: `model`, and any more files."""
        return {"model": fingerprint(self.folder())}

    def problems(self, key: str) -> list[str]:
        """Reasons why it cannot run (a missing package, a server that does not respond), one sentence each.

        `key` is its section of the recipe. The model itself is checked elsewhere.
        """
        return []

    def user_turn_problem(self, turn: UserTurn) -> str | None:
        """Why it cannot complete this prompt (it does not read chat templates, or this one cannot be cut), or None.

        Only asked if its model was found.
        """
        return f"an engine of kind {self.kind} draws no user turns; use transformers or vllm"

    def footprint(self, key: str) -> Model:
        """Memory that a worker needs for it; the default is that of an engine without weights."""
        return Model(key, self.model, self.identity, self.kind, memory="none")

    def top_logprobs_problem(self, k: int) -> str | None:
        """Why it cannot give the `k` most likely tokens (`protocol.DistributionEngine`), or None.

        Only asked if its model was found.
        """
        return f"an engine of kind {self.kind} does not give the teacher's log-probabilities; use transformers or vllm"

    @property
    def identity(self) -> str:
        """Engines of one identity are loaded once."""
        return f"{type(self).__name__} {self.model_dump_json()}"

    def for_student(self, folder: str) -> "EngineConfig":
        """The engine for a student of this engine's model, complete in its folder."""
        return self.model_copy(update={"model": folder})

    def counted(self, folder: Path) -> "EngineConfig":
        """The engine with its spending counted in a file of this run folder, if it has a budget."""
        return self

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables of the driver that it reads on a worker, such as that of a key (engines/environment.py)."""
        return ()

    def start(self, left: list[Any]) -> Engine:
        """Load it, after releasing the engines in `left`, which were unloaded for it.

        A kind that can reuse their memory takes them out of the list first.
        """
        from limbeck.cluster.engines.unloading import unload

        unload(left)
        return self.build()

    @abstractmethod
    def build(self) -> Engine:
        """Return the loaded engine; raises LimbeckError if it cannot be loaded."""


class ScoringModelConfig(Config):
    """The base of the configs of models that only score, in the worker's process: classifiers, encoders, masked models."""

    extra: ClassVar[str | None] = "local"
    """The extra of this distribution that it needs."""

    operational: ClassVar[frozenset[str]] = frozenset({"device", "batch_tokens"})

    model: str
    dtype: Dtype = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_tokens: int | None = None

    @abstractmethod
    def load(self) -> Any:
        """Return the loaded model, with a `usage: Usage`; raises LimbeckError if it cannot be loaded."""

    def footprint(self, key: str) -> Model:
        """Memory that a worker needs for it."""
        shape, width = shape_of(self.model), DTYPE_BYTES[self.dtype]
        work = (self.batch_tokens or BATCH_TOKENS) * shape.hidden * ACTIVATIONS * width
        weights = shape.parameters * width
        identity = f"{type(self).__name__} {self.model_dump_json()}"
        return Model(key, self.model, identity, "critic", weights, work, device=self.device, memory="critic")
