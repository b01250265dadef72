"""Requests on their way to a server, and the callers that wait for them."""

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from limbeck.cluster.engines.endpoint.answers import Answer, Counts
from limbeck.cluster.engines.endpoint.budget import Tokens
from limbeck.cluster.engines.endpoint.dialect import Payload
from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.corpus.errors import LimbeckError


@dataclass(eq=False)
class Job:
    """One request: what to send where, how to read the answer, and the most tokens (of its prompt, drawn) it can take.

    A `tentative` job asks what the server can do: an answer that is none, and any refusal, is told and not tried again.
    """

    path: str
    payload: Payload
    read: Callable[[bytes], Answer]
    worst: Tokens
    seed: int
    tentative: bool = False
    call: "Call | None" = None
    reserved: Tokens = (0, 0)  # the worst case as it was set aside
    sent_at: float = 0.0
    blamed_from: float = 0.0  # an answer to another request after this moment says that a fault is this row's own
    failures: int = 0  # sends without an answer, for whatever reason: the back-off
    faults: int = 0  # of which were faults of the server or the connection
    own_faults: int = 0  # of which other rows were answered meanwhile


@dataclass(frozen=True)
class Outcome:
    """What became of a job: an answer, with the tokens (of its prompt, drawn) that it took, or the reason why there is none."""

    job: Job
    answer: Answer | None
    tokens: Tokens = (0, 0)
    error: str = ""


@dataclass(eq=False)
class Call:
    """One caller's jobs. The loop's thread puts outcomes, the caller's thread takes them."""

    jobs: Sequence[Job]
    closed: bool = False  # nobody waits any more
    _outcomes: "queue.SimpleQueue[Outcome | Exception]" = field(default_factory=queue.SimpleQueue)
    _undelivered: int = 0

    def __post_init__(self) -> None:
        """Tell the jobs whose they are."""
        self._undelivered = len(self.jobs)
        for job in self.jobs:
            job.call = self

    def put(self, outcome: Outcome) -> None:
        """Hand a job's outcome to the caller."""
        self._undelivered -= 1
        self._outcomes.put(outcome)

    @property
    def over(self) -> bool:
        """Whether every outcome was handed over, or no more will be."""
        return self.closed or self._undelivered == 0

    def fail(self, error: Exception) -> None:
        """End the call: the caller gets what was handed over before, then the error."""
        self.closed = True
        self._outcomes.put(error)

    def results(self) -> Iterator[Outcome]:
        """Yield outcomes as they come; raises what the call failed with."""
        for _ in self.jobs:
            outcome = self._outcomes.get()
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


def settled(worst: Tokens, counts: Counts, text_tokens: int) -> tuple[Tokens, bool]:
    """The tokens that an answer took, at `worst` as far as is known here, and whether what the server says can be believed.

    A count that cannot be (more drawn than was allowed, a prompt several times as long as here) is replaced by ours; a text
    proves that at least its tokens were drawn.
    """
    prompt, most = worst
    said_prompt, said_output = counts.prompt_tokens, counts.output_tokens
    believed = True
    if said_prompt is None or not prompt // 4 <= said_prompt <= 4 * prompt + 256:
        said_prompt, believed = prompt, False
    # a text can be a few tokens longer here than it was when it was drawn; a count far below is wrong
    if said_output is None or not text_tokens // 2 <= said_output <= most:
        said_output, believed = min(most, max(text_tokens, said_output or 0) + 1), False
    return (said_prompt, said_output), believed


def copied(error: Exception) -> Exception:
    """The same error for another thread to raise: one object must not collect the tracebacks of several."""
    kind = next((known for known in (LimbeckError, ServerGone, EngineDied) if isinstance(error, known)), type(error))
    return kind(*error.args)
