"""Training on text before a student's own training: the settings of its loop. Imports no torch."""

from typing import TYPE_CHECKING

from pydantic import Field

from limbeck.students.base.config import HealingConfig
from limbeck.students.sft import SftConfig

if TYPE_CHECKING:
    from limbeck.students.base.healing_trainer import HealingTrainer


class HealingTraining(SftConfig):
    """The training loop on sequences of text, with the loss on the sample measured on the way; no kind of student."""

    measure_steps: int = Field(ge=1, description="steps between two measurements")
    min_gain: float | None = None

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a whole batch."""
        return self.batch_size * self.max_sequence_tokens

    def trainer_class(self) -> "type[HealingTrainer]":
        """The class that trains on a worker; imported when called, because it needs torch."""
        from limbeck.students.base.healing_trainer import HealingTrainer

        return HealingTrainer


def training_of(healing: HealingConfig, tokens: int) -> HealingTraining:
    """The settings for a text of so many tokens."""
    each = healing.measure_tokens or -(-tokens // 10)
    return HealingTraining(
        learning_rate=healing.learning_rate,
        batch_size=healing.batch_size,
        micro_batch_size=max(size for size in (1, 2, 4) if healing.batch_size % size == 0),
        max_sequence_tokens=healing.sequence_tokens,
        measure_steps=max(1, round(each / (healing.batch_size * healing.sequence_tokens))),
        min_gain=healing.min_gain,
    )


def too_small_gain(curve: list[dict[str, float]], warmup_steps: int, min_gain: float | None) -> str | None:
    """Why healing stops after the last measurement of `curve` (step, tokens, nats_per_token), in one sentence; None: it does not.

    Measurements before the end of the warm-up do not count: the loss hardly falls at a low rate, or rises first.
    """
    if min_gain is None or len(curve) < 2 or curve[-2]["step"] < warmup_steps:
        return None
    gain, tokens = curve[-2]["nats_per_token"] - curve[-1]["nats_per_token"], curve[-1]["tokens"] - curve[-2]["tokens"]
    if gain >= min_gain:
        return None
    fell = f"over the last {tokens:,} the held-out loss fell by {gain:z.4f} nats per token, less than min_gain {min_gain:g}"
    return f"healing stopped after {curve[-1]['tokens']:,} tokens: {fell}"
