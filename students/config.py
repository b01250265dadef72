"""How a student is trained and what it starts from. Imports neither torch nor any trainer."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from limbeck.corpus.config import Config


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


class TeacherBase(Config):
    """Start from the round's teacher."""

    kind: Literal["teacher"] = "teacher"


class ModelBase(Config):
    """Start from another model."""

    kind: Literal["model"] = "model"
    model: str = Field(description="a folder, a Hugging Face id, or embedded:NAME")


class HealingConfig(Config):
    """How a model that lost layers is trained on raw text before it is a student."""

    tokens: int = Field(200_000, ge=1, description="at most so many tokens of train documents, each seen once")
    learning_rate: float = Field(3e-4, gt=0)
    batch_size: int = Field(8, ge=1, description="sequences in a step")
    sequence_tokens: int = Field(256, ge=2)


class LayersBase(Config):
    """Start from the teacher's own most important layers, healed on the run's train documents."""

    kind: Literal["layers"] = "layers"
    layers: int = Field(ge=1, description="how many of the teacher's layers to keep")
    sample: int = Field(16, ge=1, description="documents on which importance and perplexity are measured; kept out of healing")
    sample_tokens: int = Field(128, ge=8, description="tokens read of each of them")
    healing: HealingConfig | None = Field(default_factory=HealingConfig, description="null: no healing")


Base = Annotated[TeacherBase | ModelBase | LayersBase, Field(discriminator="kind")]


class SftConfig(Config):
    """Supervised fine-tuning on the kept candidates, with the loss on the completion alone."""

    kind: Literal["sft"] = "sft"
    base: Base = Field(default_factory=TeacherBase)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    batch_size: int = Field(8, ge=1, description="rows in an optimiser step, over all workers")
    micro_batch_size: int = Field(4, ge=1, description="rows in one forward pass of one worker; limits memory")
    max_sequence_tokens: int = Field(1024, ge=2, description="longer rows are left out and counted")
    warmup_fraction: float = Field(0.1, ge=0, le=1, description="of all steps")
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    precision: Literal["bf16", "float32"] = Field(
        "bf16", description="of the arithmetic; master weights are float32 in either case"
    )
    lora: LoraConfig | None = Field(None, description="null: train every weight")
    deepspeed: dict[str, Any] | None = Field(
        None,
        description='a DeepSpeed configuration, such as {"zero_optimization": {"stage": 2}}; batch sizes and bf16 are filled in',
    )
    workers: int = Field(1, ge=1, description="training processes")
    checkpoint_steps: int = Field(100, ge=1)
    keep_checkpoints: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _batches_divide(self) -> "SftConfig":
        rows = self.micro_batch_size * self.workers
        if self.batch_size % rows:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size × workers = {rows}; choose one that is"
            )
        return self
