"""A whole run whose teacher and PMI critic answer over HTTP, from a server that fails now and then; and its budget."""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.fault_server import FaultServer, nothing_listens, served_as_bytes
from helpers.tiny_run import recipe, write_recipe
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES

SERVED = ({"id": "tiny", "max_model_len": 1024},)


def endpoint(home: Path, url: str, **settings: object) -> dict[str, object]:
    """A recipe's changes: the tiny teacher behind `url`."""
    model = recipe(home)["teacher"]["model"]
    teacher = {"kind": "endpoint", "model": model, "base_url": url, "backoff_seconds": 0.05, **settings}
    return {"rounds": 1, "student": None, "teacher": teacher}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_as_bytes(tmp_path_factory.mktemp("endpoint"))


def test_a_run_over_http_loses_no_row_and_asks_none_twice(home: Path, ray_address: str) -> None:
    sent, lock = Counter[str](), threading.Lock()

    def every_fifth_fails_once(prompt: str, before: int) -> str:
        with lock:
            sent[prompt] += 1
            return "500" if before == 0 and sent.total() % 5 == 0 else ""

    with FaultServer(plan=every_fifth_fails_once, models=SERVED) as server:
        done = limbeck(
            "run", write_recipe(home, **endpoint(home, server.url)), "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address
        )
        assert done.returncode == 0, done.stderr
        drawn = [call for call in server.sent_again if not call.endswith("|None")]  # scored texts have no seed
        assert not drawn
    candidates = read_parts(home / "run/rounds/000/candidates", CANDIDATES)
    assert candidates.num_rows == 36 and not candidates["error"].drop_null().to_pylist()
    scores = read_parts(home / "run/rounds/000/scores/pmi")
    assert scores["faithfulness"].null_count == 0


def test_a_spent_budget_ends_the_run_and_is_remembered(home: Path, ray_address: str) -> None:
    out = home / "poor"
    with FaultServer(models=SERVED) as server:
        changes = endpoint(home, server.url, budget={"tokens": 3000})
        first = limbeck("run", write_recipe(home, **changes), "--out", out, "--no-panel", RAY_ADDRESS=ray_address)
        again = limbeck("run", write_recipe(home, **changes), "--out", out, "--no-panel", RAY_ADDRESS=ray_address)
        assert 0 < sum(server.billed) <= 3000
    assert first.returncode == 1 and "budget" in first.stderr and "Traceback" not in first.stderr
    assert again.returncode == 1 and "budget" in again.stderr
    assert (out / "endpoint-budget.json").exists()


def test_the_preflight_asks_the_server(home: Path) -> None:
    with nothing_listens() as url:
        done = limbeck("check", write_recipe(home, **endpoint(home, url)), "--json")
    assert done.returncode == 1
    assert any("no response from" in problem for problem in json.loads(done.stdout)["problems"])
