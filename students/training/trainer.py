"""TRL's SFT trainer with four changes: batches are ours, the output layer runs only at labelled positions, checkpoints are
atomic, and the seconds spent in the model are counted. Heavy imports: only training workers import this module."""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.sft_trainer import SFTTrainer

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.files import flush_contents
from limbeck.students.training.batches import padded
from limbeck.students.training.config import TrainingConfig
from limbeck.students.training.held_out import HeldOutLoss
from limbeck.students.training.packing import packed
from limbeck.students.training.rows import Row
from limbeck.students.training.settings import Settings

CHECKPOINT = "checkpoint-"
WRITING = ".writing-"


class CompletionTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for causal language models whose `forward` takes `logits_to_keep`."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the labels of the whole accumulated batch

    def __init__(
        self,
        model: Any,
        arguments: Any,
        *,
        settings: Settings[TrainingConfig],
        batches: Sequence[Sequence[Row]],
        held_out: Sequence[Sequence[Row]],
        processing_class: Any,
        peft_config: Any = None,
    ) -> None:
        """`batches`: the rows of every forward pass in order; `held_out`: those of the passes that measure the held-out loss."""
        padding = processing_class.pad_token_id
        self.settings, self.padding = settings, 0 if padding is None else padding
        self.batches, self.held_out = batches, held_out
        super().__init__(
            model,
            arguments,
            train_dataset=Dataset.from_dict({"batch": range(len(batches))}),
            data_collator=lambda items: self.collate(batches[items[0]["batch"]]),
            processing_class=processing_class,
            peft_config=peft_config,
        )
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the labels of the whole accumulated batch
        self.checkpoints = settings.training / "checkpoints"
        self.train_seconds = self.save_seconds = self.backward_ended = 0.0
        self.tokens = self.step_labels = 0

    def collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The inputs of a forward pass over some rows, of which there may be none; `tokens` is how many the rows have."""
        how = self.settings.config.packing
        inputs = padded(rows, self.padding) if how == "none" else packed(rows, share_prompts=how == "prompts")
        return {**inputs, "tokens": sum(len(row.ids) for row in rows)}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return a micro-batch's summed loss over the number of labels in the whole optimiser step, over all workers."""
        self.tokens += inputs["tokens"]
        labels = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != -100).sum().clamp(min=1)
        self.step_labels = int(labels)
        loss = self.summed_loss(model, inputs) / labels
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over the workers, whose labels are summed
        return (loss, {}) if return_outputs else loss

    def summed_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of a micro-batch, summed over its labels. Other methods override it."""
        return completion_loss(model, inputs)[0]

    def own_metrics(self) -> dict[str, Any]:
        """Metrics that only this method has, for training.json. Other methods override it."""
        return {}

    def held_out_loss(self, report: Callable[[str], None]) -> HeldOutLoss:
        """Measure the loss on the held-out rows, shared among the workers; `report` is told how far it has got."""
        model, workers = self.model_wrapped, self.accelerator.num_processes
        sums = torch.zeros(len(self.held_out), 2, dtype=torch.float64)  # [batches, (loss, labels)]
        model.eval()
        for first in range(0, len(self.held_out), workers):
            report(f"measuring the held-out loss, batch {first + 1} of {len(self.held_out)}")
            number = first + self.accelerator.process_index
            inputs = self._prepare_inputs(self.collate(self.held_out[number] if number < len(self.held_out) else ()))
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.summed_loss(model, inputs)
            if number < len(self.held_out):
                sums[number] = torch.tensor([float(loss), int((inputs["labels"][:, 1:] != -100).sum())])
        model.train()
        losses, labels = self.accelerator.reduce(sums.to(self.accelerator.device)).T.tolist()
        return HeldOutLoss(self.state.global_step, tuple(losses), tuple(int(count) for count in labels))

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """One micro-batch forward and backward, timed."""
        started = time.perf_counter()
        loss: torch.Tensor = super().training_step(*arguments, **named)
        if loss.is_cuda:
            torch.cuda.synchronize()
        self.backward_ended = time.perf_counter()
        self.train_seconds += self.backward_ended - started
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Set and return a schedule with a nonzero first rate (the library's starts at zero and loses one step in eight)."""
        if self.lr_scheduler is None:
            shape, warmup = self.args.lr_scheduler_type.value, int(self.args.warmup_steps)
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: rate_factor(step, num_training_steps, warmup, shape)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_output_dir(self, trial: Any) -> str:
        """Folder of a checkpoint while it is written."""
        return str(self.checkpoints / f"{WRITING}{self.state.global_step}")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        started = time.perf_counter()
        writing = Path(self._get_output_dir(trial))
        if self.args.should_save:
            shutil.rmtree(writing, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        with disk_errors(self.checkpoints):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                publish_checkpoint(
                    writing / f"{CHECKPOINT}{self.state.global_step}", self.checkpoints, self.settings.config.keep_checkpoints
                )
        self.accelerator.wait_for_everyone()
        self.save_seconds += time.perf_counter() - started

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write no card: checkpoints are temporary."""


def rate_factor(step: int, steps: int, warmup: int, shape: str) -> float:
    """The share of the full learning rate at a step (from 0): linear warm-up, then linear, cosine or constant_with_warmup."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "constant_with_warmup": 1.0}[shape]


def completion_loss(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return the negative log-likelihood summed over the labels that are not -100, and the model's outputs.

    Raises LimbeckError for a model with virtual tokens (prompt or prefix tuning): its positions are not those of the labels.

    Equal to the plain loss, but only positions before a label of some row reach the output layer (`logits_to_keep`): with a
    vocabulary of 49k and one label in seven tokens, that is a fifth of the work and most of the memory of a step.
    """
    _refuse_virtual_tokens(model)
    following = inputs["labels"][:, 1:]  # [batch, tokens - 1]: the label that position t predicts
    wanted = following != -100
    positions = wanted.any(dim=0).nonzero().squeeze(-1)  # [kept]
    outputs = model(**attended(inputs), logits_to_keep=positions, use_cache=False)
    kept = wanted[:, positions]  # [batch, kept]
    logits = outputs.logits[kept].float()  # [labels, vocabulary]
    return torch.nn.functional.cross_entropy(logits, following[:, positions][kept], reduction="sum"), outputs


def attended(inputs: dict[str, Any]) -> dict[str, Any]:
    """What a model needs of a batch: the ids, and if rows are packed their positions and segments.

    No attention mask: causal attention ignores padding on the right and runs faster without one, and segments replace it.
    """
    return {name: inputs[name] for name in ("input_ids", "position_ids", "segments") if name in inputs}


def _refuse_virtual_tokens(model: Any) -> None:
    inner = getattr(model, "module", model)  # of a distributed or DeepSpeed wrapper
    for name, config in getattr(inner, "peft_config", {}).items():
        if getattr(config, "is_prompt_learning", False):
            raise LimbeckError(
                f"the adapter {name!r} ({config.peft_type.value}) puts {config.num_virtual_tokens} virtual tokens before each "
                "row, which the loss on completions cannot place; use LoRA, or train every weight"
            )


def publish_checkpoint(written: Path, folder: Path, keep: int) -> None:
    """Flush a written checkpoint to disk, rename it into `folder`, and delete all but the `keep` newest."""
    flush_contents(written)
    target = folder / written.name
    if not target.exists():
        os.rename(written, target)
    shutil.rmtree(written.parent, ignore_errors=True)
    for old in whole_checkpoints(folder)[:-keep]:
        hidden = old.with_name(f"{WRITING}{old.name}")  # so that a half-deleted folder does not count as a checkpoint
        os.rename(old, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def whole_checkpoints(folder: Path) -> list[Path]:
    """The published checkpoints of a training, oldest first."""
    return sorted(folder.glob(f"{CHECKPOINT}*"), key=lambda path: int(path.name.removeprefix(CHECKPOINT)))


def remove_unfinished(folder: Path) -> None:
    """Delete partial checkpoints of a killed training."""
    for path in folder.glob(f"{WRITING}*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, which every library reports differently, into a LimbeckError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or "No space left" in str(error) or "failed writing" in str(error):
            raise LimbeckError(
                f"cannot write a checkpoint to {folder}: {error}; free some space or choose another --out"
            ) from error
        raise
