"""The ledger: whatever is set aside and settled in whatever order, the budget holds, and counts in a file are those in memory."""

import json
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers.fault_server import FaultServer, byte_tokenizer, scattered
from limbeck.cluster.engines.endpoint.budget import Ledger
from limbeck.cluster.engines.endpoint.config import EndpointBudget, EndpointConfig
from limbeck.cluster.engines.endpoint.engine import EndpointEngine, build
from limbeck.cluster.engines.protocol import Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(byte_tokenizer(tmp_path_factory.mktemp("model")))


def engine_for(server: FaultServer, model: str, budget: EndpointBudget) -> EndpointEngine:
    return build(EndpointConfig(model=model, base_url=server.url, backoff_seconds=0.01, patience_seconds=20.0, budget=budget))


def rows(first: int, count: int, max_new_tokens: int = 24) -> list[Request]:
    numbers = range(first, first + count)
    return [Request(str(n), (Message("user", f"row {n}"),), Sampling(max_new_tokens), n) for n in numbers]


REQUESTS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 100), st.floats(0, 1), st.booleans()), max_size=60)


@settings(deadline=None)
@given(
    tokens=st.none() | st.integers(1, 5000),
    money=st.none() | st.floats(0.00001, 0.02),
    prices=st.tuples(st.floats(0.01, 20), st.floats(0, 60)),
    requests=REQUESTS,
)
def test_no_order_of_requests_exceeds_the_budget(
    tokens: int | None, money: float | None, prices: tuple[float, float], requests: list[tuple[int, int, float, bool]]
) -> None:
    budget = EndpointBudget(tokens=tokens, money=money, price_per_million_input=prices[0], price_per_million_output=prices[1])
    ledger, open_, spent = Ledger(budget), [], [0, 0]

    def cost(amounts: list[int]) -> float:
        return (amounts[0] * prices[0] + amounts[1] * prices[1]) / 1e6

    for prompt, most, share, comes_back in requests:
        worst = (prompt, most)
        aside = [spent[side] + sum(job[0][side] for job in open_) + worst[side] for side in (0, 1)]
        fits = (tokens is None or sum(aside) <= tokens) and (money is None or cost(aside) <= money)
        assert ledger.reserve(worst) == fits
        if fits:
            open_.append((worst, (prompt, int(share * most))))
        if comes_back and open_:
            job = open_.pop(0)
            ledger.settle(*job)
            spent = [spent[0] + job[1][0], spent[1] + job[1][1]]
        assert tokens is None or sum(spent) <= tokens
        assert money is None or cost(spent) <= money
        assert ledger.spent_money() == pytest.approx(cost(spent))
    for job in open_:
        ledger.settle(*job)
    assert ledger.set_aside == [0, 0] and ledger.taken == ledger.own


def test_it_says_what_was_spent() -> None:
    prices = {"price_per_million_input": 1000.0, "price_per_million_output": 2000.0}
    ledger = Ledger(EndpointBudget(tokens=1000, money=2.0, **prices))
    assert ledger.reserve((600, 300))
    ledger.settle((600, 300), (600, 100))
    assert not ledger.reserve((200, 200))
    assert str(ledger.spent((200, 200))) == (
        "the endpoint's budget is spent: 700 of 1,000 tokens and 0.8000 of 2 in money (600 prompt and 100 drawn tokens), and the "
        "next request could take 400 more; raise budget and rerun to resume"
    )


def test_settling_twice_is_our_own_mistake() -> None:
    ledger = Ledger(EndpointBudget(tokens=100))
    assert ledger.reserve((10, 10))
    ledger.settle((10, 10), (10, 2))
    with pytest.raises(AssertionError):
        ledger.settle((10, 10), (10, 2))


def test_a_ledger_on_disk_counts_what_a_dead_process_had_set_aside(tmp_path: Path) -> None:
    budget = EndpointBudget(tokens=100, ledger=str(tmp_path / "deep" / "ledger"))
    first = Ledger(budget)
    assert first.reserve((40, 20)) and first.reserve((10, 10))
    first.settle((40, 20), (40, 5))
    del first  # the second request was never settled
    second = Ledger(budget)
    assert not second.reserve((20, 16)) and second.reserve((20, 15))
    assert second.own == [20, 15]
    assert json.loads((tmp_path / "deep" / "ledger").read_text()) == [70, 30]


