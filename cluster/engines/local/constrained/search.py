"""NeuroLogic decoding (Lu et al. 2021, arXiv 2010.12884): a beam search that prefers hypotheses which meet more clauses.

A search knows no model: it is given log-probabilities of the next tokens, and says which hypotheses it needs next. Without
clauses it is plain beam search.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from limbeck.cluster.engines.constraint import Constraint
from limbeck.cluster.engines.local.constrained.tracker import State, Tracker


@dataclass(frozen=True)
class Hypothesis:
    """A text: its tokens without the end token, the sum of its log-probabilities, and the clauses that it meets."""

    tokens: tuple[int, ...]
    score: float
    state: State
    drawn: int = 0  # tokens, with the end token
    ended: bool = False  # by an end token or a stop string


class Search:
    """The beam search of one prompt. `live` are the hypotheses whose continuations it needs; when it is `done`, none.

    `ends` are end tokens, and a hypothesis is cut after `max_new_tokens`. `places`: how many of the best finished hypotheses are
    wanted; the search ends once no live one can overtake them.
    """

    def __init__(
        self, constraint: Constraint, tracker: Tracker, ends: Collection[int], max_new_tokens: int, places: int = 1
    ) -> None:
        """Start with the empty text."""
        self.constraint, self.max_new_tokens, self.places = constraint, max_new_tokens, places
        self._tracker, self._ends = tracker, sorted(ends)
        self.live = [Hypothesis((), 0.0, State())]
        self._finished: list[Hypothesis] = []
        self._stopped: dict[tuple[int, ...], Hypothesis] = {}  # by a stop string, in this step
        self.step = 0

    @property
    def done(self) -> bool:
        """Whether no hypothesis needs to be continued."""
        return not self.live

    def advance(self, logprobs: torch.Tensor) -> list[int]:
        """Continue every live hypothesis by logprobs [live, vocabulary]; return the former number of each new one's parent."""
        self.step += 1
        total = (
            logprobs.double() + torch.tensor([h.score for h in self.live], dtype=torch.float64, device=logprobs.device)[:, None]
        )
        self._finish(total)
        self._stopped = {}
        chosen = self._select(self._candidates(total))
        self._keep(list(self._stopped.values()))
        self.live = [hypothesis for _, hypothesis in chosen]
        if self.step >= self.max_new_tokens:
            self._keep(self.live)
            self.live = []
        elif self._settled():
            self.live = []
        return [parent for parent, _ in chosen] if self.live else []

    def results(self) -> list[Hypothesis]:
        """The hypotheses, best first: those that meet more clauses, then those that ended, then by normalised score."""
        return self._finished

    def normalised(self, hypothesis: Hypothesis) -> float:
        """The score by which hypotheses of different lengths are compared."""
        return hypothesis.score / math.pow(hypothesis.drawn, self.constraint.length_penalty)

    def _finish(self, total: torch.Tensor) -> None:
        """Keep the hypotheses that may end here, and whose end token is among the best of their row."""
        width = total.shape[-1]
        rows = [row for row, h in enumerate(self.live) if self._tracker.may_end(h.state)]
        ends = [end for end in self._ends if end < width]
        if not rows or not ends:
            return
        limit = width if self.constraint.early_stop is None else int(self.constraint.early_stop * self.constraint.beams)
        scores = total[rows][:, ends]  # [rows, ends]
        ranks = torch.stack([(total[rows] > scores[:, i, None]).sum(-1) for i in range(len(ends))], -1)
        found = [
            Hypothesis(self.live[row].tokens, score, self.live[row].state, self.step, ended=True)
            for row, values, places in zip(rows, scores.tolist(), ranks.tolist(), strict=True)
            for score, place in zip(values, places, strict=True)
            if place < limit and score > -math.inf
        ]
        self._keep(found)

    def _keep(self, hypotheses: Sequence[Hypothesis]) -> None:
        ranked = sorted((*self._finished, *hypotheses), key=self._merit, reverse=True)
        self._finished = ranked[: self.constraint.beams]

    def _merit(self, hypothesis: Hypothesis) -> tuple[int, bool, float]:
        return self._tracker.count(hypothesis.state), hypothesis.ended, self.normalised(hypothesis)

    def _settled(self) -> bool:
        """Whether no live hypothesis can become better than the ones that are wanted: scores only fall."""
        if not self.live or len(self._finished) < self.places:
            return not self.live
        best = max(h.score for h in self.live) / math.pow(self.max_new_tokens, self.constraint.length_penalty)
        return self.normalised(self._finished[self.places - 1]) >= best

    def _candidates(self, total: torch.Tensor) -> list[tuple[int, Hypothesis]]:
        """The `beams` best valid continuations of all rows; of the `prune` best ones, up to `beams` per row and proposals."""
        beams, width = self.constraint.beams, total.shape[-1]
        floor = self._floor(total)
        deep = min(width, 2 * beams + len(self._ends))
        while True:
            found, enough = self._best(total, deep, floor)
            if enough or deep == width:
                break
            deep = min(width, 4 * deep)  # many of the best tokens are invalid
        have = {(parent, h.tokens[-1]) for parent, h in found}
        pairs = [
            (row, token)
            for row, h in enumerate(self.live)
            for token in sorted(self._tracker.proposals(h.state))
            if token < width and (row, token) not in have
        ]
        if pairs:
            rows, tokens = zip(*pairs, strict=True)
            scores = total[list(rows), list(tokens)].tolist()
            kept = ((*pair, score) for pair, score in zip(pairs, scores, strict=True) if score >= floor)
            found += [(row, child) for row, token, score in kept if (child := self._child(row, token, score))]
        return found

    def _floor(self, total: torch.Tensor) -> float:
        """The score of the continuation at rank `prune` among all."""
        prune = self.constraint.prune
        if prune is None or prune >= total.numel():
            return -math.inf
        flat = total.flatten()
        return float(torch.topk(flat, prune).values[-1] if prune <= 4096 else flat.kthvalue(len(flat) - prune + 1).values)

    def _best(self, total: torch.Tensor, deep: int, floor: float) -> tuple[list[tuple[int, Hypothesis]], bool]:
        """The candidates among the `deep` best tokens of each row, and whether no further token can be one."""
        beams, width = self.constraint.beams, total.shape[-1]
        values, ids = torch.topk(total, deep, dim=-1)
        entries = [
            (score, row, token)
            for row, (scores, tokens) in enumerate(zip(values.tolist(), ids.tolist(), strict=True))
            for score, token in zip(scores, tokens, strict=True)
        ]
        entries.sort(key=lambda entry: (-entry[0], *entry[1:]))
        per_row = [0] * len(self.live)
        found: list[tuple[int, Hypothesis]] = []
        for score, row, token in entries:
            if len(found) >= beams and score < floor:
                break
            if len(found) >= beams and per_row[row] >= beams:
                continue
            if child := self._child(row, token, score):
                found.append((row, child))
                per_row[row] += 1
        last = [float(scores[-1]) for scores in values]
        short = [row for row, count in enumerate(per_row) if count < beams and (len(found) < beams or last[row] >= floor)]
        return found, not any(last[row] > -math.inf for row in short) or deep == width

    def _child(self, row: int, token: int, score: float) -> Hypothesis | None:
        """A continuation that does not end, or None if it is not allowed; one that a stop string ends is noted."""
        parent = self.live[row]
        if token in self._ends or score == -math.inf or self._repeats(parent.tokens, token):
            return None
        state = self._tracker.advance(parent.state, token)
        tokens = (*parent.tokens, token)
        if state.stopped:
            if not self.constraint.unmet(self._tracker.text(tokens)):  # without the stop string
                self._stopped[tokens] = Hypothesis(tokens, score, state, self.step, ended=True)
            return None
        last = self.step >= self.max_new_tokens
        if (state.reached if last else state.met) & self._tracker.negative:
            return None
        return Hypothesis(tokens, score, state, self.step)

    def _repeats(self, tokens: tuple[int, ...], token: int) -> bool:
        size = self.constraint.no_repeat_ngram
        if not size or len(tokens) < size:
            return False
        newest = (*tokens[len(tokens) - size + 1 :], token)
        return any(tokens[start : start + size] == newest for start in range(len(tokens) - size + 1))

    def _select(self, candidates: Sequence[tuple[int, Hypothesis]]) -> list[tuple[int, Hypothesis]]:
        """Up to `beams` candidates: the best of every group that meets the same clauses, then the second of each, and so on."""
        tolerance = self.constraint.tolerance
        counts = [self._tracker.count(h.state) for _, h in candidates]
        if tolerance is not None and candidates:
            floor = max(counts) - tolerance
            candidates = [candidate for candidate, count in zip(candidates, counts, strict=True) if count >= floor]
        groups: dict[int, list[tuple[int, Hypothesis]]] = {}
        ranks = {h.tokens: self._rank(h) for _, h in candidates}
        for candidate in sorted(candidates, key=lambda c: (-ranks[c[1].tokens], c[1].tokens)):
            groups.setdefault(candidate[1].state.reached & self._tracker.positive, []).append(candidate)
        chosen: list[tuple[int, Hypothesis]] = []
        for tier in _tiers(list(groups.values())):
            chosen += sorted(tier, key=lambda c: (-ranks[c[1].tokens], c[1].tokens))[: self.constraint.beams - len(chosen)]
        return chosen

    def _rank(self, hypothesis: Hypothesis) -> float:
        mean = hypothesis.score / self.step
        if not self.constraint.progress:
            return mean
        share = self._tracker.progress(hypothesis.state)
        return mean - self.constraint.progress * math.log(share) if share else mean


def _tiers(groups: Sequence[Sequence[tuple[int, Hypothesis]]]) -> Iterator[list[tuple[int, Hypothesis]]]:
    for place in range(max((len(group) for group in groups), default=0)):
        yield [group[place] for group in groups if len(group) > place]
