"""Pending requests to a server, and the callers that wait for them."""

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import SecretStr

from limbeck.cluster.engines.endpoint.answers import Answer, Counts
from limbeck.cluster.engines.endpoint.budget import Tokens
from limbeck.cluster.engines.endpoint.dialect import Payload
from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.corpus.errors import LimbeckError

Form = tuple[object, ...]
SAMPLING = ("temperature", "top_p", "top_k", "presence_penalty")


@dataclass(eq=False)
class Job:
    """One request: body, path, reader of the answer, and the maximum of tokens (prompt, drawn) that it can take.

    A `tentative` job probes the server: an invalid answer, or any refusal, is reported and not retried.
    """

    path: str
    payload: Payload
    read: Callable[[bytes], Answer]
    worst: Tokens
    seed: int
    tentative: bool = False
    call: "Call | None" = None
    key: SecretStr | None = None  # with which it was last sent
    reserved: Tokens = (0, 0)  # the reserved worst case
    sent_at: float = 0.0
    blamed_from: float = 0.0  # if another request was answered after this moment, a fault is specific to this row
    failures: int = 0  # sends without an answer, for any reason: determines the back-off
    faults: int = 0  # of these, faults of the server or the connection
    own_faults: int = 0  # of these, faults while other rows were answered

    @cached_property
    def form(self) -> Form:
        """What the job has in common with other rows: a server that refuses the form refuses them all."""
        return self.path, *(self.payload.get(name) for name in SAMPLING), *sorted(self.payload.keys() - {"seed"})


@dataclass(frozen=True)
class Refusal:
    """A refusal by the server: its status and message. `advice`: what the user can change, if known."""

    status: int
    words: str
    advice: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: an answer, with the tokens (prompt, drawn) that it took, or the reason why it failed.

    `refusal` is set if the server refused the request, which may be the fault of the row or of all.
    """

    job: Job
    answer: Answer | None
    tokens: Tokens = (0, 0)
    error: str = ""
    refusal: Refusal | None = None


@dataclass(eq=False)
class Call:
    """One caller's jobs. The loop's thread puts outcomes, the caller's thread consumes them."""

    jobs: Sequence[Job]
    closed: bool = False  # the caller no longer waits
    _outcomes: "queue.SimpleQueue[Outcome | Exception]" = field(default_factory=queue.SimpleQueue)
    _undelivered: int = 0

    def __post_init__(self) -> None:
        """Link the jobs to this call."""
        self._undelivered = len(self.jobs)
        for job in self.jobs:
            job.call = self

    def put(self, outcome: Outcome) -> None:
        """Pass a job's outcome to the caller."""
        self._undelivered -= 1
        self._outcomes.put(outcome)

    @property
    def over(self) -> bool:
        """Whether every outcome was delivered, or no more will be."""
        return self.closed or self._undelivered == 0

    def fail(self, error: Exception) -> None:
        """Fail the call: the caller gets the outcomes delivered so far, then the error."""
        self.closed = True
        self._outcomes.put(error)

    def results(self) -> Iterator[Outcome]:
        """Yield outcomes as they arrive; raises the error of a failed call."""
        for _ in self.jobs:
            outcome = self._outcomes.get()
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


def settled(worst: Tokens, counts: Counts, text_tokens: int) -> tuple[Tokens, bool]:
    """The tokens that an answer took, with `worst` as the local bound, and whether the server's usage is plausible.

    An impossible count (more drawn than allowed, a prompt several times as long as counted here) is replaced by ours; a text
    proves that at least its tokens were drawn.
    """
    prompt, most = worst
    said_prompt, said_output = counts.prompt_tokens, counts.output_tokens
    believed = True
    if said_prompt is None or not prompt // 4 <= said_prompt <= 4 * prompt + 256:
        said_prompt, believed = prompt, False
    # re-tokenised text can be a few tokens longer than the drawn tokens; a much smaller count is wrong
    if said_output is None or not text_tokens // 2 <= said_output <= most:
        said_output, believed = min(most, max(text_tokens, said_output or 0) + 1), False
    return (said_prompt, said_output), believed


def copied(error: Exception) -> Exception:
    """The same error for another thread to raise: one object must not collect the tracebacks of several."""
    kind = next((known for known in (LimbeckError, ServerGone, EngineDied) if isinstance(error, known)), type(error))
    return kind(*error.args)
