"""The trainer of distillation: the loss at every label is the divergence from the teacher's distribution there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from limbeck.cluster.engines.devices import loaded_as
from limbeck.cluster.engines.local.live import LiveSampler
from limbeck.cluster.engines.precision import bf16_on
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.distil import SAMPLING_CACHE_BYTES, DistilConfig
from limbeck.students.losses.chunked import Head, cached_loss, distillation_loss, label_loss, paired_positions
from limbeck.students.losses.divergences import ULD, Divergence
from limbeck.students.training import packing
from limbeck.students.training.batches import shared_groups
from limbeck.students.training.heads import Asked, head_of, hidden_states, learn_through, student_of
from limbeck.students.training.on_policy import OnPolicy
from limbeck.students.training.rows import Row, read_rows, rendered
from limbeck.students.training.settings import Settings
from limbeck.students.training.teacher_cache import TeacherCache, first_label, row_key
from limbeck.students.training.trainer import CompletionTrainer, attended

Loss = Callable[[Tensor, Head], Tensor]


class Teacher(Protocol):
    """What knows the teacher's distributions at the labels of a micro-batch."""

    def loss(self, inputs: dict[str, Any], wanted: Tensor, labels: Tensor) -> Loss:
        """The summed loss of the student's hidden states at the `wanted` positions, whose next tokens are `labels`."""
        ...


class DistillationTrainer(CompletionTrainer):
    """Trains on the teacher's distributions; batches, checkpoints and normalisation are those of every student."""

    def __init__(self, *arguments: Any, settings: Settings[DistilConfig], **named: Any) -> None:
        super().__init__(*arguments, settings=settings, **named)
        config, student = settings.config, student_of(self.model)
        self.on_policy: OnPolicy | None = None
        if config.on_policy is not None:  # the sampler keeps the forward pass that the student has now
            sampler = LiveSampler(student, settings.base, self.processing_class, SAMPLING_CACHE_BYTES)
            self.on_policy = OnPolicy(config.on_policy, sampler, settings.seed, self.args.process_index)
        learn_through(student)
        longest = max(len(row.ids) for batch in (*self.batches, *self.held_out) for row in batch)
        self.teacher = teacher_of(settings, self.processing_class, self.args.device, longest)

    def summed_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The divergence from the teacher, and the labels' own loss by its weight, summed over a micro-batch's labels."""
        following = inputs["labels"][:, 1:]  # [batch, tokens - 1]: the label that position t predicts
        wanted = torch.nn.functional.pad(following != -100, (0, 1))  # [batch, tokens]
        loss = self.teacher.loss(inputs, wanted, following[following != -100])
        summed: Tensor = model(**attended(inputs), use_cache=False, asked=Asked(wanted, loss))
        return summed

    def collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The inputs of a forward pass, and `rows`: the rows in the order of their labels."""
        shared = self.settings.config.packing == "prompts"
        ordered = [row for group in shared_groups(rows) for row in group] if shared else list(rows)
        return {**super().collate(rows), "rows": ordered}

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The micro-batches of an optimiser step, with samples of the student if it is their turn, and the number of labels."""
        batches, labels = super().get_batch_samples(*arguments)
        if self.on_policy is None or not batches:
            return batches, labels
        given = [row for batch in batches for row in batch["rows"]]
        rows = self.on_policy.rows(given, self.state.global_step, self.state.max_steps)
        if any(row is not old for row, old in zip(rows, given, strict=True)):
            after = iter(rows)
            batches = [self.collate([next(after) for _ in batch["rows"]]) for batch in batches]
        # counted again by every worker, of which some may train on samples and others not
        return batches, self._get_num_items_in_batch(batches, self.args.device)

    def own_metrics(self) -> dict[str, Any]:
        """Where the completions of this worker's steps came from: the dataset, fresh samples, or earlier ones."""
        return {} if self.on_policy is None else {"steps_by_source": self.on_policy.counts}

    def _save_rng_state(self, output_dir: str) -> None:
        """With the state of the random generators, keep the samples that may be used again."""
        super()._save_rng_state(output_dir)
        if self.on_policy is not None:
            self.on_policy.save(self._replay_file(output_dir))

    def train(self, resume_from_checkpoint: Any = None, **named: Any) -> Any:
        """Train, from the samples of a checkpoint if one is given."""
        if self.on_policy is not None and resume_from_checkpoint:
            self.on_policy.load(self._replay_file(resume_from_checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **named)

    def _replay_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"replay-{self.args.process_index}.json"


def teacher_of(settings: Settings[DistilConfig], tokenizer: Any, device: torch.device, longest: int) -> Teacher:
    """The teacher as the config wants it, for rows of up to `longest` tokens; raises LimbeckError if it cannot be used."""
    config = settings.config
    how = config.loss.divergence
    if config.cached_teacher is not None:
        assert settings.teacher_logprobs is not None, "drawn before the training"
        return CachedTeacher(TeacherCache(settings.teacher_logprobs), how, config.cross_entropy)
    model = load_teacher(settings.teacher, bf16_on(config.precision, settings.use_gpu), device)
    if how.kind != ULD:
        if config.packing != "none":
            packing.use(model, longest)
        return LiveTeacher(model, how, config.cross_entropy)
    return ForeignTeacher(model, paired_rows(settings, tokenizer), how, config.cross_entropy)


def load_teacher(folder: Path, bf16: bool, device: torch.device) -> Any:
    """A teacher's whole model in every process, for inference alone: ZeRO 3 divides the student's weights, not these."""
    from transformers import AutoModelForCausalLM
    from transformers.integrations import deepspeed

    reference = getattr(deepspeed, "_hf_deepspeed_config_weak_ref", None)
    announced = reference() if reference is not None else None
    deepspeed.unset_hf_deepspeed_config()
    try:
        with loaded_as(folder, "a causal language model"):
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.bfloat16 if bf16 else torch.float32, use_safetensors=True, local_files_only=True
            )
    finally:
        if announced is not None:
            deepspeed.set_hf_deepspeed_config(announced)
    return model.to(device).eval().requires_grad_(False)


