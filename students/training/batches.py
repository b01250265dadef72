"""Rows in batches: which rows meet in an optimiser step and in a forward pass, and the tensors of a forward pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from limbeck.students.training.config import TrainingConfig
from limbeck.students.training.rows import Row


def training_order(rows: Sequence[Row], config: TrainingConfig, seed: int) -> list[int]:
    """The rows in training order, all epochs in one list; rows that are too long are skipped.

    Each batch is a random draw, and rows are sorted by length only within it: micro-batches then need little padding, and the
    gradient is that of the random batch. With `packing: prompts`, what is drawn are prompts with all their rows.
    """
    usable = [row for row, one in enumerate(rows) if len(one.ids) <= config.max_sequence_tokens]
    drawn = by_prompt(usable, rows) if config.packing == "prompts" else [[row] for row in usable]
    generator = np.random.default_rng(seed)
    order = [row for _ in range(config.epochs) for group in generator.permutation(len(drawn)) for row in drawn[group]]
    batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    return [row for batch in batches for row in sorted(batch, key=lambda row: (-len(rows[row].ids), row))]


def micro_batches(order: Sequence[int], rows: Sequence[Row], config: TrainingConfig) -> list[list[int]]:
    """The rows of every forward pass: those of a step follow each other, and worker w of W has every W-th from the w-th on.

    All steps but the last have the same number. Workers without rows in the last step get an empty list. Without packing, a
    forward pass has `micro_batch_size` rows. With it, the passes of a step have about as many tokens each, and at most as many
    as `micro_batch_size` rows of the step's longest.
    """
    found: list[list[int]] = []
    for start in range(0, len(order), config.batch_size):
        step = order[start : start + config.batch_size]
        chunks = [list(step[first : first + config.micro_batch_size]) for first in range(0, len(step), config.micro_batch_size)]
        chunks += [[] for _ in range(-len(chunks) % config.workers)]
        found += chunks if config.packing == "none" else _balanced(chunks, rows, config)
    return found


def _balanced(chunks: list[list[int]], rows: Sequence[Row], config: TrainingConfig) -> list[list[int]]:
    """The same rows in as many forward passes of similar size; the given ones if that would need more tokens in one pass."""
    step = [row for chunk in chunks for row in chunk]
    most = config.micro_batch_size * max(len(rows[row].ids) for row in step)
    groups = by_prompt(step, rows) if config.packing == "prompts" else [[row] for row in step]
    pieces = [piece for group in groups for piece in _pieces(group, rows, most)]
    passes: list[list[int]] = [[] for _ in chunks]
    sizes = [0] * len(chunks)
    for piece in sorted(pieces, key=lambda piece: -packed_tokens(piece, rows)):
        least = min(range(len(passes)), key=sizes.__getitem__)
        passes[least] += piece
        sizes[least] += packed_tokens(piece, rows)
    return passes if max(sizes) <= most else chunks


def _pieces(group: list[int], rows: Sequence[Row], most: int) -> list[list[int]]:
    """The rows of one prompt in pieces of at most so many tokens; a single row always fits."""
    pieces = [group[:1]]
    for row in group[1:]:
        if packed_tokens([*pieces[-1], row], rows) <= most:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return pieces


def packed_tokens(group: Sequence[int], rows: Sequence[Row]) -> int:
    """The tokens of rows with the same prompt in one sequence: the prompt once, its last token once per completion."""
    if len(group) == 1:
        return len(rows[group[0]].ids)
    shared = rows[group[0]].prompt_length - 1
    return shared + sum(len(rows[row].ids) - shared for row in group)


def by_prompt(chosen: Sequence[int], rows: Sequence[Row]) -> list[list[int]]:
    """Rows with the same prompt together, in the order of the first of each; a prompt of one token is not worth sharing."""
    groups: dict[Any, list[int]] = {}
    for row in chosen:
        prompt = rows[row].ids[: rows[row].prompt_length]
        groups.setdefault(prompt.tobytes() if len(prompt) > 1 else row, []).append(row)
    return list(groups.values())


def shared_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The same for rows themselves."""
    return [[rows[number] for number in group] for group in by_prompt(range(len(rows)), rows)]


def by_length(rows: Sequence[Row], rows_per_batch: int) -> list[list[Row]]:
    """Rows in batches of similar length, longest first."""
    ranked = sorted(rows, key=lambda row: -len(row.ids))
    return [ranked[start : start + rows_per_batch] for start in range(0, len(ranked), rows_per_batch)]


def padded(rows: Sequence[Row], padding: int) -> dict[str, Any]:
    """One row per sequence, padded on the right: input_ids, labels and attention_mask.  # [rows, longest]

    Without rows, one token without a label, for which every worker of a group can run the model.
    """
    import torch

    shape = max(1, len(rows)), max([1, *(len(row.ids) for row in rows)])
    ids, labels, mask = torch.full(shape, padding), torch.full(shape, -100), torch.zeros(shape, dtype=torch.long)
    for place, row in enumerate(rows):
        tokens = len(row.ids)
        ids[place, :tokens] = torch.from_numpy(row.ids.astype(np.int64))
        labels[place, :tokens] = torch.tensor(row.labels)
        mask[place, :tokens] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}