def take(budget: EndpointBudget, taken: "multiprocessing.Queue[int]") -> None:
    ledger, count = Ledger(budget), 0
    while ledger.reserve((7, 3)):
        ledger.settle((7, 3), (7, 1))
        count += 8
    taken.put(count)


def test_processes_count_together(tmp_path: Path) -> None:
    budget = EndpointBudget(tokens=1000, ledger=str(tmp_path / "ledger"))
    fork = multiprocessing.get_context("fork")
    taken: multiprocessing.Queue[int] = fork.Queue()
    processes = [fork.Process(target=take, args=(budget, taken)) for _ in range(3)]
    for process in processes:
        process.start()
    counts = [taken.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert 970 <= sum(counts) <= 1000 and sum(json.loads((tmp_path / "ledger").read_text())) == sum(counts)


@pytest.mark.parametrize("content", ["nonsense", "[1]", '["a", 2]', "{}", "5"])
def test_a_damaged_ledger_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "ledger").write_text(content)
    with pytest.raises(LimbeckError, match="ledger is damaged"):
        Ledger(EndpointBudget(tokens=5, ledger=str(tmp_path / "ledger"))).reserve((1, 1))


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="cannot be written"):
        Ledger(EndpointBudget(tokens=5, ledger=str(tmp_path))).reserve((1, 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "127.0.0.1:8000"}, "must be like http"),
        ({"base_url": "ftp://host/v1"}, "must be like http"),
        ({"base_url": "http://host:port/v1"}, "is not a URL"),
        ({"budget": {"money": 3.0}}, "needs price_per_million_input"),
        ({"tokens": 3}, "unknown key 'tokens'"),
        ({"attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_configs_that_cannot_work(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EndpointConfig.model_validate({"model": "m", **settings})


@pytest.mark.parametrize("url", ["http://me:hunter2@host/v1", "https://host/v1?api_key=hunter2", "https://host/v1#hunter2"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="environment variable") as caught:
        EndpointConfig(model="m", base_url=url)
    assert "hunter2" not in str(caught.value)
    assert not [error for error in caught.value.errors() if isinstance(error["input"], str)], "recipes show a field's input"


def test_a_slash_at_the_end_of_the_url_makes_no_difference() -> None:
    assert EndpointConfig(model="m", base_url="http://h/v1/") == EndpointConfig(model="m", base_url="http://h/v1")


@pytest.mark.parametrize(
    "limits", [{"tokens": 6000}, {"money": 0.012, "price_per_million_input": 1.0, "price_per_million_output": 3.0}]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_budgets_are_never_exceeded(model: str, limits: dict[str, Any], seed: int) -> None:
    with FaultServer(plan=scattered(seed, set(), set()), seconds=0.002) as server:
        engine = engine_for(server, model, EndpointBudget(**limits))
        calls: list[tuple[int, str]] = []

        def work(first: int) -> None:
            count = 0
            try:
                for answer in engine.complete(rows(first, 300, 40)):
                    count += answer.error is None
            except LimbeckError as error:
                calls.append((count, str(error)))

        threads = [threading.Thread(target=work, args=(1000 * t,)) for t in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.close()
    assert len(calls) == 3 and all("the endpoint's budget is spent" in words and "of" in words for _, words in calls)
    assert sum(count for count, _ in calls) == len(server.answered), "what was answered was handed over"
    if "tokens" in limits:
        assert 3000 < sum(server.billed) <= 6000
    else:
        assert 0.006 < (server.billed[0] + 3 * server.billed[1]) / 1e6 <= 0.012
        assert engine.usage.extra["money"] <= 0.012


def test_a_ledger_is_shared_and_outlives_its_engines(model: str, tmp_path: Path) -> None:
    budget = EndpointBudget(tokens=2000, ledger=str(tmp_path / "ledger"))
    with FaultServer() as server:
        engines = [engine_for(server, model, budget) for _ in range(2)]
        assert not any(answer.error for answer in engines[0].complete(rows(0, 20)))
        for engine in (engines[1], engine_for(server, model, budget)):
            with pytest.raises(LimbeckError, match="of 2,000 tokens"):
                list(engine.complete(rows(100, 100)))
            engine.close()
        engines[0].close()
    assert 1800 < sum(server.billed) <= 2000
