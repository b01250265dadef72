"""Keys: they reach workers on every node and are written nowhere, and a rotated one costs no row."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.clusters import DRIVER_SETTINGS, RayCluster, ray_cluster
from helpers.commands import limbeck, script, settings
from helpers.fault_server import FaultServer, byte_tokenizer, served_as_bytes
from helpers.tiny_run import recipe, write_recipe
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.engine import build
from limbeck.cluster.engines.protocol import Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES

KEY = "ENDPOINT_TEST_KEY"
FIRST, SECOND = "sk-first-0123456789abcdef", "sk-second-0123456789abcdef"
SERVED = ({"id": "tiny", "max_model_len": 1024},)


def ask(number: int) -> Request:
    return Request(str(number), (Message("user", f"Prompt {number}"),), Sampling(8), number)


def test_a_key_that_is_rotated_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows in flight at that moment, and those whose refusal arrives later, are sent again with the new key."""
    monkeypatch.setenv(KEY, FIRST)
    with FaultServer(key=FIRST, seconds=0.01) as server:
        engine = build(EndpointConfig(model=str(byte_tokenizer(tmp_path)), base_url=server.url, api_key_env=KEY))
        found = []
        for completion in engine.complete([ask(number) for number in range(300)]):
            found.append(completion)
            if len(found) == 100:
                monkeypatch.setenv(KEY, SECOND)
                server.key = SECOND
        engine.close()
    assert sorted(int(completion.request_id) for completion in found) == list(range(300))
    assert [completion.error for completion in found if completion.error] == []
    assert not server.sent_again


def test_a_key_that_is_rotated_on_the_server_first_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused rows are held until a trial; by then the variable has the new key."""
    monkeypatch.setenv(KEY, FIRST)
    with FaultServer(key=FIRST, seconds=0.01) as server:
        engine = build(EndpointConfig(model=str(byte_tokenizer(tmp_path)), base_url=server.url, api_key_env=KEY))
        list(engine.complete([ask(0)]))
        server.key = SECOND
        server.on_refusal = lambda: monkeypatch.setenv(KEY, SECOND)  # before the trial that follows
        results = list(engine.complete([ask(1)]))
        engine.close()
    assert [completion.error for completion in results] == [None]


def test_a_server_that_refuses_every_key_is_asked_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, FIRST)
    with FaultServer(key=FIRST) as server:
        engine = build(EndpointConfig(model=str(byte_tokenizer(tmp_path)), base_url=server.url, api_key_env=KEY))
        server.key = SECOND
        with pytest.raises(LimbeckError, match=f"the key in {KEY} is not accepted") as refused:
            list(engine.complete([ask(number) for number in range(1000)]))
        engine.close()
    assert FIRST not in str(refused.value)
    assert len(server.paths) < 200


def test_an_engine_that_starts_with_a_refused_key_reads_it_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.cluster.engines.endpoint.server import Key, ask_what_is_served

    monkeypatch.setenv(KEY, FIRST)
    with FaultServer(key=SECOND) as server:
        config = EndpointConfig(model=str(byte_tokenizer(tmp_path)), base_url=server.url, api_key_env=KEY)
        key = Key.of(config)
        monkeypatch.setenv(KEY, SECOND)
        assert ask_what_is_served(config, key).name == "tiny"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_as_bytes(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster that was started without the key."""
    assert KEY not in os.environ
    with ray_cluster({"num_cpus": 2}) as cluster:
        yield cluster


def changes(home: Path, url: str) -> dict[str, Any]:
    model = recipe(home)["teacher"]["model"]
    teacher = {"kind": "endpoint", "model": model, "base_url": url, "backoff_seconds": 0.05, "api_key_env": KEY}
    return {"rounds": 1, "student": None, "teacher": teacher}


def session_folder(cluster: RayCluster) -> Path:
    words = psutil.Process(cluster.raylets[0]).cmdline()
    return Path(next(word for word in words if word.startswith("--session_dir=")).partition("=")[2])


def files_with(text: str, *folders: Path) -> list[Path]:
    """The files below these folders that contain a text."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
                found.append(path)
    return found


def told_by_ray(address: str) -> str:
    """All that Ray's control store says about jobs, actors and configurations, as text."""
    code = f"""
import ray, ray._private.worker
ray.init(address={address!r}, log_to_driver=False, logging_level="ERROR")
client = ray._private.worker.global_worker.gcs_client
print(client.get_all_job_info(), ray._private.state.actors())
for key in client.internal_kv_keys(b"", None):
    print(key, client.internal_kv_get(key, None))
for name in (b"job", b"fun", b"session", b"tracing"):
    for key in client.internal_kv_keys(b"", name):
        print(key, client.internal_kv_get(key, name))
"""
    environment = {**settings(), **DRIVER_SETTINGS}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_key_reaches_the_workers_of_a_joined_cluster_and_is_written_nowhere(home: Path, cluster: RayCluster) -> None:
    out = home / "run"
    with FaultServer(models=SERVED, key=FIRST) as server:
        given = {"RAY_ADDRESS": cluster.address, KEY: FIRST}
        done = limbeck("run", write_recipe(home, **changes(home, server.url)), "--out", out, "--no-panel", **given)
    assert done.returncode == 0, done.stderr
    candidates = read_parts(out / "rounds/000/candidates", CANDIDATES)
    assert candidates.num_rows == 36 and not candidates["error"].drop_null().to_pylist()
    assert (out / "lock.json").exists() and (session_folder(cluster) / "logs").exists(), "what is searched exists"
    assert files_with(FIRST, out, session_folder(cluster)) == []
    told = told_by_ray(cluster.address)
    assert "Worker" in told and FIRST not in told
    assert FIRST not in done.stdout + done.stderr


ROTATING = """
import os, sys
from pathlib import Path
from limbeck.pipelines import recipe
from limbeck.pipelines.run import run

def listener(event):
    if event["event"] == "part_done" and not Path(sys.argv[3]).exists():
        os.environ[{key!r}] = {second!r}
        Path(sys.argv[3]).touch()

run(recipe.load(Path(sys.argv[1]), []), Path(sys.argv[2]), listener=listener)
"""


@pytest.mark.slow
def test_workers_get_a_key_that_the_driver_has_rotated(home: Path, tmp_path: Path, cluster: RayCluster) -> None:
    path, out, rotated = tmp_path / "rotating.py", tmp_path / "run", tmp_path / "rotated"
    path.write_text(ROTATING.format(key=KEY, second=SECOND))
    done = threading.Event()
    with FaultServer(models=SERVED, key=FIRST) as server:

        def rotate() -> None:
            while not done.is_set():
                if rotated.exists():
                    server.key = SECOND
                time.sleep(0.01)

        watching = threading.Thread(target=rotate, daemon=True)
        watching.start()
        config = write_recipe(home, **changes(home, server.url), cluster={"rows_per_part": 1, "threads_per_worker": 1})
        given = {"RAY_ADDRESS": cluster.address, KEY: FIRST}
        finished = script(path, config, out, rotated, **given)
        done.set()
        watching.join()
    assert finished.returncode == 0, finished.stderr
    assert server.key == SECOND
    candidates = read_parts(out / "rounds/000/candidates", CANDIDATES)
    assert candidates.num_rows == 36 and not candidates["error"].drop_null().to_pylist()
    assert files_with(SECOND, out, session_folder(cluster)) == []
