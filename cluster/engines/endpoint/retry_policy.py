"""The reaction to each outcome of a request: deliver, resend, or stop. Uses no clock and no network.

A fault (a 5xx, a cut connection) counts against a row only if the server answered other rows meanwhile: a server that is down for
a minute costs no rows, and one that answers nothing for `patience_seconds` is `EngineDied`. If every remaining row fails, the
server is in doubt, and the client tries it with an unrelated request. What the server refuses (a 4xx) is decided in refusals.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from limbeck.cluster.engines.endpoint.answers import Malformed, Refused, answers, categorise, error_words
from limbeck.cluster.engines.endpoint.budget import Tokens
from limbeck.cluster.engines.endpoint.calls import Job, Outcome, Refusal, settled
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.dialect import Dialect, Payload
from limbeck.cluster.engines.endpoint.pacing import Pacing, backoff, retry_after_seconds
from limbeck.cluster.engines.endpoint.server import Key, user_words
from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.corpus.errors import LimbeckError

OF_PARAMETERS = (400, 422)  # statuses whose message may name a parameter that the server does not accept
LONGEST_PAUSE = 5.0  # between attempts at a server that refuses connections
REFUSALS = 200  # per row, while others are answered
SUSPECTS = 3  # number of unanswered rows that count as the server's fault


class Reply(NamedTuple):
    """A complete HTTP response."""

    status: int
    body: bytes
    retry_after: str | None


@dataclass(frozen=True)
class Decision:
    """The billed tokens, and the outcome to deliver; None: resend, after a pause unless `at_once`."""

    tokens: Tokens
    outcome: Outcome | None = None
    at_once: bool = False


@dataclass
class RetryPolicy:
    """Decides by the history of a server. Raises LimbeckError if the user must act, and EngineDied if the server is gone."""

    config: EndpointConfig
    key: Key
    count: Callable[[str], int]  # tokens of a text
    pacing: Pacing
    dialect: Dialect = field(default_factory=Dialect)
    answered_at: float = 0.0  # time of the last answer
    alive_at: float = 0.0  # time of the last HTTP response
    overshoot: int = 0  # excess of the server's token count of a prompt over the local one
    not_believed: int = 0  # answers with implausible usage
    doubt: EngineDied | None = None  # raised if a trial is not answered either
    _suspects: set[Job] = field(default_factory=set)  # out of attempts since the last answer
    _refused_connections: int = 0
    _asked_to_wait: float = 0.0

    def begin(self, now: float) -> None:
        """Work starts after a pause: patience is counted from here."""
        self.alive_at = now
        self._answered(now)

    def reply(self, job: Job, sent: Payload, reply: Reply, now: float, in_flight: int) -> Decision:
        """The server responded to the body `sent`."""
        self.alive_at, self._refused_connections = now, 0
        if answers(reply.status):
            return self._read(job, reply.body, now, in_flight)
        words = f"{reply.status}: {self.key.hide(error_words(reply.body)) or 'no message'}"
        what, wait = categorise(reply.status, words), retry_after_seconds(reply.retry_after)
        if what in ("busy", "fault") and wait is not None:
            self._wait(wait, now, words)
        if what == "busy":
            self.pacing.refused(job.sent_at, now)
            return self._busy(job, words, now)
        if what == "fault":
            return self._fault(job, (0, 0), words, now)
        if what == "account" and not job.tentative:
            raise LimbeckError(user_words(self.config, reply.status, words))
        if reply.status in OF_PARAMETERS and self.dialect.learn(sent, job.payload, words):
            return Decision((0, 0), at_once=True)
        self._answered(now)
        refusal = Refusal(reply.status, words, self.dialect.advice(sent, words))
        return _done(Outcome(job, None, error=f"the server refused it: {words}", refusal=refusal))

    def cut(self, job: Job, words: str, now: float) -> Decision:
        """No answer came, or a truncated one; the server may have billed it."""
        self.pacing.failed(job.sent_at, now)
        return self._fault(job, job.reserved, words, now)

    def no_connection(self, job: Job, words: str, now: float) -> Decision:
        """The server accepts no connection, which is not a row's fault: wait, then retry."""
        self._refused_connections += 1
        pause = backoff(job.seed, self._refused_connections, self.config.backoff_seconds)
        self.pacing.failed(job.sent_at, now)
        self.pacing.pause(now + min(LONGEST_PAUSE, pause))
        if (silent := now - self.answered_at) > self.config.patience_seconds:
            raise ServerGone(f"nothing listened at {self.config.base_url} for {silent:.0f} s: {self.key.hide(words)}")
        return Decision((0, 0))

    def _read(self, job: Job, body: bytes, now: float, in_flight: int) -> Decision:
        """The body of a 200: an answer, a refusal, or neither."""
        try:
            answer = job.read(body)
        except Refused as said:
            self._answered(now)
            return _done(Outcome(job, None, job.reserved, self.key.hide(str(said))))
        except Malformed as said:
            tokens = settled(job.worst, said.tokens, job.worst[1])[0] if said.tokens else job.reserved
            words = f"the server sent {self.key.hide(str(said))}"
            return _done(Outcome(job, None, tokens, words)) if job.tentative else self._fault(job, tokens, words, now)
        text_tokens = 0 if answer.logprobs else self.count(answer.text)
        tokens, believed = settled(job.worst, answer.counts, text_tokens)
        self.overshoot = max(self.overshoot, tokens[0] - job.worst[0])
        self.not_believed += not believed
        self.pacing.answered(job.path, job.sent_at, now, in_flight, tokens)
        self._answered(now)
        return _done(Outcome(job, answer, tokens))

    def _wait(self, wait: float, now: float, words: str) -> None:
        """Pause for as long as the server asks."""
        if wait > self.config.patience_seconds:
            raise LimbeckError(
                f"{self.config.base_url} is rate limiting us (Retry-After: {wait:.0f} s; {words}), longer than patience_seconds "
                f"{self.config.patience_seconds:g}; raise that, or rerun later to resume"
            )
        self._asked_to_wait = wait
        self.pacing.pause(now + wait)

    def _busy(self, job: Job, words: str, now: float) -> Decision:
        """The server refused the request for now."""
        silent = now - self.answered_at - self._asked_to_wait
        if silent > self.config.patience_seconds:
            raise ServerGone(f"{self.config.base_url} has returned nothing for {silent:.0f} s but {words}")
        if job.failures >= REFUSALS:
            return _done(Outcome(job, None, error=f"the server refused it {REFUSALS} times, last with: {words}"))
        return Decision((0, 0))

    def _fault(self, job: Job, tokens: Tokens, words: str, now: float) -> Decision:
        """A fault of the server or the connection: counts against this row only if others were answered since its last send."""
        config, silent = self.config, now - self.answered_at - self._asked_to_wait
        job.faults += 1
        job.own_faults += self.answered_at > (job.blamed_from if job.faults > 1 else job.sent_at)
        job.blamed_from = job.sent_at
        if job.faults >= config.attempts:
            self._suspects.add(job)
        if silent > config.patience_seconds and len(self._suspects) >= SUSPECTS:
            self.doubt = ServerGone(
                f"{config.base_url} has answered no request for {silent:.0f} s, and {len(self._suspects)} requests got: {words}"
            )
            return Decision(tokens)
        if job.own_faults >= config.attempts or (job in self._suspects and silent > config.patience_seconds):
            return _done(Outcome(job, None, tokens, f"{job.faults} attempts failed, the last with: {words}"))
        return Decision(tokens)

    def trusted(self, now: float) -> None:
        """The server answered a trial: rows that are out of attempts failed for row-specific reasons."""
        for job in self._suspects:
            job.own_faults = self.config.attempts
        self.alive_at = now
        self._answered(now)

    def _answered(self, now: float) -> None:
        """The server is healthy, so remaining failures are request-specific."""
        self.answered_at, self.doubt = now, None
        self._suspects.clear()


def _done(outcome: Outcome) -> Decision:
    return Decision(outcome.tokens, outcome)
