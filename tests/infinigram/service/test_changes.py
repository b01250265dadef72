"""Indexes that change, or lose their files, while they are served."""

import multiprocessing
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn

from helpers import ngram_served as tools
from limbeck import _infinigram
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.maintain import append, compact, remove
from limbeck.infinigram.readers import Holder, behind
from limbeck.infinigram.service import served as service
from limbeck.infinigram.service.app import ServiceConfig, assemble, make_app
from limbeck.infinigram.service.limits import Limits, Refused
from limbeck.infinigram.service.served import IndexSpec, Serving
from limbeck.infinigram.service.server import Supervisor
from limbeck.pipelines.cli import ngram_show

UNTIL_SECONDS = 120


def write_texts(folder: Path, texts: list[str]) -> Path:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    sources = write_texts(tmp_path / "texts", ["the still boils", "a copper still", "a lamp", "still water " * 3000])
    build([sources], tmp_path / "a", Settings(tokenizer="bytes"))
    return tmp_path / "a"


def specs(*folders: Path) -> tuple[IndexSpec, ...]:
    return tuple(IndexSpec(name=folder.name, paths=(str(folder),)) for folder in folders)


def serving_of(*folders: Path) -> Serving:
    return Serving(specs(*folders), Limits())


def number_of(index, text):
    return next(number for number in range(index.document_count) if index.document(number).text == text)


def test_a_change_is_served_and_earlier_requests_keep_their_index(folder, tmp_path):
    serving = serving_of(folder)
    before = serving.find("a")
    assert before.index.count("copper") == 1
    remove(folder, [number_of(before.index, "a copper still")])
    assert serving.find("a") is before
    serving.refresh()
    assert before.index.count("copper") == 1
    assert serving.find("a").index.count("copper") == serving.find("a").official.count(list(b"copper"))["count"] == 0
    append(folder, [write_texts(tmp_path / "more", ["copper copper"])], Settings())
    serving.refresh()
    assert serving.find("a").index.count("copper") == 2
    compact(folder, Settings())
    serving.refresh()
    assert serving.find("a").index.count("copper") == 2
    again = serving.find("a")
    serving.refresh()
    assert serving.find("a") is again and serving.problems == {}


def test_a_removal_is_shown_within_seconds_and_no_request_fails(folder):
    with tools.running(make_app(ServiceConfig(specs(folder)))) as url, httpx.Client(base_url=url) as client:

        def found(text):
            answers = [
                client.post("/v1/a/count", json={"text": text}),
                client.post("/v1/a/search", json={"text": text}),
                client.post("/", json={"index": "a", "query_type": "count", "query": text}),
            ]
            assert [answer.status_code for answer in answers] == [200] * 3
            return answers[0].json()["count"], len(answers[1].json()["documents"]), answers[2].json()["count"]

        assert found("copper") == (1, 1, 1)
        remove(folder, [1])
        until = time.monotonic() + UNTIL_SECONDS
        while found("copper") != (0, 0, 0):
            assert time.monotonic() < until
        assert client.get("/health").json() == {"status": "ok", "indexes": ["a"], "problems": {}}


def test_remove_lists_services_that_do_not_follow(folder, capsys, monkeypatch):
    monkeypatch.setattr(ngram_show, "_SERVICE_SECONDS", 0.0)
    serving = serving_of(folder)
    assert behind(folder) == []
    remove(folder, [1])
    (late,) = behind(folder)
    assert isinstance(late, Holder) and late.pid > 0
    ngram_show.removed(1, folder, False)
    assert f"process {late.pid} on {late.host} serves this index and still shows documents removed now" in capsys.readouterr().out
    serving.refresh()
    assert behind(folder) == []
    ngram_show.removed(1, folder, True)
    assert '"services_behind": []' in capsys.readouterr().out
    remove(folder, [2])
    assert len(behind(folder)) == 1
    serving.close()
    assert behind(folder) == [] and list((folder / ".readers").iterdir()) == []


def test_files_of_services_that_crashed_are_no_holders(folder):
    (folder / ".readers").mkdir()
    (folder / ".readers" / "crashed.json").write_text('{"host": "x", "pid": 1, "state": "other"}')
    assert behind(folder) == []
    assert list((folder / ".readers").iterdir()) == []


