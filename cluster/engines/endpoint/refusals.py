"""Refused rows: does the server refuse a row, or every row?

A status does not tell: a gateway moderates one row with 403, and answers 400 to each of a million rows for a parameter that it
does not accept. A refused row is therefore held until a request of the same form that was sent later is answered; then it becomes
a reason. If there is none, a trial is sent: the same request with another prompt. If the trial is refused with the same status,
the server refuses every row, and the run stops with its words. Independently of refusals, the run stops if none of the first
`FAILED_ROWS` rows of a form is answered. Uses no clock and no network.
"""

from collections import Counter
from dataclasses import dataclass, field

from limbeck.cluster.engines.endpoint.answers import read_any
from limbeck.cluster.engines.endpoint.calls import Call, Form, Job, Outcome, Refusal
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.server import user_words
from limbeck.corpus.errors import LimbeckError

FAILED_ROWS = 200  # a server or model that answers none of so many is not worth the price of the rest
HELD_ROWS = 8  # of a form that was never answered: a trial is sent at once, without waiting for the requests in flight
HELD_ROWS_LATER = 100  # of a form that was answered: in a stream that is often refused, the next answers decide
HELD_SECONDS = 2.0
TRIAL_PROMPT_TOKENS = 64  # more than the rendered chat template of one word
ANY_TOKENS = [1, 2]  # ids that every vocabulary has


@dataclass(frozen=True)
class Held:
    """The outcome of a refused row, not yet delivered."""

    outcome: Outcome
    refusal: Refusal
    since: float


@dataclass
class Refusals:
    """The refused rows of one server. Methods return the outcomes to deliver; LimbeckError if the server refuses every row."""

    config: EndpointConfig
    trial: Job | None = None  # queued or in flight
    held: list[Held] = field(default_factory=list)
    _succeeded: set[Form] = field(default_factory=set)
    _failed: Counter[Form] = field(default_factory=Counter)

    def settle(self, outcome: Outcome, now: float) -> list[Outcome]:
        """Record the outcome of a row, or of the trial."""
        job = outcome.job
        if job is self.trial:
            return self._tried(outcome)
        if outcome.refusal is not None and not job.tentative:
            self.held.append(Held(outcome, outcome.refusal, now))
            return []
        if outcome.answer is None:
            return [outcome] if job.tentative else self._failing([outcome])
        self._succeeded.add(job.form)
        return [*self._release(job.form, job.sent_at), outcome]

    def next_trial(self, now: float, idle: bool) -> Job | None:
        """The trial to send now, if rows are held and nothing else will decide about them; `idle`: nothing is in flight."""
        self.held = [held for held in self.held if held.outcome.job.call is not None and not held.outcome.job.call.closed]
        if not self.held or self.trial is not None:
            return None
        first = self.held[0]
        most = HELD_ROWS_LATER if first.outcome.job.form in self._succeeded else HELD_ROWS
        if not (idle or len(self.held) >= most or now - first.since >= HELD_SECONDS):
            return None
        self.trial = trial_of(first.outcome.job)
        return self.trial

    def untried(self) -> list[Outcome]:
        """The trial cannot be paid: the rows that wait for it failed."""
        assert self.trial is not None
        form, self.trial = self.trial.form, None
        return self._release(form)

    def forget(self) -> None:
        """Every call has ended."""
        self.held, self.trial = [], None

    def _tried(self, outcome: Outcome) -> list[Outcome]:
        assert self.trial is not None
        form, self.trial = self.trial.form, None
        said = outcome.refusal
        if said is not None and said.status in {held.refusal.status for held in self.held if held.outcome.job.form == form}:
            sentence = user_words(self.config, said.status, said.words)
            raise LimbeckError(f"{said.advice} ({said.words})" if said.advice else sentence)
        return self._release(form)

    def _release(self, form: Form, sent_at: float | None = None) -> list[Outcome]:
        """The held rows of a form become failed rows; with `sent_at`, only those that were refused before."""
        held, self.held = self.held, []
        outcomes = []
        for row in held:
            if row.outcome.job.form == form and (sent_at is None or row.since <= sent_at):
                outcomes.append(row.outcome)
            else:
                self.held.append(row)
        return self._failing(outcomes)

    def _failing(self, outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            form = outcome.job.form
            self._failed[form] += form not in self._succeeded
            if self._failed[form] >= FAILED_ROWS and form not in self._succeeded:
                raise LimbeckError(
                    f"{self.config.base_url} answered none of the first {FAILED_ROWS} requests, the last with: {outcome.error}; "
                    "fix the cause and rerun to resume"
                )
        return outcomes


def trial_of(job: Job) -> Job:
    """The same request with another prompt, as a call of its own."""
    payload = {name: value for name, value in job.payload.items() if name != "seed"}
    if "messages" in payload:
        payload["messages"] = [{"role": "user", "content": "Hello"}]
    else:
        payload["prompt"] = "Hello" if isinstance(payload["prompt"], str) else ANY_TOKENS
    trial = Job(job.path, payload, read_any, (TRIAL_PROMPT_TOKENS, job.worst[1]), job.seed, tentative=True)
    Call([trial])
    return trial
