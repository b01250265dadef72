"""Addresses of clusters: found, joined, or refused in one sentence."""

import socket
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck.cluster import address
from limbeck.cluster.address import answers, cluster_address, host_and_port
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.corpus.errors import LimbeckError


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


def noted(tmp_path: Path, address: str) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(address + "\n")


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("10.0.0.5:6379", "10.0.0.5", 6379),
        ("localhost:1", "localhost", 1),
        ("ray-head.svc.cluster.local:6379", "ray-head.svc.cluster.local", 6379),
        ("my_head:65535", "my_head", 65535),
        ("[::1]:6379", "::1", 6379),
        ("[fe80::1%eth0]:6379", "fe80::1%eth0", 6379),
    ],
)
def test_an_address_is_a_host_and_a_port(given: str, host: str, port: int) -> None:
    assert host_and_port(given, "cluster.address") == (host, port)
    assert cluster_address(given) == given


@pytest.mark.parametrize(
    "address",
    [
        *("", " ", "localhost", "localhost:", ":6379", "host:port", "host:0", "host:65536", "host:-1", "host:6379/x", "a b:6379"),
        *("http://host:6379", "anyscale://x", "host:6379\nother", "::1:6379", "[::1:6379", "[]:6379", "host:６３７９", "Auto"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(LimbeckError, match="^cluster.address .* is not the address of a Ray cluster.*write host:port") as refused:
        cluster_address(address)
    assert "\n" not in str(refused.value)
    assert ("brackets" in str(refused.value)) == (address in ("::1:6379", "[::1:6379"))
    if address.strip():  # an empty variable is like none
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(LimbeckError, match="^RAY_ADDRESS "):
            cluster_address(None)


@pytest.mark.parametrize("source", ["cluster.address", "RAY_ADDRESS"])
def test_ray_client_is_refused_with_the_way_that_works(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    if source == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(LimbeckError, match=rf"^{source} ray://head:10001 .*ray job submit --address http://head:8265"):
        cluster_address("ray://head:10001" if source == "cluster.address" else None)


def test_local_and_nothing_mean_a_private_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cluster_address(None) is None and cluster_address("local") is None
    noted(tmp_path, "127.0.0.1:1")  # nothing listens there: the cluster has stopped
    assert cluster_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert cluster_address(None) is None


def test_auto_is_what_ray_s_variable_names_else_what_runs_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_address: str
) -> None:
    monkeypatch.setattr(address, "shared_clusters", set)
    with pytest.raises(LimbeckError, match="cluster.address is auto, but no Ray cluster runs on this machine; start one with"):
        cluster_address("auto")
    monkeypatch.setattr(address, "shared_clusters", lambda: {ray_address, "127.0.0.1:1"})  # nothing listens at the second
    assert cluster_address("auto") == ray_address
    monkeypatch.setattr(address, "answers", lambda found: found)
    with pytest.raises(
        LimbeckError, match=r"2 Ray clusters run on this machine \(127.0.0.1:1, .*; set cluster.address to the one"
    ):
        cluster_address("auto")
    noted(tmp_path, ray_address)
    assert cluster_address("auto") == ray_address == cluster_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert cluster_address(None) == ray_address
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert cluster_address("auto") == "10.0.0.5:6379"
    assert cluster_address("10.0.0.6:6379") == "10.0.0.6:6379", "the recipe's own wins"


@pytest.mark.parametrize("given", [{"RAY_ADDRESS": "auto"}, {}], ids=["variable", "recipe"])
def test_a_run_joins_the_cluster_that_auto_finds(tmp_path: Path, ray_address: str, given: dict[str, str]) -> None:
    noted(tmp_path, ray_address)
    cluster = {"rows_per_part": 4, "threads_per_worker": 1, **({} if given else {"address": "auto"})}
    recipe = write_recipe(tmp_path, rounds=1, student=None, cluster=cluster)
    done = limbeck("check", recipe, "--out", tmp_path / "run", RAY_TMPDIR=str(tmp_path), **given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"joins the Ray cluster at {ray_address}" in done.stdout


@pytest.mark.parametrize(
    ("address", "words"), [("ray://127.0.0.1:10001", "ray job submit"), ("six:two", "is not the address of a Ray cluster")]
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_commands_refuse_it_without_a_traceback(tmp_path: Path, command: str, address: str, words: str) -> None:
    done = limbeck(command, write_recipe(tmp_path, rounds=1, student=None), "--out", tmp_path / "run", RAY_ADDRESS=address)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_clusters_of_this_machine_are_found_by_their_nodes_except_private_ones(
    monkeypatch: pytest.MonkeyPatch, ray_address: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR")  # sockets need a short path
    assert ray_address in address.shared_clusters()
    with connected(ClusterConfig(address="local")):
        import ray  # reads variables on import that `connected` sets

        private = ray.get_runtime_context().gcs_address
        assert answers(private) and private not in address.shared_clusters()


def test_a_bracketed_address_is_reached() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listening:
        address = f"[::1]:{listening.getsockname()[1]}"
        assert cluster_address(address) == address and answers(address)
    assert not answers(address)


def test_a_bracketed_address_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    done = limbeck("check", write_recipe(tmp_path, rounds=1, student=None), RAY_ADDRESS="[::1]:1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "limbeck: cannot reach the Ray cluster at [::1]:1: no response; start it, or set cluster.address\n"
