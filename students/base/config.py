"""What a student starts from: a model, smaller if wanted, and trained on text if wanted. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.shape import shape_of
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.kinds import Kind
from limbeck.corpus.parts import read_object
from limbeck.corpus.source_kinds import DrawSources, SourcesConfig
from limbeck.corpus.sources import refuse_unreadable
from limbeck.students.base.families import Sizes, family_problem, scaled
from limbeck.students.base.vocabulary import read_trimmable


class HealingConfig(Config):
    """How a model is trained on raw text before it is a student."""

    text: SourcesConfig | None = Field(
        None,
        description="a section like `sources`, whose documents are not cut unless it says so; null: the run's train documents",
    )
    tokens: int = Field(200_000, ge=1, description="token budget, in one pass over the text")
    learning_rate: float = Field(3e-4, gt=0)
    batch_size: int = Field(8, ge=1, description="sequences per step")
    sequence_tokens: int = Field(256, ge=2)
    measure_tokens: int | None = Field(
        None, ge=1, description="measure the held-out loss after each of this many tokens; null: a tenth of the budget"
    )
    min_gain: float | None = Field(
        None,
        gt=0,
        description="stop if the held-out loss (nats per token) falls by less than this between two measurements; null: never",
    )

    @field_validator("text")
    @classmethod
    def _has_documents(cls, text: SourcesConfig | None) -> SourcesConfig | None:
        if isinstance(text, DrawSources):
            raise ValueError("draws have no text to train on; choose a kind of sources with documents")
        return text


class FirstTextConfig(HealingConfig):
    """How a new model is trained on text before it is a student."""

    tokens: int = Field(5_000_000, ge=1, description="token budget, in one pass over the text")
    learning_rate: float = Field(1e-3, gt=0)


class VocabularyConfig(Config):
    """A vocabulary trimmed to what dataset, train documents and chat template use, with all bytes and special tokens."""

    kind: Literal["used"] = "used"
    keep: int | float | None = Field(
        None,
        gt=0,
        description="a whole number: at most this many tokens; a fraction: the most frequent ones, up to this share of all "
        "occurrences; null: every token that is used",
    )

    @field_validator("keep")
    @classmethod
    def _is_a_share(cls, keep: int | float | None) -> int | float | None:
        if isinstance(keep, float) and keep > 1:
            raise ValueError(f"{keep} is neither a whole number of tokens nor a share of at most 1.0")
        return keep


class BaseConfig(Kind):
    """The base of what a student can start from."""

    family: ClassVar[str] = "student base"

    sample: int = Field(16, ge=1, description="documents on which loss (and importance) is measured; kept out of healing")
    sample_tokens: int = Field(128, ge=8, description="tokens read per document")
    vocabulary: VocabularyConfig | None = Field(None, description="null: the whole vocabulary")
    healing: HealingConfig | None = Field(None, description="training on text before the student's own; null: none")

    @property
    def is_made(self) -> bool:
        """Whether a model is made first; otherwise the named one is used as it is."""
        return self.vocabulary is not None or self.healing is not None

    @property
    def needs_documents(self) -> bool:
        """Whether it reads the documents of the run's sources: to measure, and to heal unless it has a text of its own."""
        return self.is_made and (self.healing is None or self.healing.text is None)

    @model_validator(mode="after")
    def _measures_something(self) -> "BaseConfig":
        defaults = {key: type(self).model_fields[key].default for key in ("sample", "sample_tokens")}
        given = self.model_dump(include=set(defaults))
        unused = [key for key in defaults if given[key] != defaults[key]]  # a recorded recipe has all keys, also those not given
        if unused and not self.is_made:
            raise ValueError(f"{min(unused)} is only used with healing or vocabulary; remove it")
        return self

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

    def layers_from(self, teachers: int) -> int:
        """How many layers the student has, of a teacher with this many; raises LimbeckError if it needs more."""
        return teachers

    def problems(self, key: str, teacher: Path) -> list[str]:
        """Reasons why it cannot be made from this teacher, one sentence each; `key` is its section of the recipe."""
        found = []
        if self.vocabulary is not None:
            try:
                read_trimmable(resolve(self.model_from(str(teacher))))
            except LimbeckError as error:
                found.append(f"{key}.vocabulary: {error}")
        text = self.healing.text if self.healing is not None else None
        if text is not None and not isinstance(text, DrawSources):
            try:
                refuse_unreadable(text)
            except LimbeckError as error:
                found.append(f"{key}.healing.text: {error}")
        return found


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

    def layers_from(self, teachers: int) -> int:
        """Those of the model."""
        return shape_of(self.model).layers


