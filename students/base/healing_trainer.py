"""The trainer of healing: it measures the loss on the sample on the way, and stops if that no longer falls. Imports torch."""

from typing import Any

from transformers import TrainerCallback

from limbeck.students.base.healing import HealingTraining, too_small_gain
from limbeck.students.training.sample_loss import nats_per_token, read_sample
from limbeck.students.training.trainer import CompletionTrainer

_KEY = "sample_nats_per_token"


class HealingTrainer(CompletionTrainer):
    """Trains on whole sequences; `settings.config` is a HealingTraining, and `settings.sample` the file to measure on."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.curve = _Curve(self)
        self.add_callback(self.curve)

    def own_metrics(self) -> dict[str, Any]:
        """curve: measurements (step, tokens, nats_per_token) from the start to the end; stopped: why before the end, or null."""
        return {"curve": self.curve.points(self.state), "stopped": self.curve.stopped}


class _Curve(TrainerCallback):  # type: ignore[misc]
    """Measures before the first step and every `measure_steps`. The curve is in the state that checkpoints hold."""

    def __init__(self, trainer: HealingTrainer) -> None:
        config, sample = trainer.settings.config, trainer.settings.sample
        assert isinstance(config, HealingTraining) and sample is not None
        self._trainer, self._config, self._sample = trainer, config, read_sample(sample)
        self.stopped: str | None = None

    def points(self, state: Any) -> list[dict[str, float]]:
        """The curve of a trainer's state."""
        return [
            {"step": entry["step"], "tokens": entry["step"] * self._config.tokens_per_step, "nats_per_token": entry[_KEY]}
            for entry in state.log_history
            if _KEY in entry
        ]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the model as it was made, unless a checkpoint is resumed."""
        if not state.global_step:
            self._measure(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, and end the training if the loss has fallen by too little."""
        if state.global_step % self._config.measure_steps and state.global_step < state.max_steps:
            return
        self._measure(state)
        if state.global_step < state.max_steps:
            self.stopped = too_small_gain(self.points(state), int(args.warmup_steps), self._config.min_gain)
        if self.stopped is not None:
            state.max_steps = state.global_step  # this is the last step, after which no checkpoint is needed
            control.should_training_stop = True

    def _measure(self, state: Any) -> None:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        training = model.training
        model.eval()
        state.log_history.append({"step": state.global_step, _KEY: nats_per_token(model, self._sample)})
        model.train(training)
