"""Runs the scripts of a part: batches their requests, stores every step, and keeps a failed source from affecting others.

The only module of generators/ that calls an engine. Engines that batch one call get the requests of all waiting scripts at once;
engines that batch across callers get one thread per source, so that a finished source never waits for another.
"""

import inspect
import json
import threading
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from limbeck.cluster.engines.protocol import Completion, Engine, EngineDied, Message, Pair, Request, UserTurn
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import CANDIDATES, STEPS
from limbeck.corpus.seeds import derive_id, derive_seed
from limbeck.generators.contract import (
    Answer,
    Asked,
    Draft,
    Draw,
    Drawing,
    Prompt,
    Scoring,
    Script,
    ScriptedGenerator,
    Source,
    StepFailed,
    Task,
)

STEP_LIMIT = 64  # steps of one source: a script that asks for more loops
FIRST_SOURCES = 8  # if all of these raise and none succeeds, the generator is broken, not the sources
MOST_THREADS = 1024
FATAL = (EngineDied, MemoryError, LimbeckError)


class Misused(Exception):
    """A script that does not keep to the contract; the message completes "the script ..."."""


@dataclass
class Run:
    """One source's running script."""

    place: int
    source: Source
    draw: Draw
    script: Script
    asked: Asked | None = None
    label: str = ""  # of the current step: its name, numbered from the second time on
    labels: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    raised: str | None = None

    def advance(self, answer: Any = None) -> None:
        """Run the script up to its next step or its end; an exception ends it and is recorded as the reason."""
        try:
            if isinstance(answer, StepFailed):
                self.asked = self.script.throw(answer)
            else:
                self.asked = self.script.send(answer)
            self._label()
        except StopIteration as end:
            self._return(end.value)
        except StepFailed as failure:
            self._end([Draft("", "", error=str(failure))])
        except Misused as error:
            self._fail(f"the script {error}{_line(self.script)}")
        except FATAL:
            raise
        except Exception as error:
            self._fail(f"the script raised {_where(error)}")

    def _return(self, value: Any) -> None:
        try:
            self._end(checked(value))
        except Misused as error:
            self._fail(f"the script {error}")

    def _fail(self, reason: str) -> None:
        self.raised = reason
        self._end([Draft("", "", error=reason)])

    def _label(self) -> None:
        if not isinstance(self.asked, Drawing | Scoring):
            raise Misused(f"yielded {type(self.asked).__name__} instead of draw(...) or draw.logprobs(...)")
        if sum(self.labels.values()) >= STEP_LIMIT:
            raise Misused(f"asked for more than {STEP_LIMIT} steps")
        count = self.labels[self.asked.step] = self.labels.get(self.asked.step, 0) + 1
        self.label = self.asked.step if count == 1 else f"{self.asked.step}.{count}"

    def _end(self, drafts: list[Draft]) -> None:
        self.script.close()
        self.asked = None
        self.drafts = drafts or [Draft("", "", error="the script returned no draft")]

    def seed(self, index: int) -> int:
        """The seed of one completion; the first step has the same seeds in every script."""
        draw, asked = self.draw, self.asked
        assert isinstance(asked, Drawing)
        if sum(self.labels.values()) == 1:
            return derive_seed(draw.run_seed, asked.round, draw.source_id, index)
        return derive_seed(draw.run_seed, asked.round, draw.source_id, self.label, index)

    def requests(self) -> list[Request]:
        """The completion requests of the current step."""
        asked = self.asked
        assert isinstance(asked, Drawing)
        prompt = asked.prompt if isinstance(asked.prompt, str | UserTurn) else tuple(asked.prompt)
        return [
            Request(f"{self.source.source_id}/{self.label}/{index}", prompt, asked.sampling.at(index), self.seed(index))
            for index in range(1 if asked.n is None else asked.n)
        ]

    def pairs(self) -> list[Pair]:
        """The scoring requests of the current step."""
        assert isinstance(self.asked, Scoring)
        return [Pair(self.asked.context, target) for target in self.asked.targets]

    def completed(self, requests: Sequence[Request], found: Mapping[str, Completion]) -> Any:
        """Record the completions of a step; returns what the script receives."""
        asked = self.asked
        assert isinstance(asked, Drawing)
        answers = []
        for index, request in enumerate(requests):
            completion = found.get(request.request_id) or _no_answer(request)
            answers.append(Answer.of(completion, self.label, index, request.seed))
            self._record(asked, index, answers[-1], request)
        if asked.n is not None:
            return answers
        return StepFailed(answers[0].error) if answers[0].error else answers[0]

    def scored(self, logprobs: Sequence[Any]) -> list[float]:
        """Record the log-probabilities of a step; returns their sums."""
        asked = self.asked
        assert isinstance(asked, Scoring)
        sums = [float(values.sum()) for values in logprobs]
        for index, (target, total) in enumerate(zip(asked.targets, sums, strict=True)):
            row = {"prompt": asked.context, "text": target, "logprob": total, "engine": asked.engine}
            self.steps.append({**self._row(index), **row})
        return sums

    def _record(self, asked: Drawing, index: int, answer: Answer, request: Request) -> None:
        done = answer.completion
        self.steps.append(
            {
                **self._row(index),
                "engine": asked.engine,
                "prompt": shown(asked.prompt),
                "seed": request.seed,
                "text": str(answer),
                "finish_reason": done.finish_reason,
                "prompt_tokens": done.prompt_tokens,
                "output_tokens": len(done.token_ids),
                "error": answer.error,
            }
        )

    def _row(self, index: int) -> dict[str, Any]:
        return {"source_id": self.source.source_id, "step": self.label, "position": len(self.steps), "index": index}


