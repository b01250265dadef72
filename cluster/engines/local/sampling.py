"""Draw the next token: temperature, then top-k, then nucleus, as in Holtzman et al. 2020, without sorting the vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from limbeck.cluster.engines.protocol import Sampling

_CANDIDATES = 64  # most nuclei are smaller; a row with a larger nucleus is sorted completely
_ROWS = 32  # rows per chunk, so that its float32 copy stays in the CPU cache
NOT_A_NUMBER = -1
"""What `draw` returns for a row whose logits hold a NaN, or no finite value."""


@dataclass(frozen=True)
class Draw:
    """Sampling parameters of a row; `drawn` are its tokens so far."""

    sampling: Sampling
    seed: int
    step: int
    drawn: Sequence[int] = ()


def draw(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """Return one token id for each row of logits [rows, vocabulary]; NOT_A_NUMBER if none can be drawn.

    The uniform variate of a row depends on its seed and step only, so the result does not depend on the batch.
    """
    tokens = [NOT_A_NUMBER] * len(draws)
    uniforms = uniform([d.seed for d in draws], [d.step for d in draws])
    by_settings: dict[tuple[float, float, int], list[int]] = {}
    for row, d in enumerate(draws):
        by_settings.setdefault((d.sampling.temperature, d.sampling.top_p, d.sampling.top_k), []).append(row)
    for settings, rows in by_settings.items():
        for start in range(0, len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            scores = logits[chunk].float()  # a copy, so a penalty does not reach the caller's logits
            for place, row in enumerate(chunk):
                if penalty := draws[row].sampling.presence_penalty:
                    scores[place, sorted(set(draws[row].drawn))] -= penalty
            drawn = _draw_alike(scores, torch.from_numpy(uniforms[chunk]).to(scores.device), *settings)
            usable = torch.isfinite(scores.amax(-1)).tolist()  # amax propagates NaN
            for row, token, good in zip(chunk, drawn.tolist(), usable, strict=True):
                tokens[row] = token if good else NOT_A_NUMBER
    return tokens


def uniform(seeds: Sequence[int], steps: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return numbers in [0, 1), one per row, that depend on (seed, step) only: the SplitMix64 stream of Steele et al. 2014."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    mask = (1 << 64) - 1
    seed = np.array([s & mask for s in seeds], dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = _mix(seed + golden) + (np.array(steps, dtype=np.uint64) + np.uint64(1)) * golden
        return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _draw_alike(scores: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float, top_k: int) -> torch.Tensor:
    """Return token ids [rows] for float32 scores [rows, vocabulary] that share their settings; `scores` is not modified."""
    if temperature == 0.0 or top_k == 1:
        return scores.argmax(-1)
    scaled = scores / temperature
    vocabulary = scores.shape[-1]
    if not top_k and top_p >= 1.0:
        return _inverse(torch.softmax(scaled, -1, dtype=torch.float64), uniforms)
    values, ids = torch.topk(scaled, min(top_k or _CANDIDATES, vocabulary), dim=-1)
    normaliser = torch.logsumexp(values if top_k else scaled, -1, keepdim=True)
    probabilities = torch.exp(values - normaliser).double()  # [rows, candidates], descending
    if not top_k:
        short = probabilities.sum(-1) < top_p
        if values.shape[-1] < vocabulary and bool(short.any()):
            return _with_sorted_rows(scaled, uniforms, short, (probabilities, ids, normaliser), top_p)
    return ids.gather(-1, _inverse(_nucleus(probabilities, top_p), uniforms)[:, None])[:, 0]


def _with_sorted_rows(
    scaled: torch.Tensor, uniforms: torch.Tensor, short: torch.Tensor, found: tuple[torch.Tensor, ...], top_p: float
) -> torch.Tensor:
    """Draw from the candidates; for rows whose candidates do not reach `top_p`, from the sorted vocabulary."""
    probabilities, ids, normaliser = found
    tokens = ids.gather(-1, _inverse(_nucleus(probabilities, top_p), uniforms)[:, None])[:, 0]
    values, order = torch.sort(scaled[short], dim=-1, descending=True, stable=True)
    whole = _nucleus(torch.exp(values - normaliser[short]).double(), top_p)
    tokens[short] = order.gather(-1, _inverse(whole, uniforms[short])[:, None])[:, 0]
    return tokens


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero the tokens outside the smallest set of leading tokens whose mass reaches `top_p`; the first token is always kept."""
    before = probabilities.cumsum(-1) - probabilities
    keep = before < top_p
    keep[:, 0] = True
    return probabilities * keep


def _inverse(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return, per row of weights (float64, any sum), the index at which its cumulative share exceeds the row's uniform."""
    cumulated = weights.cumsum(-1)
    places = torch.searchsorted(cumulated, (uniforms * cumulated[:, -1])[:, None], right=True)[:, 0]
    last = (weights > 0).int().cumsum(-1).argmax(-1)  # rounding must not go past the last token with any weight
    return torch.minimum(places, last)