class LiveTeacher:
    """A teacher in memory that reads the student's token ids."""

    def __init__(self, model: Any, how: Divergence, cross_entropy: float) -> None:
        self.model, self.head, self.how, self.cross_entropy = model, head_of(model), how, cross_entropy

    def loss(self, inputs: dict[str, Any], wanted: Tensor, labels: Tensor) -> Loss:
        """See `Teacher`."""
        with torch.no_grad():
            theirs = hidden_states(self.model, **attended(inputs))[wanted]
        return lambda hidden, head: distillation_loss(
            hidden, head, theirs, self.head, self.how, labels=labels, cross_entropy=self.cross_entropy
        )


class CachedTeacher:
    """A teacher's most likely tokens, drawn before the training."""

    def __init__(self, cache: TeacherCache, how: Divergence, cross_entropy: float) -> None:
        self.cache, self.how, self.cross_entropy = cache, how, cross_entropy

    def loss(self, inputs: dict[str, Any], wanted: Tensor, labels: Tensor) -> Loss:
        """See `Teacher`."""
        found = [self.cache.of(row.ids, first_label(row)) for row in inputs["rows"]]
        ids, logprobs, tail = (
            torch.from_numpy(np.concatenate([np.zeros((0, *shape), dtype), *parts])).to(wanted.device)
            for shape, dtype, parts in (
                ((self.cache.top_k,), np.int64, [one.ids.astype(np.int64) for one in found]),
                ((self.cache.top_k,), np.float32, [one.logprobs for one in found]),
                ((), np.float32, [one.tail for one in found]),
            )
        )

        def loss(hidden: Tensor, head: Head) -> Tensor:
            known = within(ids, logprobs, len(head.weight))
            return cached_loss(hidden, head, *known, tail, self.how, labels=labels, cross_entropy=self.cross_entropy)

        return loss


def within(ids: Tensor, logprobs: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The cached tokens with those beyond the student's rows, such as padding of the teacher's head, given no mass.

    Each is replaced by a token that is not among the others of its position: `cached_loss` normalises what is left.
    """
    beyond = ids >= rows
    if not bool(beyond.any()):
        return ids, logprobs
    order = beyond.int().argsort(dim=-1, stable=True)[:, :rows]  # the student's own tokens first; a position has up to `rows`
    ids, logprobs, beyond = (each.gather(-1, order) for each in (ids, logprobs, beyond))
    for place in beyond.any(-1).nonzero()[:, 0].tolist():
        own = int((~beyond[place]).sum())
        taken = torch.zeros(rows, dtype=torch.bool, device=ids.device)
        taken[ids[place, :own]] = True
        ids[place, own:] = (~taken).nonzero()[: ids.shape[1] - own, 0]
    return ids, logprobs.masked_fill(beyond, -torch.inf)


class ForeignTeacher:
    """A teacher in memory that reads the same text with its own tokenizer; distributions are compared by rank (ULD)."""

    def __init__(self, model: Any, rows: dict[bytes, Row], how: Divergence, cross_entropy: float) -> None:
        """`rows`: the teacher's tokens of each of the student's rows, by the student's."""
        self.model, self.head, self.rows, self.how, self.cross_entropy = model, head_of(model), rows, how, cross_entropy

    def loss(self, inputs: dict[str, Any], wanted: Tensor, labels: Tensor) -> Loss:
        """See `Teacher`; the labels of a completion are paired with the teacher's, up to the shorter of both."""
        ours = inputs["rows"]
        theirs = [self.rows[_key(row)] for row in ours]
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(row.ids.astype(np.int64)) for row in theirs], batch_first=True
        ).to(wanted.device)
        with torch.no_grad():
            states = hidden_states(self.model, input_ids=ids)
        hidden_theirs = torch.cat([states[place, first_label(row) - 1 : len(row.ids) - 1] for place, row in enumerate(theirs)])
        lengths = ([len(row.ids) - first_label(row) for row in rows] for rows in (ours, theirs))
        mine, other = (places.to(wanted.device) for places in paired_positions(*lengths))
        weight = self.cross_entropy

        def loss(hidden: Tensor, head: Head) -> Tensor:
            summed = distillation_loss(hidden[mine], head, hidden_theirs[other], self.head, self.how)
            return summed + weight * label_loss(hidden, head, labels) if weight else summed

        return loss


def paired_rows(settings: Settings[DistilConfig], tokenizer: Any) -> dict[bytes, Row]:
    """The dataset's rows as the teacher reads them, by the key of the student's."""
    from transformers import AutoTokenizer

    table = read_rows(settings.files)
    ours = rendered(table, tokenizer, end_tokens(settings.base))
    theirs = rendered(table, AutoTokenizer.from_pretrained(settings.teacher, local_files_only=True), end_tokens(settings.teacher))
    return {_key(mine): other for mine, other in zip(ours, theirs, strict=True)}


def _key(row: Row) -> bytes:
    return row_key("", row.ids, first_label(row))
