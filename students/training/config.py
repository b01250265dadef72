"""The settings that every student trained by the training loop has. Imports neither torch nor any trainer."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.precision import Precision
from limbeck.cluster.engines.shape import shape_of
from limbeck.cluster.placement.demand import Trainer
from limbeck.cluster.placement.memory import PROCESS_BYTES
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.students.base.compatibility import compare
from limbeck.students.base.config import BaseConfig, TeacherBase
from limbeck.students.contract import StudentConfig
from limbeck.students.training.tracking import Tracker, missing

if TYPE_CHECKING:
    from limbeck.cluster.training import Placement
    from limbeck.students.training.rows import Row
    from limbeck.students.training.trainer import CompletionTrainer

LORA_STATE_BYTES = 6  # of a frozen weight, adapters and all
MOST_EPOCHS = 10_000


class LoraConfig(Config):
    """Train low-rank adapters (Hu et al. 2021, arXiv:2106.09685) and merge them into a full model at the end."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        strict=False,
        description="names of the linear layers that get an adapter",
    )


class TrainingConfig(StudentConfig):
    """The base of students that the training loop trains by gradient descent on prompts and completions."""

    extra: ClassVar[str | None] = "train"
    operational: ClassVar[frozenset[str]] = frozenset({"checkpoint_steps", "keep_checkpoints", "report_to"})

    base: BaseConfig = Field(default_factory=TeacherBase)
    epochs: int = Field(1, ge=1, le=MOST_EPOCHS)
    learning_rate: float = Field(2e-5, gt=0)
    batch_size: int = Field(8, ge=1, description="rows per optimiser step, over all workers")
    micro_batch_size: int = Field(4, ge=1, description="rows per forward pass of one worker; bounds memory")
    max_sequence_tokens: int = Field(1024, ge=2, description="longer rows are skipped and counted")
    packing: Literal["none", "rows", "prompts"] = Field(
        "none",
        description="rows: those of a forward pass in one sequence, without padding; prompts: each prompt once, with all its "
        "completions, which are then drawn together",
    )
    warmup_fraction: float = Field(0.1, ge=0, le=1, description="share of all steps")
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    precision: Precision = Field(
        "auto", description="type of the arithmetic; auto: bf16 if the hardware has it; master weights are always float32"
    )
    lora: LoraConfig | None = Field(None, description="null: train every weight")
    deepspeed: dict[str, Any] | None = Field(
        None,
        description='a DeepSpeed configuration, such as {"zero_optimization": {"stage": 2}}; batch sizes and bf16 are filled in',
    )
    checkpoint_steps: int = Field(100, ge=1)
    keep_checkpoints: int = Field(1, ge=1)
    held_out: float | None = Field(
        None, gt=0, lt=1, description="share of the dataset's sources that are kept out of training, to measure the loss on them"
    )
    eval_steps: int = Field(50, ge=1, description="steps between measurements of that loss; also at the start and the end")
    keep_best: bool = Field(False, description="publish the weights with the lowest held-out loss in place of the last ones")
    report_to: tuple[Tracker, ...] = Field((), strict=False, description="experiment trackers, which write beside the student")

    @model_validator(mode="after")
    def _batches_divide(self) -> "TrainingConfig":
        rows = self.micro_batch_size * self.workers
        if self.batch_size % rows:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size × workers = {rows}; choose one that is"
            )
        return self

    @model_validator(mode="after")
    def _best_is_measured(self) -> "TrainingConfig":
        if self.keep_best and self.held_out is None:
            raise ValueError("keep_best needs rows to measure the loss on; set held_out, such as 0.05")
        return self

    @property
    def passes(self) -> float:
        """Epochs."""
        return float(self.epochs)

    @property
    def models(self) -> Mapping[str, str]:
        """The base, if it is another model."""
        return {f"base.{key}": model for key, model in self.base.models.items()}

    def base_model(self, teacher: str) -> str:
        """Delegates to `base`."""
        return self.base.model_from(teacher)

    def weights_share(self, teacher: str) -> float:
        """Delegates to `base`."""
        return self.base.weights_share(teacher)

    def trainer(self, teacher: str, gpus: bool) -> Trainer:
        """Weights, gradients and optimiser state; activations, which `micro_batch_size` bounds, are not counted."""
        weights = int(shape_of(self.base_model(teacher)).parameters * self.weights_share(teacher))
        zero = (self.deepspeed or {}).get("zero_optimization", {})
        stage, workers = int(zero.get("stage", 0)), self.workers
        if self.lora is not None:
            state = weights * (LORA_STATE_BYTES + 4 * self.keep_best)  # the best weights are merged in a copy
        else:  # ZeRO divides Adam's moments (1), then gradients (2), then weights (3) among the workers
            state = sum(weights * each // (workers if stage >= least else 1) for each, least in ((8, 1), (4, 2), (4, 3)))
        offloaded = bool(zero.get("offload_optimizer") or zero.get("offload_param"))
        if not gpus:
            return Trainer(workers, 1.0, 0, PROCESS_BYTES + state, 0)
        on_gpu = weights * 4 if offloaded else state
        return Trainer(workers, 1.0, 1, PROCESS_BYTES + weights * 4 + (state if offloaded else 0), on_gpu)

    def problems(self, key: str, teacher: Path, chat: bool) -> list[str]:
        """A base of another family does not read the conversations, or has no end token; an impossible base or tracker."""
        lacking = missing(self.report_to)
        return [*([f"{key}: {lacking}"] if lacking else []), *self._base_problems(key, teacher, chat)]

    def _base_problems(self, key: str, teacher: Path, chat: bool) -> list[str]:
        for name, model in self.models.items():
            try:
                base = resolve(model)
            except LimbeckError:
                return []  # reported with the other models
            try:
                compare(teacher, base, conversational=chat)
            except LimbeckError as error:
                return [f"{key}.{name}: {error}"]
        return self.base.problems(f"{key}.base", teacher)

    def layers_from(self, teachers: int) -> int:
        """Delegates to `base`."""
        return self.base.layers_from(teachers)

    @property
    def text_tokens(self) -> int:
        """The budget of healing."""
        return self.base.healing.tokens if self.base.healing is not None else 0

    @property
    def needs_documents(self) -> bool:
        """Delegates to `base`."""
        return self.base.needs_documents

    def usable(self, rows: "list[Row]", teacher_logprobs: Path | None) -> list[int]:
        """The rows, by position, that can be trained on; others are left out and counted."""
        return list(range(len(rows)))

    def trainer_class(self) -> "type[CompletionTrainer]":
        """The class that trains on a worker; imported when called, because it needs torch."""
        from limbeck.students.training.trainer import CompletionTrainer

        return CompletionTrainer

    def warm_up(self) -> None:
        """Import Ray Train, and torch with it."""
        from limbeck.cluster.training import warm_up

        warm_up()

    def train(
        self,
        dataset: Path,
        teacher: Path,
        out: Path,
        seed: int,
        documents: Path | None = None,
        placement: "Placement | None" = None,
        teacher_logprobs: Path | None = None,
    ) -> dict[str, Any]:
        """See `limbeck.students.training.driver.train`."""
        from limbeck.students.training.driver import train

        return train(self, dataset, teacher, out, seed, documents, placement, teacher_logprobs)