class LayersBase(BaseConfig):
    """Start from some of the teacher's layers, healed on text."""

    kind: Literal["layers"] = "layers"
    layers: int = Field(ge=1, description="how many of the teacher's layers to keep")
    choose: Literal["importance", "evenly"] = Field(
        "importance",
        description="importance: drop the layer without which the loss is lowest, one after another; evenly: keep layers "
        "at equal distances, the first and the last among them",
    )
    healing: HealingConfig | None = Field(default_factory=HealingConfig, description="training on text; null: none")

    @property
    def is_made(self) -> bool:
        """Always."""
        return True

    def weights_share(self, teacher: str) -> float:
        """The layers kept; embeddings are counted as if they shrank too."""
        return min(1.0, self.layers / max(1, shape_of(teacher).layers))

    def layers_from(self, teachers: int) -> int:
        """Those to keep."""
        if self.layers > teachers:
            raise LimbeckError(f"the teacher has {teachers} layers, fewer than the {self.layers} to keep; lower base.layers")
        return self.layers

    def problems(self, key: str, teacher: Path) -> list[str]:
        """The teacher's family must be known."""
        problem = family_problem(teacher, "kind: layers")
        return [*super().problems(key, teacher), *([f"{key}: {problem}; choose another kind of base"] if problem else ())]


class ScratchBase(BaseConfig):
    """Start from a new model of the teacher's architecture and tokenizer, trained on text."""

    kind: Literal["scratch"] = "scratch"
    layers: int = Field(ge=1)
    width: int = Field(ge=2, description="of the hidden states")
    heads: int = Field(ge=1, description="of attention")
    kv_heads: int | None = Field(None, ge=1, description="key-value heads; null: as many heads share one as in the teacher")
    intermediate: int | None = Field(None, ge=1, description="width of the feed-forward layers; null: the teacher's proportion")
    healing: FirstTextConfig = Field(default_factory=FirstTextConfig, description="training on text")

    @property
    def is_made(self) -> bool:
        """Always."""
        return True

    @model_validator(mode="after")
    def _heads_fit(self) -> "ScratchBase":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; choose one that is")
        if self.width // self.heads % 2:
            raise ValueError(
                f"width {self.width} gives each of {self.heads} heads {self.width // self.heads} values, but rotary "
                "positions need an even number; change width or heads"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}; choose one that is")
        return self

    @field_validator("healing", mode="before")
    @classmethod
    def _is_trained(cls, healing: object) -> object:
        if healing is None:
            raise ValueError(
                "null would leave a new model without any training on text, and fine-tuning alone teaches it nothing; remove it"
            )
        return healing

    @property
    def sizes(self) -> Sizes:
        """Its sizes."""
        return Sizes(self.layers, self.width, self.heads, self.kv_heads, self.intermediate)

    def layers_from(self, teachers: int) -> int:
        """Its own."""
        return self.layers

    def weights_share(self, teacher: str) -> float:
        """Its weights, per weight of the teacher: an estimate, in which a feed-forward layer has three matrices."""
        shape = shape_of(teacher)
        kv_heads, intermediate = self.kv_heads or self.heads, self.intermediate or 4 * self.width
        each = 2 * self.width * (self.width // self.heads) * (self.heads + kv_heads) + 3 * self.width * intermediate
        return (2 * shape.vocabulary * self.width + self.layers * each) / max(1, shape.parameters)

    def problems(self, key: str, teacher: Path) -> list[str]:
        """The teacher's family must be known, and have the sizes that are given."""
        found = super().problems(key, teacher)
        if problem := family_problem(teacher, "kind: scratch"):
            return [*found, f"{key}: {problem}; choose another kind of base"]
        try:
            scaled(read_object(teacher / "config.json"), self.sizes)
        except LimbeckError as error:
            found.append(f"{key}: {error}")
        return found


BaseConfig.add(TeacherBase, ModelBase, LayersBase, ScratchBase)
