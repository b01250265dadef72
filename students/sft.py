"""Supervised fine-tuning: the student that learns completions by their log-likelihood. Imports neither torch nor any trainer."""

from typing import ClassVar, Literal

from limbeck.students.training.config import TrainingConfig


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on the kept candidates, with the loss on the completion alone."""

    semantics: ClassVar[int] = 2

    kind: Literal["sft"] = "sft"