@pytest.mark.parametrize("name", ["tokenized.0", "table.0", "offset.0", "metadata.0"])
def test_an_index_whose_file_shrinks_is_taken_out_and_comes_back(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "b")
    serving = serving_of(folder, tmp_path / "b")
    whole = (folder / name).read_bytes()
    with open(folder / name, "r+b") as file:
        file.truncate(len(whole) // 2)
    serving.refresh()
    with pytest.raises(Refused, match=f"out of service.*{name}") as refused:
        serving.find("a")
    assert refused.value.status == 503 and serving.find("b").index.count("copper") == 1
    assert list(serving.problems) == ["a"] and [one.name for one in serving] == ["b"]
    (folder / name).write_bytes(whole)
    serving.refresh()
    assert serving.find("a").index.count("copper") == 1 and serving.problems == {}


def test_a_read_beyond_the_end_of_a_file_ends_no_process(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "_POLL_SECONDS", 1e6)  # the read comes before the next look
    shutil.copytree(folder, tmp_path / "b")
    with tools.running(assemble(ServiceConfig(specs(folder, tmp_path / "b")), serving_of(folder, tmp_path / "b"))) as url:
        asked = {"text": "copper", "limit": 1}
        assert httpx.post(f"{url}/v1/a/search", json=asked).status_code == 200
        for name in ("tokenized.0", "table.0"):
            with open(folder / name, "r+b") as file:
                file.truncate(0)
        caught = _infinigram.shrinks()
        answer = httpx.post(f"{url}/v1/a/search", json=asked)
        assert answer.status_code == 503 and "shrank while it was read" in answer.json()["error"]
        assert _infinigram.shrinks() > caught
        for path, body in (("v1/a/count", {"text": "copper"}), ("", {"index": "a", "query_type": "count", "query": "copper"})):
            answer = httpx.post(f"{url}/{path}", json=body)
            assert answer.status_code == 503 and "out of service" in answer.json()["error"]
        assert httpx.post(f"{url}/v1/b/count", json={"text": "copper"}).json()["count"] == 1
        health = httpx.get(f"{url}/health")
        assert health.status_code == 200 and health.json()["status"] == "degraded"
        assert health.json()["indexes"] == ["b"] and list(health.json()["problems"]) == ["a"]


def test_a_worker_starts_without_an_index_that_cannot_be_opened_but_a_service_does_not(folder, tmp_path):
    (folder / "table.0").write_bytes(b"")
    with pytest.raises(BadIndex, match=r"table\.0"):
        make_app(ServiceConfig(specs(folder)))
    shutil.copytree(folder, tmp_path / "bad")
    serving = serving_of(tmp_path / "bad")
    with tools.running(assemble(ServiceConfig(specs(tmp_path / "bad")), serving), healthy=False) as url:
        assert httpx.get(f"{url}/health").status_code == 503
        assert httpx.get(f"{url}/v1/indexes").json() == []


GARBAGE = {
    "table.0": [("v1/a/count", {"text": "copper"}), ("", {"index": "a", "query_type": "count", "query": "copper"})],
    "offset.0": [("v1/a/search", {"text": "copper"}), ("", {"index": "a", "query_type": "search_docs", "query": "copper"})],
    "metaoff.0": [("v1/a/search", {"text": "copper"}), ("", {"index": "a", "query_type": "search_docs", "query": "copper"})],
}


def overwrite(path: Path) -> bytes:
    """Overwrite a mapped file in place with numbers that are all out of range; return what it held."""
    whole = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(b"\xff" * len(whole))
    return whole


@pytest.mark.parametrize(("name", "way"), [(name, way) for name in GARBAGE for way in range(2)])
def test_damage_that_a_request_found_is_a_problem_until_the_index_is_opened_again(folder, monkeypatch, name, way):
    monkeypatch.setattr(service, "_POLL_SECONDS", 1e6)
    serving = serving_of(folder)
    with tools.running(assemble(ServiceConfig(specs(folder)), serving)) as url:
        whole = overwrite(folder / name)
        path, body = GARBAGE[name][way]
        answer = httpx.post(f"{url}/{path}", json=body)
        assert answer.status_code == 500 and name in answer.json()["error"]
        expected = {"status": "degraded", "indexes": ["a"], "problems": {"a": answer.json()["error"]}}
        for _ in range(3):
            health = httpx.get(f"{url}/health")
            assert (health.status_code, health.json()) == (200, expected)
            serving.refresh()  # the same files are not opened again
        (folder / name).write_bytes(whole)
        serving.refresh()
        assert httpx.post(f"{url}/{path}", json=body).status_code == 200
        assert httpx.get(f"{url}/health").json() == {"status": "ok", "indexes": ["a"], "problems": {}}


def test_damage_that_one_worker_found_is_a_problem_of_all(folder, tmp_path):
    one, other = (Serving(specs(folder), Limits(), tmp_path) for _ in range(2))
    one.refresh()
    other.refresh()
    whole = overwrite(folder / "table.0")
    before = one.find("a")
    with pytest.raises(BadIndex, match=r"table\.0") as error:
        before.index.count("copper")
    one.damaged(before, error.value)
    assert other.problems == {}
    one.refresh()
    other.refresh()
    assert one.problems == other.problems == {"a": str(error.value)}
    (folder / "table.0").write_bytes(whole)
    for serving in (one, other, one, other):
        serving.refresh()
    assert one.problems == other.problems == {} and one.find("a") is not before
    one.damaged(before, error.value)  # by a request that began before
    assert one.problems == {}


@pytest.mark.parametrize("name", ["tokenized.0", "offset.0"])
def test_a_missing_file_is_a_problem_while_its_open_copy_is_served(folder, name):
    serving = serving_of(folder)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    serving.refresh()
    assert serving.problems["a"].startswith(f"{folder / name} is missing; its open copy is served")
    assert serving.find("a").index.count("copper") == 1
    (folder / name).write_bytes(whole)
    serving.refresh()
    assert serving.problems == {}


class Worker:
    """A worker of a supervisor, without a process."""

    made = 0

    def __init__(self, *_):
        Worker.made += 1
        self.pid = Worker.made
        self.parent_conn, self.child_conn = multiprocessing.Pipe()
        self.exitcode = None
        self.process = SimpleNamespace(is_alive=lambda: self.exitcode is None)

    def start(self):
        pass

    def kill(self):
        self.exitcode = -9 if self.exitcode is None else self.exitcode
        self.parent_conn.close()
        self.child_conn.close()

    def join(self):
        pass

    def answer(self):
        while self.child_conn.poll():
            self.child_conn.recv()
            self.child_conn.send(True)


@pytest.fixture
def supervised(monkeypatch):
    """A supervisor of two workers, and `look(seconds, ...)`: what happens to them in that time."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("limbeck.infinigram.service.server.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("limbeck.infinigram.service.server.Process", Worker)
    monkeypatch.setattr("uvicorn.supervisors.multiprocess.SIGNALS", {})  # those of the tests stay
    supervisor = Supervisor(uvicorn.Config("none", workers=2), [])
    supervisor.processes = [Worker(), Worker()]

    def look(seconds, answering=(), dying=None):
        """Return the times at which workers were replaced."""
        replaced = []
        for _ in range(int(2 * seconds)):
            for worker in supervisor.processes:
                if dying is not None:
                    worker.exitcode = dying
                if worker in answering:
                    worker.answer()
            before = list(supervisor.processes)
            supervisor.keep_subprocess_alive()
            replaced += [clock.now] if supervisor.processes != before else []
            clock.now += 0.5
        return replaced

    return SimpleNamespace(supervisor=supervisor, look=look, clock=clock)


def test_workers_that_keep_dying_are_restarted_at_growing_intervals(supervised, caplog):
    assert supervised.look(500, dying=-7) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483]
    assert "died (exit code -7); it is restarted, and the next restart is possible in 60 s" in caplog.text
    assert "did not answer" not in caplog.text
    assert supervised.look(100, answering=supervised.supervisor.processes) == [543]
    assert supervised.look(400, answering=supervised.supervisor.processes) == []
    assert supervised.look(5, dying=-7) == [1000, 1001, 1003]


def test_a_worker_that_starts_is_given_time_and_one_that_hangs_is_killed_and_called_so(supervised, caplog):
    first, second = supervised.supervisor.processes
    assert supervised.look(119, answering=[second]) == [] and caplog.text == ""
    first.answer()  # the first of them
    assert supervised.look(55, answering=[second]) == [] and supervised.look(10, answering=[first, second]) == []
    assert len(supervised.look(65, answering=[second])) == 1
    assert first.exitcode == -9 and second.exitcode is None
    assert f"worker {first.pid} did not answer for 60 s and was killed; it is restarted" in caplog.text
    assert "died" not in caplog.text
    third = supervised.supervisor.processes[0]
    assert supervised.look(110, answering=[second]) == [] and len(supervised.look(10, answering=[second])) == 1
    assert third.exitcode == -9 and f"worker {third.pid} did not answer for 120 s" in caplog.text


def test_a_supervisor_that_was_stopped_blames_no_worker(supervised, caplog):
    workers = list(supervised.supervisor.processes)
    supervised.look(5, answering=workers)
    for _ in range(50):
        supervised.clock.now += 1000
        assert supervised.look(0.5) == []
    assert supervised.supervisor.processes == workers and caplog.text == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_does_not_wait_for_a_replacement(supervised, number):
    stopping = supervised.supervisor.should_exit
    supervised.supervisor.signal_queue.append(signal.SIGHUP)
    assert not stopping.is_set()
    supervised.supervisor.signal_queue.append(number)
    assert stopping.is_set() and supervised.look(1, dying=-7) == []


def test_a_server_that_cannot_start_is_not_started_again(supervised, caplog):
    workers = list(supervised.supervisor.processes)
    supervised.look(2, dying=3)
    assert supervised.supervisor.should_exit.is_set() and supervised.supervisor.processes == workers
    assert "could not start the server" in caplog.text
