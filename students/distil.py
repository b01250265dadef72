"""Distillation: a student that learns the teacher's distribution at every label. Imports neither torch nor any trainer."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.shape import shape_of
from limbeck.cluster.placement.demand import Trainer
from limbeck.corpus.config import MOST_NEW_TOKENS, MOST_ROWS, Config
from limbeck.corpus.errors import LimbeckError
from limbeck.students.base.compatibility import shared_vocabulary_problem
from limbeck.students.base.config import TeacherBase
from limbeck.students.contract import CachedTeacher
from limbeck.students.losses.divergences import CACHED, ULD, Divergence, LossKind
from limbeck.students.training.config import TrainingConfig

if TYPE_CHECKING:
    from limbeck.students.training.distilling import DistillationTrainer
    from limbeck.students.training.rows import Row

SAMPLING_CACHE_BYTES = 1 << 30  # at most, for keys and values of the student's own samples
_OWN_KEY = {"beta": ("jsd",), "alpha": ("skew_kl", "reverse_skew_kl")}


class LossConfig(Config):
    """The divergence of student q from teacher p at every label (docs/students.md has the formulas and sources)."""

    kind: LossKind = "forward_kl"
    beta: float | None = Field(None, gt=0, lt=1, description="of jsd alone: the teacher's share of the mixture; null: 0.5")
    alpha: float | None = Field(None, gt=0, lt=1, description="of skew_kl and reverse_skew_kl alone; null: 0.1")
    temperature: float = Field(1.0, gt=0, description="divides the logits of both, in the loss alone")

    @property
    def divergence(self) -> Divergence:
        """What is minimised; what is null is the divergence's own default."""
        return Divergence(self.kind, temperature=self.temperature, **self.model_dump(include={*_OWN_KEY}, exclude_none=True))

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> Self:
        for key, kinds in _OWN_KEY.items():
            if getattr(self, key) is not None and self.kind not in kinds:
                raise ValueError(f"{key} has no effect on {self.kind}, it belongs to {' and '.join(kinds)}; remove it")
        return self


class LiveTeacherConfig(Config):
    """The teacher's weights are in memory beside the student, and it sees every batch."""

    kind: Literal["live"] = "live"


class CachedTeacherConfig(Config):
    """The teacher's most likely tokens at every label are drawn once, before the training, by the workers of the run."""

    kind: Literal["cached"] = "cached"
    top_k: int = Field(30, ge=1, description="tokens at each label; the rest is one more class, the tail")
    dtype: Literal["float16", "float32"] = Field("float16", description="type of the stored log-probabilities")


TeacherConfig = Annotated[LiveTeacherConfig | CachedTeacherConfig, Field(discriminator="kind")]


class OnPolicyConfig(Config):
    """Train on samples of the student in place of some batches' completions (Agarwal et al. 2023, arXiv:2306.13649).

    With `replay`, samples are kept and used again as in DistiLLM (Ko et al. 2024, arXiv:2402.03898): as the training goes on,
    fewer samples are fresh.
    """

    share: float = Field(0.5, ge=0, le=1, description="share λ of optimiser steps; 0: none, as without this section")
    temperature: float = Field(1.0, ge=0, description="of sampling, apart from that of the loss; 0: greedy")
    max_new_tokens: int = Field(64, ge=1, le=MOST_NEW_TOKENS)
    replay: int = Field(1000, ge=0, le=MOST_ROWS, description="samples that are kept; 0: every sample is fresh")


