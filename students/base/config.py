"""What a student starts from: the round's teacher, another model, or some of the teacher's layers. Imports no torch."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.shape import shape_of
from limbeck.corpus.config import Config
from limbeck.corpus.kinds import Kind


class BaseConfig(Kind):
    """The base of what a student can start from."""

    family: ClassVar[str] = "student base"

    @property
    def models(self) -> Mapping[str, str]:
        """The model that it names, if any: key → Hugging Face id, folder or embedded name."""
        return {}

    def model_from(self, teacher: str) -> str:
        """The model that training starts from."""
        return teacher

    def weights_share(self, teacher: str) -> float:
        """The share of that model's weights that is kept."""
        return 1.0


class TeacherBase(BaseConfig):
    """Start from the round's teacher."""

    kind: Literal["teacher"] = "teacher"


class ModelBase(BaseConfig):
    """Start from another model."""

    kind: Literal["model"] = "model"
    model: str = Field(description="a folder, a Hugging Face id, or embedded:NAME")

    @property
    def models(self) -> Mapping[str, str]:
        """The model."""
        return {"model": self.model}

    def model_from(self, teacher: str) -> str:
        """The model."""
        return self.model


class HealingConfig(Config):
    """How a model that lost layers is trained on raw text before it is a student."""

    tokens: int = Field(200_000, ge=1, description="token budget for one pass over the train documents")
    learning_rate: float = Field(3e-4, gt=0)
    batch_size: int = Field(8, ge=1, description="sequences per step")
    sequence_tokens: int = Field(256, ge=2)


class LayersBase(BaseConfig):
    """Start from the teacher's own most important layers, healed on the run's train documents."""

    kind: Literal["layers"] = "layers"
    layers: int = Field(ge=1, description="how many of the teacher's layers to keep")
    sample: int = Field(16, ge=1, description="documents on which importance and perplexity are measured; kept out of healing")
    sample_tokens: int = Field(128, ge=8, description="tokens read per document")
    healing: HealingConfig | None = Field(default_factory=HealingConfig, description="null: no healing")

    def weights_share(self, teacher: str) -> float:
        """The layers kept; embeddings are counted as if they shrank too."""
        return min(1.0, self.layers / max(1, shape_of(teacher).layers))


BaseConfig.add(TeacherBase, ModelBase, LayersBase)
