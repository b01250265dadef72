"""Rows that always fail at the end of a call: a server that answers a probe is not dead, and the probe is sent only once."""

from pathlib import Path

import pytest

from helpers.fault_server import FaultServer, byte_tokenizer
from limbeck.cluster.engines.endpoint.config import EndpointBudget, EndpointConfig
from limbeck.cluster.engines.endpoint.engine import build
from limbeck.cluster.engines.protocol import EngineDied, Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError

POISON = [f"row {number}" for number in range(30, 36)]
TRIAL = "Hello|None"  # the probe, which is not a row


def ask(count: int = 36) -> list[Request]:
    return [Request(str(n), (Message("user", f"row {n}"),), Sampling(24), seed=n) for n in range(count)]


def config(folder: Path, server: FaultServer, **settings: object) -> EndpointConfig:
    patience = {"backoff_seconds": 0.01, "patience_seconds": 1.0, "attempts": 3}
    return EndpointConfig(model=str(byte_tokenizer(folder / "model")), base_url=server.url, **{**patience, **settings})


@pytest.mark.parametrize("fault", ["500", "cut", "malformed"])
@pytest.mark.parametrize("style", ["chat", "plain"])
def test_several_rows_that_always_fail_are_not_the_servers_death(tmp_path: Path, fault: str, style: str) -> None:
    with FaultServer(plan=lambda prompt, before: fault if prompt in POISON else "") as server:
        engine = build(config(tmp_path, server))
        requests = ask() if style == "chat" else [Request(r.request_id, r.prompt[0].content, r.sampling, r.seed) for r in ask()]
        found = {answer.request_id: answer for answer in engine.complete(requests)}
        engine.close()
    assert [f"row {name}" for name in sorted(found, key=int) if found[name].error] == POISON
    assert all("attempts failed, the last with" in str(found[row.split()[1]].error) for row in POISON)
    assert [name for name in server.sent_again if name != TRIAL] == []
    assert 1 <= server.arrivals[TRIAL] <= 3, "a trial for several of them"
    assert engine.usage.extra["requests"] == sum(server.arrivals.values())


def test_a_server_that_fails_the_trial_too_is_dead(tmp_path: Path) -> None:
    with FaultServer(plan=lambda prompt, before: "500" if prompt in [*POISON, "Hello"] else "") as server:
        engine = build(config(tmp_path, server))
        with pytest.raises(EngineDied, match="answered no request for .* requests got: 500"):
            list(engine.complete(ask()))
        engine.close()
    assert server.arrivals[TRIAL] == 1


def test_a_trial_is_paid_from_the_budget(tmp_path: Path) -> None:
    """The probe is not sent if it exceeds the budget; without it, the server counts as dead."""
    with FaultServer(plan=lambda prompt, before: "500" if prompt in POISON else "") as server:
        room = sum(19 + len(f"row {n}") + 24 + 16 for n in range(36))
        engine = build(config(tmp_path, server, budget=EndpointBudget(tokens=room)))
        with pytest.raises((EngineDied, LimbeckError)):
            for _ in range(20):
                list(engine.complete(ask()))
        engine.close()
        assert sum(server.billed) <= room