@dataclass(frozen=True)
class Runner:
    """Runs a generator over the sources of a part, or over a slice of one.

    `accepted`: the tasks accepted in earlier waves, which follow the generator's own seeds in the task pool.
    `across_callers`: the engines batch requests of concurrent callers. `whole`: the sources are a whole part, so a generator
    that raises on every one of the first eight (or all, if fewer) stops the run; failures in a slice do not.
    """

    generator: ScriptedGenerator
    run_seed: int
    round: int
    across_callers: bool = False
    whole: bool = True
    accepted: Sequence[Task] = ()

    def run(self, sources: pa.Table, engines: Mapping[str, Engine]) -> pa.Table:
        """Return the candidates of every source, in the order of `sources` and drafts: `CANDIDATES` and a column `steps`.

        Every source has at least one row. `steps` (a list of structs with the fields of `STEPS`) is filled in a source's first
        row. Raises EngineDied, and LimbeckError if the generator is broken (see `whole`).
        """
        pool = (*self.generator.seeds, *self.accepted)
        runs = [self._start(place, source, pool) for place, source in enumerate(sources_of(sources))]
        if self.across_callers:
            self._in_threads(runs, engines)
        else:
            self._in_batches(runs, engines)
        return _table(runs, engines)

    def _start(self, place: int, source: Source, pool: Sequence[Task]) -> Run:
        draw = Draw(self.run_seed, self.round, source.source_id)
        try:
            script: Any = self.generator.script(source, draw, pool)
        except FATAL:
            raise
        except Exception as error:  # a function without `yield` runs here
            script = _raising(error)
        if not isinstance(script, Generator):
            script = _raising(Misused(f"returned {type(script).__name__} without a yield; it must yield draw(...)"))
        return Run(place, source, draw, script)

    def _in_batches(self, runs: Sequence[Run], engines: Mapping[str, Engine]) -> None:
        """Advance all scripts together: one call per engine and kind of request, until every script has ended."""
        for run in runs:
            run.advance()
        self._stop_if_broken(runs)
        while waiting := [run for run in runs if run.asked is not None]:
            answers = dict(_answer_together(waiting, engines))
            for run in waiting:
                run.advance(answers[run.place])
            self._stop_if_broken(runs)

    def _in_threads(self, runs: Sequence[Run], engines: Mapping[str, Engine]) -> None:
        """One thread per source, so the engine sees the requests of all waiting sources."""
        lock = threading.Lock()
        broken = threading.Event()

        def alone(run: Run) -> None:
            run.advance()
            while run.asked is not None and not broken.is_set():
                run.advance(dict(_answer_together([run], engines))[run.place])
            try:
                with lock:
                    self._stop_if_broken(runs)
            except LimbeckError:
                broken.set()
                raise

        if not runs:
            return
        with ThreadPoolExecutor(min(len(runs), MOST_THREADS)) as threads:
            futures = [threads.submit(alone, run) for run in runs]
        for future in futures:
            future.result()

    def _stop_if_broken(self, runs: Sequence[Run]) -> None:
        first = runs[:FIRST_SOURCES]
        if self.whole and first and all(run.raised for run in first):
            raise LimbeckError(
                f"the generator failed on each of the first {len(first)} sources of a part; on the last of them "
                f"{first[-1].raised}; fix the generator or its prompts and run again"
            )


def sources_of(sources: pa.Table) -> Iterator[Source]:
    """The rows of a table of `SOURCES` as passed to scripts."""
    names = [name for name in ("source_id", "document", "reference", "record") if name in sources.column_names]
    for row in sources.select(names).to_pylist():
        record = json.loads(row["record"]) if row.get("record") else {}
        yield Source(row["source_id"], row["document"], row.get("reference"), record)


def shown(prompt: Prompt | UserTurn) -> str:
    """A prompt in its stored form: plain text unchanged, a conversation as JSON; a user's turn ends it as an empty message."""
    if isinstance(prompt, str):
        return prompt
    turns = (*prompt.before, Message("user", "")) if isinstance(prompt, UserTurn) else prompt
    return json.dumps([vars(message) for message in turns], ensure_ascii=False)


