"""PMI decoding: the scores that replace the logits of samples with a contrast (`protocol.Contrast`)."""

from collections.abc import Sequence

import torch

from limbeck.cluster.engines.protocol import Contrast

_ROWS = 32  # rows per chunk, so that its float32 copies stay in the CPU cache


def contrasted(logits: torch.Tensor, contrasts: Sequence[tuple[Contrast | None, torch.Tensor | None]]) -> torch.Tensor:
    """Return the logits [rows, vocabulary] with the scores of rows that have a contrast in their place (then in float32).

    `contrasts`: per row its contrast and the logits [vocabulary] without the source. A score is a logit minus `weight` · log q;
    the normaliser of log p is the same for all tokens of a row, so no draw depends on it, and with weight 0 a row is unchanged.
    """
    rows = [(row, contrast, shadow) for row, (contrast, shadow) in enumerate(contrasts) if contrast is not None]
    if not rows:
        return logits
    scores = logits.to(torch.float32, copy=True)
    for start in range(0, len(rows), _ROWS):
        chunk = rows[start : start + _ROWS]
        places = [row for row, _, _ in chunk]
        column = [[(contrast.weight, contrast.min_entropy)] for _, contrast, _ in chunk]
        weight, bound = torch.tensor(column, device=logits.device).unbind(-1)  # [chunk, 1]
        mine = scores[places]
        without = torch.log_softmax(torch.stack([shadow for _, _, shadow in chunk if shadow is not None]).float(), -1)
        without = without.masked_fill(without == -torch.inf, 0.0)  # a token that the model never draws has no PMI
        unsure = torch.special.entr(torch.softmax(mine, -1)).sum(-1, keepdim=True) >= bound
        scores[places] = torch.where(unsure & (weight > 0), mine - weight * without, mine)
    return scores
