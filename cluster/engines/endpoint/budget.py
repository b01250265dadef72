"""Spending on a server, and whether another request could exceed the budget.

The worst case of a request (its prompt and every token it may draw) is reserved before it is sent, and corrected by its answer.
An unknown outcome (a cut connection, a timeout) counts as the worst case: the server may have billed it.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from limbeck.cluster.engines.endpoint.config import EndpointBudget
from limbeck.corpus.errors import LimbeckError

Tokens = tuple[int, int]
"""Prompt tokens and drawn tokens."""


@dataclass
class Ledger:
    """Tokens spent or reserved, in memory or (with `budget.ledger`) in a file shared by several processes.

    Reserved tokens are written as spent at once, so that those of a dead process stay counted.
    """

    budget: EndpointBudget
    taken: list[int] = field(default_factory=lambda: [0, 0])  # spent or reserved, by all processes that share the ledger
    own: list[int] = field(default_factory=lambda: [0, 0])  # spent or reserved, by this engine
    set_aside: list[int] = field(default_factory=lambda: [0, 0])  # of these, not yet settled

    def reserve(self, worst: Tokens) -> bool:
        """Reserve a request's worst case; returns False, without reserving, if that could exceed the budget."""
        with self._shared() as taken:
            if not self._allows([taken[0] + worst[0], taken[1] + worst[1]]):
                return False
            _add(taken, worst, 1)
        _add(self.own, worst, 1)
        _add(self.set_aside, worst, 1)
        return True

    def settle(self, worst: Tokens, spent: Tokens) -> None:
        """Replace the reservation of a request by its actual use."""
        if spent != worst:
            with self._shared() as taken:
                _add(taken, worst, -1)
                _add(taken, spent, 1)
        _add(self.own, worst, -1)
        _add(self.own, spent, 1)
        _add(self.set_aside, worst, -1)
        assert min(self.set_aside) >= 0, "a request was settled twice"

    def money(self, tokens: list[int]) -> float:
        """The price of tokens (prompt, drawn)."""
        prices = self.budget.price_per_million_input, self.budget.price_per_million_output
        return (tokens[0] * prices[0] + tokens[1] * prices[1]) / 1e6

    def spent_money(self) -> float:
        """The price of what this engine has spent, excluding unsettled requests."""
        return self.money([whole - open_ for whole, open_ in zip(self.own, self.set_aside, strict=True)])

    def spent(self, worst: Tokens) -> LimbeckError:
        """The error that stops a run because its next request, of `worst` tokens, could exceed the budget."""
        limits = []
        with self._shared() as taken:
            if self.budget.tokens is not None:
                limits.append(f"{sum(taken):,} of {self.budget.tokens:,} tokens")
            if self.budget.money is not None:
                limits.append(f"{self.money(taken):.4f} of {self.budget.money:g} in money")
            tokens = f"{taken[0]:,} prompt and {taken[1]:,} drawn tokens"
        return LimbeckError(
            f"the endpoint's budget is spent: {' and '.join(limits)} ({tokens}), and the next request could take {sum(worst):,} "
            "more; raise budget and rerun to resume"
        )

    def _allows(self, taken: list[int]) -> bool:
        tokens, money = self.budget.tokens, self.budget.money
        return (tokens is None or sum(taken) <= tokens) and (money is None or self.money(taken) <= money)

    @contextmanager
    def _shared(self) -> Iterator[list[int]]:
        """The shared total, to read and change; other processes are locked out for the duration of the block."""
        if self.budget.ledger is None:
            yield self.taken
            return
        with _opened(Path(self.budget.ledger)) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            before = _read(handle, self.budget.ledger)
            taken = list(before)
            yield taken
            if taken != before:
                # one in-place write of a fixed length: a process that is killed here leaves a complete line
                os.pwrite(handle.fileno(), json.dumps(taken).ljust(63).encode() + b"\n", 0)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        handle = path.open("r+b", buffering=0)
    except OSError as error:
        raise LimbeckError(f"the budget's ledger {path} cannot be written ({error.strerror}); name another file") from error
    with handle:
        yield handle


def _read(handle: IO[bytes], name: str) -> list[int]:
    content = handle.read()
    if not content:
        return [0, 0]
    try:
        prompt, drawn = json.loads(content)
        return [int(prompt), int(drawn)]
    except (ValueError, TypeError) as error:
        raise LimbeckError(
            f"the budget's ledger {name} is damaged; replace its content with [PROMPT_TOKENS, OUTPUT_TOKENS]"
        ) from error


def _add(total: list[int], tokens: Tokens, sign: int) -> None:
    total[0] += sign * tokens[0]
    total[1] += sign * tokens[1]
