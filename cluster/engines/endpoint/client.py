"""The loop that sends requests to a server: one queue for all callers, paced, within budget, each request answered once.

It runs in its own thread, so nothing here needs a lock.
"""

import asyncio
import contextlib
import heapq
import itertools
import json
import threading
from collections import deque
from collections.abc import Callable, Sequence

import httpx

from limbeck.cluster.engines.endpoint.answers import Malformed, read_any
from limbeck.cluster.engines.endpoint.budget import Ledger
from limbeck.cluster.engines.endpoint.calls import Call, Job, Outcome, copied
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.dialect import Payload
from limbeck.cluster.engines.endpoint.pacing import Pacing, backoff
from limbeck.cluster.engines.endpoint.refusals import TRIAL_PROMPT_TOKENS, Refusals
from limbeck.cluster.engines.endpoint.retry_policy import Decision, Reply, RetryPolicy
from limbeck.cluster.engines.endpoint.server import OF_KEYS, Key
from limbeck.cluster.engines.protocol import EngineDied, ServerGone, Usage
from limbeck.corpus.errors import LimbeckError

PROBE_SECONDS = 10.0
TRIAL_TOKENS = (TRIAL_PROMPT_TOKENS, 1)
TICK_SECONDS = 0.5
RENEW_SECONDS = 10.0
COUNTED = ("requests", "retries", "most_in_flight", "window", "money", "usage_not_believed")