class DistilConfig(TrainingConfig):
    """Distillation on the kept candidates: the loss is the divergence from the teacher's distribution at every label."""

    kind: Literal["distil"] = "distil"
    loss: LossConfig = Field(default_factory=LossConfig)
    cross_entropy: float = Field(0.0, ge=0, description="weight of the labels' own loss, added to the divergence")
    teacher: TeacherConfig = Field(default_factory=LiveTeacherConfig)
    on_policy: OnPolicyConfig | None = Field(None, description="null: the dataset's completions alone")

    semantics: ClassVar[int] = 1

    @model_validator(mode="after")
    def _combines(self) -> Self:
        cached, kind = self.teacher.kind == "cached", self.loss.kind
        if isinstance(self.base, TeacherBase) and not self.base.is_made and not self.cross_entropy:
            raise ValueError(
                "a student that starts from its teacher has the teacher's distributions already, so it would learn nothing; set "
                "base: {kind: layers, layers: N} or {kind: model, model: NAME}, or cross_entropy above 0"
            )
        if self.base.vocabulary is not None and kind != "uld":
            raise ValueError(
                f"base.vocabulary gives tokens other ids than the teacher's, which {kind} compares; use loss: {{kind: uld}}, or "
                "remove base.vocabulary"
            )
        if cached and kind not in CACHED:
            raise ValueError(
                f"a cached teacher has only its most likely tokens, on which {kind} is not stable; use loss.kind forward_kl or "
                "skew_kl, or teacher: {kind: live}"
            )
        if cached and self.loss.temperature != 1:
            raise ValueError(
                "a cached teacher has no logits outside its most likely tokens, which loss.temperature would divide; set it to "
                "1, or use teacher: {kind: live}"
            )
        if self.on_policy is None:
            return self
        if cached:
            raise ValueError("on_policy needs the teacher to judge new samples: use teacher: {kind: live}, or remove on_policy")
        if kind == ULD:
            raise ValueError("on_policy needs a teacher that reads the student's token ids, not uld; remove on_policy")
        if self.cross_entropy:
            raise ValueError("cross_entropy would teach the student its own samples; set it to 0, or remove on_policy")
        if _zero_stage(self) == 3:
            raise ValueError(
                "on_policy samples from the student's weights, which ZeRO 3 divides among the workers; use stage 2, or remove "
                "on_policy"
            )
        return self

    @property
    def cached_teacher(self) -> CachedTeacher | None:
        """What `teacher` says, if it is cached."""
        if not isinstance(self.teacher, CachedTeacherConfig):
            return None
        return CachedTeacher(self.teacher.top_k, self.teacher.dtype, self.max_sequence_tokens)

    @property
    def passes(self) -> float:
        """Epochs, and the teacher's forward passes, each of which is counted as a third of a training pass."""
        return self.epochs + (self.epochs if self.teacher.kind == "live" else 1) / 3

    def trainer(self, teacher: str, gpus: bool) -> Trainer:
        """The student's training, and beside it the whole teacher in every process if it is live, and the cache of samples."""
        alone, beside = super().trainer(teacher, gpus), 0
        if self.teacher.kind == "live":
            beside += shape_of(teacher).parameters * (4 if self.precision == "float32" else 2)
        if self.on_policy is not None:
            tokens = self.batch_size // self.workers * (self.max_sequence_tokens + self.on_policy.max_new_tokens)
            beside += min(SAMPLING_CACHE_BYTES, tokens * shape_of(self.base_model(teacher)).cached * 4)
        if gpus:
            return Trainer(alone.workers, alone.cpus, alone.gpus, alone.memory_bytes, alone.gpu_memory_bytes + beside)
        return Trainer(alone.workers, alone.cpus, alone.gpus, alone.memory_bytes + beside, 0)

    def problems(self, key: str, teacher: Path, chat: bool) -> list[str]:
        """The student must read the teacher's token ids, unless the loss compares distributions over different vocabularies."""
        found = super().problems(key, teacher, chat)
        if self.teacher.kind == "live" and not any(teacher.glob("*.safetensors")):
            found.append(
                f"{key}.teacher: a live teacher is loaded from weights, and {teacher} has none, since its engine calls a server; "
                "use kind: sft, which learns the teacher's samples as text"
            )
        if found or self.loss.kind == ULD:
            return found
        for model in self.models.values():
            try:
                problem = shared_vocabulary_problem(teacher, resolve(model))
            except LimbeckError:
                return []  # reported with the other models
            if problem is not None:
                return [
                    f"{key}: {problem}, so their distributions cannot be compared token by token; use loss: {{kind: uld}}, or "
                    "kind: sft, which learns the teacher's samples as text"
                ]
        return []

    def usable(self, rows: "list[Row]", teacher_logprobs: Path | None) -> list[int]:
        """Those of which the cached teacher has distributions."""
        if self.cached_teacher is None:
            return super().usable(rows, teacher_logprobs)
        from limbeck.students.training.teacher_cache import TeacherCache

        assert teacher_logprobs is not None, "drawn before the training"
        cache = TeacherCache(teacher_logprobs)
        found = [place for place, row in enumerate(rows) if len(row.ids) > self.max_sequence_tokens or cache.has(row)]
        if not found:
            raise LimbeckError(
                f"{teacher_logprobs} has log-probabilities of none of the {len(rows)} rows; its column `error` says why, and "
                "`limbeck run` draws it again once it is deleted"
            )
        return found

    def trainer_class(self) -> "type[DistillationTrainer]":
        """The class that trains on a worker."""
        from limbeck.students.training.distilling import DistillationTrainer

        return DistillationTrainer


def _zero_stage(config: TrainingConfig) -> int:
    zero: Mapping[str, Any] = (config.deepspeed or {}).get("zero_optimization", {})
    return int(zero.get("stage", 0))
