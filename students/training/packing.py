"""Several rows in one sequence: each attends to itself alone, and a prompt that they share is there once.

A sequence consists of segments. A segment is a stem of tokens, and the branches that continue it: without sharing, the stem is a
whole row; with sharing, it is a prompt without its last token, and each branch is that token and a completion. The last token of
the prompt is repeated because it predicts the first token of every completion. Positions restart in every row, and a branch goes
on where its stem ends, so rotary and learned positions are those of separate rows.

Attention is computed segment by segment and needs no mask of the whole sequence: the stem causally, the branches together with a
mask over their own segment. A sequence of n rows thus costs what the rows cost, and not n times as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from limbeck.corpus.errors import LimbeckError
from limbeck.students.training.batches import shared_groups
from limbeck.students.training.rows import Row

ATTENTION = "limbeck_segments"
PROBE = ((5, 3), (5, 4), (2, 6))  # lengths of prompts and completions; the first two have the same prompt
MOST_DIFFERENCE = 1e-4  # of logits in float32, relative to the largest; rounding is about 1e-6


@dataclass(frozen=True)
class Segment:
    """Tokens `start` to `stop` of a sequence: a stem that ends before `fork`, then branches that follow `mask`."""

    start: int
    fork: int
    stop: int
    mask: torch.Tensor | None  # [branch tokens, segment tokens]: True where a token may attend; None: no branches

    def to(self, device: torch.device, **_: Any) -> "Segment":
        """The same with its mask on a device."""
        return Segment(self.start, self.fork, self.stop, None if self.mask is None else self.mask.to(device))


def packed(rows: Sequence[Row], *, share_prompts: bool) -> dict[str, Any]:
    """All rows in one sequence: input_ids, labels, position_ids [1, tokens] and its segments.

    Position t predicts label t + 1, as in a batch of separate rows: a row's first label is never learned. Without rows, one token
    without a label.
    """
    groups = shared_groups(rows) if share_prompts else [[row] for row in rows]
    ids, labels, positions, segments = list[int](), list[int](), list[int](), list[Segment]()
    for group in groups:
        start, first = len(ids), group[0]
        stem = first.prompt_length - 1 if len(group) > 1 else len(first.ids)
        branches = [row.ids[stem:].tolist() for row in group] if len(group) > 1 else []
        ids += first.ids[:stem].tolist()
        labels += [-100] * stem if branches else [-100, *first.labels[1:]]
        positions += range(stem)
        for row, branch in zip(group, branches, strict=bool(branches)):
            ids += branch
            labels += [-100, *row.labels[stem + 1 :]]
            positions += range(stem, stem + len(branch))
        mask = _mask(stem, [len(branch) for branch in branches]) if branches else None
        segments.append(Segment(start, start + stem, len(ids), mask))
    if not ids:
        ids, labels, positions, segments = [0], [-100], [0], [Segment(0, 1, 1, None)]
    tensors = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {**{name: torch.tensor(values)[None] for name, values in tensors.items()}, "segments": segments}


def _mask(stem: int, branches: Sequence[int]) -> torch.Tensor:
    """What the branches attend to: the stem, and the tokens of their own branch up to themselves."""
    branch = torch.from_numpy(np.repeat(np.arange(len(branches)), branches))  # [branch tokens]
    own = (branch[:, None] == branch[None, :]).tril()
    return torch.cat([torch.ones(len(branch), stem, dtype=torch.bool), own], dim=1)


def attention(
    module: Any,
    query: torch.Tensor,  # [1, heads, tokens, width]
    key: torch.Tensor,  # [1, key heads, tokens, width]
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Sequence[Segment] | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of every segment by itself, in the form that transformers calls; without segments, that of transformers."""
    if segments is None:
        answer: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return answer
    extra = sorted(name for name in ("softcap", "s_aux", "position_bias") if named.get(name) is not None)
    if extra:
        raise LimbeckError(f"packing cannot be used with this model, whose attention has {extra[0]}; set packing to none")
    key, value = (repeat_kv(each, query.shape[1] // key.shape[1]) for each in (key, value))
    attend = torch.nn.functional.scaled_dot_product_attention
    parts = []
    for one in segments:
        stem, whole, branches = slice(one.start, one.fork), slice(one.start, one.stop), slice(one.fork, one.stop)
        if one.fork > one.start:
            ours = query[:, :, stem], key[:, :, stem], value[:, :, stem]
            parts.append(attend(*ours, is_causal=True, scale=scaling, dropout_p=dropout))
        if one.mask is not None:
            theirs = query[:, :, branches], key[:, :, whole], value[:, :, whole]
            parts.append(attend(*theirs, attn_mask=one.mask, scale=scaling, dropout_p=dropout))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def use(model: Any, longest: int) -> None:
    """Let a model attend by segments; raises LimbeckError if it then gives other results than for separate rows.

    `longest`: the most tokens of a row. The model is tried on a few tokens, so an architecture that ignores positions, keeps a
    state from token to token, or computes attention by itself is found, whatever its name.
    """
    name = type(model).__name__
    windows = getattr(model.config.get_text_config(), "sliding_window", None)
    if isinstance(windows, int) and windows < longest:
        raise LimbeckError(
            f"packing cannot be used with {name}: its attention has a window of {windows} tokens, and rows have {longest}; set "
            "packing to none or lower max_sequence_tokens"
        )
    AttentionInterface.register(ATTENTION, attention)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    generator = np.random.default_rng(0)
    prompt = generator.integers(0, vocabulary, PROBE[0][0])
    rows = []
    for place, (before, after) in enumerate(PROBE):
        start = prompt if place < 2 else generator.integers(0, vocabulary, before)
        rows.append(Row(np.concatenate([start, generator.integers(0, vocabulary, after)]).astype(np.int32), before))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            apart = [_label_logits(model, {**packed([row], share_prompts=False), "segments": None}) for row in rows]
            model.set_attn_implementation(ATTENTION)
            together = _label_logits(model, packed(rows, share_prompts=True))
    except LimbeckError:
        raise
    except (TypeError, ValueError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise LimbeckError(f"packing cannot be used with {name} ({error}); set packing to none") from error
    finally:
        model.train(training)
    expected = torch.cat(apart)
    difference = float((together - expected).abs().max() / expected.abs().max())
    if not difference <= MOST_DIFFERENCE:
        raise LimbeckError(
            f"packing cannot be used with {name}: rows in one sequence influence each other (logits differ by {difference:.1e} "
            "of the largest); set packing to none"
        )


def _label_logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The logits that predict a label.  # [labels, vocabulary]"""
    given = {name: inputs[name] for name in ("input_ids", "position_ids", "segments") if inputs[name] is not None}
    logits: torch.Tensor = model(**given, use_cache=False).logits[0, :-1]
    return logits[inputs["labels"][0, 1:] != -100].float()
