"""What happens around the steps of a training: metrics, held-out loss, best weights, checkpoints, progress. Imports torch."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from limbeck.students.training.held_out import HeldOutLoss, lowest
from limbeck.students.training.progress import Progress
from limbeck.students.training.step_log import METRICS_LOG, StepLog
from limbeck.students.training.trainer import CompletionTrainer

HELD_OUT_LOG = "held_out.jsonl"


class Steps(TrainerCallback):  # type: ignore[misc]
    """Logs every step, measures the held-out loss, keeps the best weights, requests checkpoints, and reports the progress."""

    def __init__(self, trainer: CompletionTrainer, progress: Progress, save_best: Callable[[int], None]) -> None:
        """`save_best` saves the current weights as those of a step; all workers call it together."""
        self.trainer, self.progress, self.save_best = trainer, progress, save_best
        self.config = trainer.settings.config
        self.metrics = StepLog(trainer.settings.training / METRICS_LOG)
        self.measured: list[HeldOutLoss] = []
        self.eval_seconds = 0.0
        self._held_out_log = StepLog(trainer.settings.training / HELD_OUT_LOG)
        self._before = (0, 0.0)  # tokens and seconds before the step
        self._line: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Continue the logs after the checkpoint's step, or begin them with the held-out loss of the base."""
        step = state.global_step or None
        if args.should_save:
            self.metrics.begin(step)
            self._held_out_log.begin(step)
        self.trainer.accelerator.wait_for_everyone()
        self.measured = [
            HeldOutLoss(line["step"], tuple(line["losses"]), tuple(line["labels"])) for line in self._held_out_log.lines()
        ]
        if step is None and self.trainer.held_out:
            loss = self._measure(args)
            if args.should_save:
                self.metrics.add({"step": 0, "held_out_loss": _finite(loss)})

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember what was counted before the step."""
        self.progress.step_began()
        self._before = self.trainer.tokens, self.trainer.train_seconds

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the time since the last backward pass: clipping and the update."""
        self.trainer.train_seconds += time.perf_counter() - self.trainer.backward_ended

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, and request a checkpoint, except at the end, when the student itself is saved."""
        seconds = self.trainer.train_seconds - self._before[1]
        tokens = over_workers(self.trainer, self.trainer.tokens - self._before[0])
        self._line = {
            "label_tokens": self.trainer.step_labels,
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1),
            "memory_bytes": _memory_bytes(),
        }
        if self.trainer.held_out and (state.global_step % self.config.eval_steps == 0 or state.global_step == state.max_steps):
            self._line["held_out_loss"] = _finite(self._measure(args))
        control.should_save = state.global_step % self.config.checkpoint_steps == 0 and state.global_step < state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write the line of a step, and the progress."""
        if not args.should_save or logs is None or "loss" not in logs:
            return
        named = {"loss": logs["loss"], "learning_rate": logs["learning_rate"], "gradient_norm": logs.get("grad_norm")}
        self.metrics.add({"step": state.global_step, **{name: _finite(value) for name, value in named.items()}, **self._line})
        self.progress.step(state.global_step, state.max_steps, logs["loss"], self._line["tokens_per_second"])
        if control.should_save:
            self.progress.words(f"step {state.global_step} of {state.max_steps}: saving a checkpoint")

    def _measure(self, args: Any) -> float:
        started = time.perf_counter()
        found = self.trainer.held_out_loss(lambda words: self.progress.words(words, often=True))
        self.measured.append(found)
        if args.should_save:
            self._held_out_log.add({"step": found.step, "losses": found.losses, "labels": found.labels})
        if self.config.keep_best and lowest(self.measured) is found:
            self.progress.words(f"saving the best weights, those of step {found.step}")
            self.save_best(found.step)
        self.eval_seconds += time.perf_counter() - started
        return found.mean


def over_workers(trainer: CompletionTrainer, value: int) -> int:
    """The sum of a number over all workers."""
    if trainer.accelerator.num_processes == 1:
        return value
    return int(trainer.accelerator.gather(torch.tensor([value], device=trainer.accelerator.device)).sum())


def outdated(folder: Path, step: int) -> list[Path]:
    """The saved best weights that no resumed training needs: all but the newest, and the newest up to a checkpoint's step."""
    saved = sorted(folder.glob("step-*"), key=step_of)
    needed = {*saved[-1:], *[path for path in saved if step_of(path) <= step][-1:]}
    return [path for path in saved if path not in needed]


def step_of(path: Path) -> int:
    """The step in the name of a folder."""
    return int(path.name.rpartition("-")[2])


def _memory_bytes() -> int:
    """Peak memory of the tensors on this worker's GPU; without one, the memory of its process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def _finite(value: float | None) -> float | None:
    """JSON has no other numbers."""
    return value if value is not None and math.isfinite(value) else None