class Client:
    """A server's client. `submit` is thread-safe."""

    def __init__(self, config: EndpointConfig, key: Key, ledger: Ledger, usage: Usage, count: Callable[[str], int]) -> None:
        """Start the loop; `count` counts the tokens of a text, and `usage` is updated."""
        self._config, self._key, self._ledger, self._usage = config, key, ledger, usage
        usage.extra.update(dict.fromkeys(COUNTED, 0.0))
        self._pacing = Pacing(config.max_concurrency, config.latency_factor)
        self._policy = RetryPolicy(config, key, count, self._pacing)
        self._refusals = Refusals(config)
        self._ready: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []  # heap of (time, tie-breaker, job)
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: list[Call] = []
        self._probe: asyncio.Task[None] | None = None
        self._trial: asyncio.Task[None] | None = None
        self._ticked_at = 0.0
        self._stopping = False
        self._renewing = asyncio.Lock()
        self._renew_at = 0.0  # when a refused key may be read again
        self._loop = asyncio.new_event_loop()
        self._stirred = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="endpoint", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> Call:
        """Queue jobs; `results` of the call yields their outcomes. Raises EngineDied if the client was closed."""
        call = Call(jobs)
        try:
            self._loop.call_soon_threadsafe(self._accept, call)
        except RuntimeError as error:
            raise EngineDied("the endpoint's client was closed") from error
        return call

    def cancel(self, call: Call) -> None:
        """Cancel a call: unsent requests are dropped, answers in flight are ignored."""
        call.closed = True
        with contextlib.suppress(RuntimeError):  # the client was closed
            self._loop.call_soon_threadsafe(self._stirred.set)

    def close(self) -> None:
        """Stop the loop; waiting callers get EngineDied."""
        with contextlib.suppress(RuntimeError):  # already closed
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    # from here on, everything runs in the loop's thread

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        error: Exception = EngineDied("the endpoint's client was closed")
        try:
            self._loop.run_until_complete(self._run())
        except Exception as failure:  # a bug, or an unreadable ledger: waiting callers must get the error
            error = failure
        finally:
            self._loop.run_until_complete(self._finish(error))
            self._loop.close()

    async def _run(self) -> None:
        async with self._key.open(httpx.AsyncClient, self._config) as self._http:
            while not self._stopping:
                self._stirred.clear()
                self._tick()
                self._dispatch()
                self._try_refused()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stirred.wait(), self._nap())

    async def _finish(self, error: Exception) -> None:
        self._end(error)
        looks = [look for look in (self._probe, self._trial) if look]
        for look in looks:
            look.cancel()
        await asyncio.gather(*self._tasks, *looks, return_exceptions=True)
        await asyncio.sleep(0)  # their callbacks
        self._end(error)  # calls that arrived meanwhile

    def _nap(self) -> float | None:
        """Seconds until the next action or progress update; None: until woken."""
        now = self._loop.time()
        due = [self._later[0][0] - now] if self._later else []
        if self._ready and self._pacing.resume_at > now:
            due.append(self._pacing.resume_at - now)
        if self._tasks:
            due.append(TICK_SECONDS)
        return max(0.001, min(due)) if due else None

    def _tick(self) -> None:
        """Count the time with requests in flight, so that a watchdog sees progress while they are pending."""
        now = self._loop.time()
        if self._tasks:
            self._usage.model_seconds += now - self._ticked_at
        self._ticked_at = now

    def _accept(self, call: Call) -> None:
        if not self._calls:
            self._policy.begin(self._loop.time())
        self._calls.append(call)
        self._ready.extend(call.jobs)
        self._stirred.set()

    def _stop(self) -> None:
        self._stopping = True
        self._stirred.set()

    def _dispatch(self) -> None:
        """Send due requests, within the window and the budget."""
        now = self._loop.time()
        while self._later and self._later[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._later)[2])
        while self._ready and self._pacing.room(len(self._tasks), now):
            job = self._ready[0]
            assert job.call is not None
            if not job.call.closed:
                worst = (job.worst[0] + self._policy.overshoot, job.worst[1])
                if not self._ledger.reserve(worst):
                    if self._tasks:  # an answer of ours may free budget
                        return
                    if job is not self._refusals.trial:
                        self._end(self._ledger.spent(worst))
                        return
                    self._deliver(self._refusals.untried())
                    self._ready.popleft()
                    continue
                job.reserved, job.sent_at = worst, now
                self._start(job)
            self._ready.popleft()
        self._calls = [call for call in self._calls if not call.over]

    def _try_refused(self) -> None:
        """Send a trial if refused rows wait for one."""
        trial = self._refusals.next_trial(self._loop.time(), idle=not self._tasks)
        if trial is not None:
            self._ready.appendleft(trial)
            self._stirred.set()

    def _deliver(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.job.call is not None
            said = outcome.refusal
            if said is not None and said.status in OF_KEYS and outcome.job.key != self._key.secret:  # it was rotated meanwhile
                self._ready.append(outcome.job)
            else:
                outcome.job.call.put(outcome)

    def _start(self, job: Job) -> None:
        task = self._loop.create_task(self._send(job))
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        extra = self._usage.extra
        extra["requests"] += 1
        extra["most_in_flight"] = max(extra["most_in_flight"], float(len(self._tasks)))

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._tick()
        self._tasks.discard(task)
        extra = self._usage.extra
        extra["window"], extra["money"] = self._pacing.window, self._ledger.spent_money()
        extra["usage_not_believed"] = float(self._policy.not_believed)
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._end(failure)
        self._stirred.set()

    async def _send(self, job: Job) -> None:
        """Send a job once and handle its outcome; its reservation is settled in every case."""
        spent, body = job.reserved, self._policy.dialect.shape(job.payload)  # until known otherwise, everything was billed
        try:
            decision = await self._ask(job, body)
            spent = decision.tokens
        finally:
            self._ledger.settle(job.reserved, spent)
        if (doubt := self._policy.doubt) and self._trial is None:
            self._trial = self._loop.create_task(self._try(job, doubt))
        if decision.outcome is not None:
            answer = decision.outcome.answer
            self._usage.forwarded_tokens += sum(decision.outcome.tokens)
            self._usage.output_tokens += decision.outcome.tokens[1] if answer and not answer.logprobs else 0
            self._deliver(self._refusals.settle(decision.outcome, self._loop.time()))
        elif decision.at_once:
            self._ready.appendleft(job)
        else:
            job.failures += 1
            self._usage.extra["retries"] += 1
            due = self._loop.time() + backoff(job.seed, job.failures, self._config.backoff_seconds)
            heapq.heappush(self._later, (due, next(self._numbers), job))

    async def _ask(self, job: Job, body: Payload) -> Decision:
        """Send a body and decide how to handle the answer."""
        try:
            reply = await self._post_renewing(job, body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as failure:
            return self._policy.no_connection(job, str(failure) or type(failure).__name__, self._loop.time())
        except (TimeoutError, httpx.TimeoutException):
            words = f"no answer within {self._config.timeout_seconds:g} s"
        except httpx.RequestError as failure:
            words = f"the connection was cut ({type(failure).__name__})"
        else:
            return self._policy.reply(job, body, reply, self._loop.time(), len(self._tasks))
        if self._loop.time() - self._policy.alive_at > self._config.patience_seconds and self._probe is None:
            self._probe = self._loop.create_task(self._look(words))
        return self._policy.cut(job, words, self._loop.time())

    async def _post_renewing(self, job: Job, body: Payload) -> Reply:
        """Send a body; if the server refuses the key, which may have been rotated, once more with the driver's current one.

        Before the last word on a key (a trial) it is always read again, otherwise once in `RENEW_SECONDS`: gateways also refuse
        single rows with these statuses.
        """
        job.key = self._key.secret
        reply = await self._post(job.path, body)
        if reply.status not in OF_KEYS:
            return reply
        async with self._renewing:  # others wait for the one that reads it
            if job.tentative or self._loop.time() >= self._renew_at:
                await asyncio.to_thread(self._key.renew, job.key)
                self._renew_at = self._loop.time() + RENEW_SECONDS
        if self._key.secret == job.key:
            return reply
        job.key = self._key.secret
        return await self._post(job.path, body)

    async def _post(self, path: str, body: Payload) -> Reply:
        content = json.dumps(body).encode()  # ASCII: httpx's own JSON cannot carry every string that Python can hold
        headers = self._key.headers()
        headers["Content-Type"] = "application/json"
        async with asyncio.timeout(self._config.timeout_seconds):  # for the whole answer: httpx only bounds each read
            response = await self._http.post(f"{self._config.base_url}{path}", content=content, headers=headers)
        return Reply(response.status_code, response.content, response.headers.get("retry-after"))

    async def _look(self, words: str) -> None:
        """Check whether a server that has been silent for long still responds."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._http.get(f"{self._config.base_url}/models", headers=self._key.headers())
            self._policy.alive_at = self._loop.time()
        except (TimeoutError, httpx.RequestError):
            silent = self._loop.time() - self._policy.alive_at
            self._end(ServerGone(f"{self._config.base_url} has not responded for {silent:.0f} s: {words}"))
        finally:
            self._probe = None

    async def _try(self, job: Job, doubt: EngineDied) -> None:
        """Check whether a server that answers none of the remaining rows (including `job`) answers anything else."""
        error: Exception = doubt
        try:
            if await self._answers_a_word(job):
                self._policy.trusted(self._loop.time())
        except LimbeckError as failure:  # an unreadable ledger
            error = failure
        if self._policy.doubt is not None:  # and no row was answered meanwhile
            self._end(error)
        self._policy.doubt, self._trial = None, None

    async def _answers_a_word(self, job: Job) -> bool:
        chat = {"messages": [{"role": "user", "content": "Hello"}]} if "messages" in job.payload else {"prompt": "Hello"}
        body = {"model": job.payload["model"], "max_tokens": TRIAL_TOKENS[1], **chat}
        worst = (TRIAL_TOKENS[0] + self._policy.overshoot, TRIAL_TOKENS[1])
        if not self._ledger.reserve(worst):
            return False
        self._usage.extra["requests"] += 1
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                reply = await self._post(job.path, self._policy.dialect.shape(body))
            read_any(reply.body)
            return reply.status == 200
        except (TimeoutError, httpx.RequestError, Malformed):
            return False
        finally:
            self._ledger.settle(worst, worst)

    def _end(self, error: Exception) -> None:
        """Fail every call after its delivered outcomes; queued requests are dropped, those in flight are abandoned."""
        for call in self._calls:
            if not call.over:
                call.fail(copied(error))
        self._calls = []
        self._refusals.forget()
        self._ready.clear()
        self._later.clear()
        for task in self._tasks:
            task.cancel()
        self._stirred.set()
