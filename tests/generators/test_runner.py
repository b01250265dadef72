"""The runner: the same rows whichever way scripts are driven, and one failed source costs one source."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine, completion
from limbeck.cluster.engines.journal import JournaledEngine
from limbeck.cluster.engines.protocol import Completion, EngineDied, Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.seeds import derive_seed
from limbeck.generators.contract import Draft, Draw, Script, Source, StepFailed
from limbeck.generators.runner import STEP_LIMIT, Runner

GREEDY = Sampling(8, temperature=0.0)


def sources(count: int) -> pa.Table:
    return pa.table({"source_id": [f"s{i:02d}" for i in range(count)], "document": [f"Document {i}." for i in range(count)]})


def echo(request: Request) -> Completion:
    """A text that depends on prompt and seed alone."""
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
    return completion(request, f" {prompt[-12:]} {request.seed % 997}\n")


class Written:
    """A generator whose script is a function."""

    seeds = ()

    def __init__(self, function: Callable[[Source, Draw, Sequence[Any]], Script]) -> None:
        self._function = function

    def script(self, source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
        return self._function(source, draw, pool)


@Written
def five_steps(source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
    """An instruction, a choice by log-probability, and as many further turns as a random number says."""
    instruction = yield draw("instruction", f"Write one: {source.document}", GREEDY)
    yes, no = yield draw.logprobs(instruction, (" Yes", " No no"))
    drafts = []
    for turn in range(draw.random("turns").randint(1, 3)):
        several = yield draw("turn", (Message("user", f"{instruction} {turn}"),), GREEDY, n=2)
        drafts += [Draft.of(answer, instruction, facts={"turn": turn, "yes": yes > no}) for answer in several]
    return drafts


def run(generator: Any, table: pa.Table, engine: Any, **options: Any) -> list[dict[str, Any]]:
    return Runner(generator, 3, 1, **options).run(table, {"teacher": engine}).to_pylist()


def test_both_ways_of_driving_and_every_slice_give_the_same_rows() -> None:
    whole = run(five_steps, sources(21), ScriptedEngine(echo))
    assert len(whole) > 42 and {row["source_id"] for row in whole} == set(sources(21)["source_id"].to_pylist())
    assert run(five_steps, sources(21), ScriptedEngine(echo), across_callers=True) == whole
    sliced = [run(five_steps, sources(21).slice(start, 8), ScriptedEngine(echo), whole=False) for start in (0, 8, 16)]
    assert [row for part in sliced for row in part] == whole


def test_one_call_takes_what_all_scripts_ask_for() -> None:
    calls = []

    class Counting(ScriptedEngine):
        def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
            calls.append(len(requests))
            return super().complete(requests)

    run(five_steps, sources(21), Counting(echo))
    assert calls[:2] == [21, 42] and len(calls) <= 4 and calls == sorted(calls[:1]) + sorted(calls[1:], reverse=True)


def test_every_request_is_a_stored_step_in_the_order_of_its_script() -> None:
    engine = ScriptedEngine(echo)
    rows = run(five_steps, sources(3), engine)
    steps = [step for row in rows for step in row["steps"]]
    drawn = [step for step in steps if step["logprob"] is None]
    assert sorted(step["seed"] for step in drawn) == sorted(request.seed for request in engine.requests)
    assert len(steps) - len(drawn) == len(engine.pairs) == 6
    first = next(row for row in rows if row["source_id"] == "s01")["steps"]
    assert [step["position"] for step in first] == list(range(len(first)))
    assert [step["step"] for step in first][:5] == ["instruction", "logprobs", "logprobs", "turn", "turn"]
    assert json.loads(first[3]["prompt"])[0]["role"] == "user" and first[1]["prompt"] == first[0]["text"]
    made_from = {(step["step"], step["index"]): step["samples"] for step in first if step["step"].startswith("turn")}
    assert list(made_from.values()) == [[number] for number in range(len(made_from))]


def test_the_first_step_keeps_the_seeds_of_a_script_of_one_step_and_later_steps_have_their_own() -> None:
    steps = run(five_steps, sources(1), ScriptedEngine(echo))[0]["steps"]
    by_step = {(step["step"], step["index"]): step["seed"] for step in steps}
    assert by_step["instruction", 0] == derive_seed(3, 1, "s00", 0)
    assert by_step["turn", 1] == derive_seed(3, 1, "s00", "turn", 1)
    later = [seed for (step, _), seed in by_step.items() if step.startswith("turn")]
    assert len(set(later)) == len(later), "a step that is drawn again has other seeds"


def test_random_numbers_depend_on_the_source_and_the_step_alone() -> None:
    draw = Draw(3, 1, "s00")
    assert draw.random("a").random() == draw.random("a").random() != draw.random("b").random()
    assert Draw(3, 1, "s01").random("a").random() != draw.random("a").random()


@pytest.mark.parametrize("across_callers", [False, True])
def test_an_exception_costs_its_source(across_callers: bool) -> None:
    @Written
    def fails_on_some(source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
        answer = yield draw("one", source.document, GREEDY)
        if source.source_id in ("s00", "s01", "s02", "s03", "s04", "s05", "s06", "s09"):
            raise ValueError(f"no {source.source_id}")
        return [Draft.of(answer, source.document)]

    rows = run(fails_on_some, sources(10), ScriptedEngine(echo), across_callers=across_callers)
    assert len(rows) == 10
    failed = {row["source_id"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {f"s{i:02d}" for i in (*range(7), 9)}
    assert failed["s09"].startswith("the script raised ValueError: no s09 (line ") and rows[9]["finish_reason"] == "error"
    assert rows[9]["steps"], "what was drawn before is kept"


@pytest.mark.parametrize("across_callers", [False, True])
@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_a_generator_that_fails_on_the_first_sources_stops_the_run(across_callers: bool, count: int) -> None:
    @Written
    def broken(source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
        yield draw("one", source.document, GREEDY)
        if int(source.source_id[1:]) < 8:
            raise KeyError("instruction")
        return [Draft("", "text")]

    with pytest.raises(LimbeckError, match=f"each of the first {min(8, count)} sources .* KeyError: 'instruction'"):
        run(broken, sources(count), ScriptedEngine(echo), across_callers=across_callers)
    assert len(run(broken, sources(count), ScriptedEngine(echo), whole=False, across_callers=across_callers)) == count


def test_an_engine_error_fails_one_completion_of_several_and_the_source_of_a_single_one() -> None:
    def answer(request: Request) -> Completion:
        if request.request_id in ("s01/several/1", "s02/single/0", "s03/single/0"):
            return Completion(request.request_id, "", (), "error", 5, "the prompt is too long")
        return echo(request)

    @Written
    def script(source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
        several = yield draw("several", source.document, GREEDY, n=2)
        try:
            yield draw("single", source.document, GREEDY)
        except StepFailed:
            if source.source_id == "s02":
                raise
            return [Draft("", "caught")]
        return [Draft.of(one, "") for one in several]

    rows = run(script, sources(4), ScriptedEngine(answer))
    assert [(row["source_id"], row["error"]) for row in rows] == [
        ("s00", None),
        ("s00", None),
        ("s01", None),
        ("s01", "the prompt is too long"),
        ("s02", "the prompt is too long"),
        ("s03", None),
    ]
    assert rows[5]["output"] == "caught"


@pytest.mark.parametrize("across_callers", [False, True])
def test_a_dead_engine_is_not_a_source_s_fault(across_callers: bool) -> None:
    def answer(request: Request) -> Completion:
        raise EngineDied("the server is gone")

    with pytest.raises(EngineDied):
        run(five_steps, sources(3), ScriptedEngine(answer), across_callers=across_callers)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda source, draw, pool: _nothing(draw), "the script returned no draft"),
        (lambda source, draw, pool: _endless(draw), f"more than {STEP_LIMIT} steps"),
        (lambda source, draw, pool: _wrong(), "the script yielded str instead of draw(...) or draw.logprobs(...) (line "),
        (lambda source, draw, pool: [Draft("p", "o")], "the script returned list without a yield"),
        (lambda source, draw, pool: 1 / 0, "the script raised ZeroDivisionError: division by zero (line "),
        (lambda source, draw: None, "the script raised TypeError"),
        (lambda source, draw, pool: _returns(Draft("p", "o")), "the script returned Draft instead of a list of drafts"),
        (lambda source, draw, pool: _returns(["text"]), "the script returned a list with str in it; make drafts with Draft.of"),
        (lambda source, draw, pool: _returns([Draft(None, "o")]), "a draft whose prompt is NoneType, not text"),  # type: ignore[arg-type]
        (lambda source, draw, pool: _returns([Draft("p", "\ud800")]), "a draft that cannot be stored: "),
        (lambda source, draw, pool: _returns([Draft("p", "o", facts={"x": {1}})]), "a draft that cannot be stored: "),
        (lambda source, draw, pool: _refuses(draw), "too short"),
    ],
)
def test_scripts_that_lead_nowhere_leave_a_row_with_the_reason(function: Any, reason: str) -> None:
    (row,) = run(Written(function), sources(1), ScriptedEngine(echo), whole=False)
    assert reason in row["error"] and row["output"] == ""


def _nothing(draw: Draw) -> Script:
    yield draw("one", "x", GREEDY)
    return []


def _endless(draw: Draw) -> Script:
    while True:
        yield draw("again", "x", GREEDY)


def _returns(value: Any) -> Any:
    return value
    yield


def _wrong() -> Script:
    yield "a prompt"  # type: ignore[misc]
    return []


def _refuses(draw: Draw) -> Script:
    text = yield draw("one", "x", GREEDY)
    return [Draft.rejected(text, "too short")]


def test_a_script_may_ask_several_engines() -> None:
    @Written
    def judged(source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
        answer = yield draw("one", source.document, GREEDY)
        (score,) = yield draw.logprobs(answer, (" good",), engine="judge")
        return [Draft.of(answer, "", facts={"score": score})]

    teacher, judge = ScriptedEngine(echo), ScriptedEngine(echo, lambda pair: [-0.5, -0.25])
    rows = Runner(judged, 3, 1).run(sources(4), {"teacher": teacher, "judge": judge}).to_pylist()
    assert (len(teacher.requests), len(teacher.pairs), len(judge.pairs)) == (4, 0, 4)
    assert json.loads(rows[0]["facts"]) == {"score": -0.75}
    with pytest.raises(LimbeckError, match="uses engine 'judge', which the generator does not declare; known: teacher"):
        run(judged, sources(1), teacher, whole=False)


def test_an_engine_that_batches_across_callers_stays_full() -> None:
    """At every moment the requests in flight are those of all sources that wait for an answer."""
    waiting, state = threading.Condition(), {"in_flight": 0, "done": 0, "seen": []}
    left = {f"s{i:02d}": 1 + i % 6 for i in range(64)}

    class Slow(ScriptedEngine):
        def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
            with waiting:
                state["in_flight"] += len(requests)
                waiting.notify_all()
            # answer one source at a time, only when all sources that are not finished wait here
            source_id = requests[0].request_id.partition("/")[0]
            with waiting:
                assert waiting.wait_for(lambda: _turn() == source_id and state["in_flight"] == _unfinished(), timeout=60)
                state["seen"].append((state["in_flight"], _unfinished()))
                state["in_flight"] -= len(requests)
                left[source_id] -= 1
                waiting.notify_all()
            return iter([echo(request) for request in requests])

    def _unfinished() -> int:
        return sum(count > 0 for count in left.values())

    def _turn() -> str | None:
        return max(left, key=lambda source_id: (left[source_id], source_id), default=None)

    @Written
    def steps(source: Source, draw: Draw, pool: Sequence[Any]) -> Script:
        for number in range(1 + int(source.source_id[1:]) % 6):
            yield draw(f"step{number}", source.document, GREEDY)
        return [Draft("", "done")]

    rows = run(steps, sources(64), Slow(echo), across_callers=True)
    assert len(rows) == 64 and len(state["seen"]) == sum(1 + i % 6 for i in range(64))
    assert all(in_flight == unfinished for in_flight, unfinished in state["seen"])


def test_answers_of_an_unfinished_part_survive_in_a_journal(tmp_path: Path) -> None:
    asked: list[str] = []

    def dies_after_five(request: Request) -> Completion:
        if len(asked) == 5:
            raise EngineDied("killed")
        asked.append(request.request_id)
        return echo(request)

    class InOrder(ScriptedEngine):
        def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
            return (self._answer(request) for request in requests)  # type: ignore[misc]

    journal = tmp_path / "journal" / "part-00000.jsonl"
    with pytest.raises(EngineDied):
        run(five_steps, sources(8), JournaledEngine(InOrder(dies_after_five), journal))
    assert len(journal.read_text().splitlines()) == 5
    with open(journal, "a") as file:
        file.write('{"key": "cut of')  # what a crash leaves
    again = ScriptedEngine(echo)
    rows = run(five_steps, sources(8), JournaledEngine(again, journal))
    assert rows == run(five_steps, sources(8), ScriptedEngine(echo))
    assert not {request.request_id for request in again.requests} & set(asked), "what was answered is not asked again"


def test_only_the_runner_calls_an_engine() -> None:
    rooms = Path(__file__).parents[2] / "src/limbeck/generators"
    calls = [".complete(", ".logprobs(", ".count_tokens("]
    others = [path for path in rooms.resolve().rglob("*.py") if path.name != "runner.py"]
    assert len(others) > 2
    found = [path.name for path in others for call in calls if call in path.read_text().replace("draw.logprobs(", "")]
    assert found == []


def test_candidates_have_their_columns_and_no_source_makes_an_empty_table() -> None:
    table = Runner(five_steps, 3, 1).run(sources(0), {"teacher": ScriptedEngine(echo)})
    assert table.num_rows == 0 and table.column_names == [*CANDIDATES.names, "steps"]