def _answer_together(runs: Sequence[Run], engines: Mapping[str, Engine]) -> Iterator[tuple[int, Any]]:
    """Yield (place, what the script receives) for every run, from one call per engine and kind of request."""
    for name in dict.fromkeys(run.asked.engine for run in runs if run.asked):
        mine = [run for run in runs if run.asked and run.asked.engine == name]
        if name not in engines:
            raise LimbeckError(
                f"the script uses engine {name!r}, which the generator does not declare; known: {', '.join(engines)}"
            )
        drawing = [(run, run.requests()) for run in mine if isinstance(run.asked, Drawing)]
        if drawing:
            together = [request for _, requests in drawing for request in requests]
            found = {done.request_id: done for done in engines[name].complete(together)}
            yield from ((run.place, run.completed(requests, found)) for run, requests in drawing)
        scoring = [(run, run.pairs()) for run in mine if isinstance(run.asked, Scoring)]
        if scoring:
            answers = iter(engines[name].logprobs([pair for _, pairs in scoring for pair in pairs]))
            yield from ((run.place, run.scored([next(answers) for _ in pairs])) for run, pairs in scoring)


def _table(runs: Sequence[Run], engines: Mapping[str, Engine]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for run in runs:
        made = [_row(run, sample, draft) for sample, draft in enumerate(run.drafts)]
        made[0]["steps"] = _with_samples(run)
        rows += made
    teacher = next(iter(engines.values()))
    counts = teacher.count_tokens([row["output"] for row in rows]) if rows else []
    for row, count in zip(rows, counts, strict=True):
        row["output_tokens"] = count
    assert len({row["candidate_id"] for row in rows}) == len(rows), "a source occurs twice in this part"
    return pa.Table.from_pylist(rows, schema=pa.schema([*CANDIDATES, pa.field("steps", pa.list_(pa.struct(list(STEPS))))]))


def _row(run: Run, sample: int, draft: Draft) -> dict[str, Any]:
    answer, source_id = draft.answer, run.source.source_id
    facts = {**({"vary": dict(run.source.vary)} if run.source.vary else {}), **draft.facts}
    first_seed = derive_seed(run.draw.run_seed, run.draw.round, source_id, sample)
    return {
        "candidate_id": derive_id(run.draw.round, source_id, sample),
        "source_id": source_id,
        "sample": sample,
        "seed": first_seed if answer is None else answer.seed,
        "prompt": draft.prompt,
        "output": "" if draft.error else draft.output,
        "prompt_tokens": 0 if answer is None else answer.completion.prompt_tokens,
        "finish_reason": "error" if draft.error else "stop" if answer is None else answer.completion.finish_reason,
        "error": draft.error,
        "messages": [vars(message) for message in draft.messages] if draft.messages is not None else None,
        "input": draft.input,
        "reference": draft.reference,
        "facts": json.dumps(facts, ensure_ascii=False, sort_keys=True) if facts else None,
        "steps": [],
    }


def _with_samples(run: Run) -> list[dict[str, Any]]:
    """The steps of a source, each with the numbers of the drafts made from it."""
    used: dict[tuple[str, int], list[int]] = {}
    for sample, draft in enumerate(run.drafts):
        if draft.answer is not None:
            used.setdefault((draft.answer.step, draft.answer.number), []).append(sample)
    return [{**step, "samples": used.get((step["step"], step["index"]), [])} for step in run.steps]


def checked(value: Any) -> list[Draft]:
    """The drafts that a script returned; raises Misused if they cannot be stored as candidates."""
    if isinstance(value, str) or not isinstance(value, Iterable | None):
        raise Misused(f"returned {type(value).__name__} instead of a list of drafts")
    drafts = list(value or ())
    for draft in drafts:
        if not isinstance(draft, Draft):
            raise Misused(f"returned a list with {type(draft).__name__} in it; make drafts with Draft.of(answer, prompt)")
        texts = {"prompt": draft.prompt, "output": draft.output, "input": draft.input, "reference": draft.reference}
        for name, text in texts.items():
            if not isinstance(text, str) and (text is not None or name in ("prompt", "output")):
                raise Misused(f"returned a draft whose {name} is {type(text).__name__}, not text")
        try:
            json.dumps(dict(draft.facts), sort_keys=True)
            "".join(text or "" for text in (*texts.values(), draft.error)).encode()
        except (TypeError, ValueError) as error:
            raise Misused(f"returned a draft that cannot be stored: {error}") from error
    return drafts


def _raising(error: Exception) -> Script:
    """A script that raises at its first step."""
    raise error
    yield  # a generator, so that the error is raised where those of scripts are


def _no_answer(request: Request) -> Completion:
    return Completion(request.request_id, "", (), "error", 0, "the engine gave no answer")


def _line(script: Script) -> str:
    """The line at which a script waits; "" if it has ended."""
    frame = script.gi_frame if inspect.isgenerator(script) else None
    return f" (line {frame.f_lineno} of {frame.f_code.co_name})" if frame is not None else ""


def _where(error: BaseException) -> str:
    """An exception with the line of the script that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    place = f" (line {frames[-1].lineno} of {frames[-1].name})" if frames else ""
    words = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}{': ' + words if words else ''}{place}"


def messages(turns: Iterable[tuple[str, str]]) -> tuple[Message, ...]:
    """A conversation from (role, content) pairs."""
    return tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]
