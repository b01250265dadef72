"""Nodes that see another run folder, or have other code, are refused before anything is computed; the sentence names the node."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helpers.clusters import DRIVER_SETTINGS, RayCluster, ray_cluster
from helpers.commands import limbeck, settings
from helpers.paths import PACKAGE, TESTS
from helpers.tiny_run import write_recipe
from limbeck.cluster import installation
from limbeck.cluster.installation import MARK, differing_nodes, look_at_folder
from limbeck.cluster.session import ClusterConfig, connected

NODE = """
import sys
from types import SimpleNamespace
from ray.cluster_utils import Cluster
cluster = Cluster()
cluster.head_node = SimpleNamespace(gcs_address=sys.argv[1])
cluster.redis_address = sys.argv[1]
cluster.add_node(wait=False, num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=100_000_000)
print("joined", flush=True)
sys.stdin.read()
"""


def may_unshare() -> bool:
    """Whether this process may give a child another view of the file system."""
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@contextlib.contextmanager
def another_node(cluster: RayCluster, before: list[str], **environment: str) -> Iterator[None]:
    """A node that joins the cluster, started by the command `before`."""
    node = subprocess.Popen(
        [*before, sys.executable, "-c", NODE, cluster.address],
        env={**settings(), **DRIVER_SETTINGS, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert node.stdin is not None and node.stdout is not None
    try:
        assert node.stdout.readline() == "joined\n"
        yield
    finally:
        family = psutil.Process(node.pid).children(recursive=True)
        node.stdin.close()
        for process in psutil.wait_procs([*family, psutil.Process(node.pid)], timeout=15)[1]:
            process.kill()
        node.wait()


def refused(done: "subprocess.CompletedProcess[str]", out: Path) -> str:
    """The sentence of a run that was refused before it computed anything."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not list(out.glob("rounds/*/sources")) and not list(out.glob(f"{MARK}*"))
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(not may_unshare(), reason="this process may not create mount namespaces")
def test_a_node_that_does_not_see_the_run_folder(tmp_path: Path) -> None:
    shared, recipe = tmp_path / "shared", write_recipe(tmp_path, rounds=1, student=None)
    shared.mkdir()
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {shared} && exec "$@"', "sh"]
    with ray_cluster({"num_cpus": 1}) as cluster:
        with another_node(cluster, hide):
            done = limbeck("run", recipe, "--out", shared / "run", RAY_ADDRESS=cluster.address)
            words = refused(done, shared / "run")
            assert f"does not see the run folder {shared}/run; choose an --out that every node sees" in words
            assert words.count("node ") >= 1 and words.count("does not see") == 1, "the other node sees it"
        alone = limbeck("run", recipe, "--out", shared / "run", RAY_ADDRESS=cluster.address)
        assert alone.returncode == 0, alone.stderr


@pytest.mark.slow
def test_a_node_with_other_code_on_the_same_host(tmp_path: Path) -> None:
    """Nodes are told apart although they have one host name, as containers may."""
    other, recipe = tmp_path / "other", write_recipe(tmp_path, rounds=1, student=None)
    shutil.copytree(PACKAGE, other / "limbeck", ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    (other / "limbeck/__init__.py").write_text(
        (PACKAGE / "__init__.py").read_text().replace("__version__ = ", "__version__ = '9' + ")
    )
    path = os.pathsep.join([str(other), str(TESTS)])
    with ray_cluster({"num_cpus": 1}) as cluster, another_node(cluster, [], PYTHONPATH=path):
        done = limbeck("run", recipe, "--out", tmp_path / "run", RAY_ADDRESS=cluster.address)
    words = refused(done, tmp_path / "run")
    assert "has Limbeck 9" in words and "install the same on every node" in words
    assert words.count("has Limbeck") == 1


def test_nodes_that_see_the_folder_are_not_refused_and_nothing_is_left(tmp_path: Path, ray_address: str) -> None:
    (tmp_path / f"{MARK}old").mkdir()  # of a driver that was killed
    with connected(ClusterConfig(address=ray_address)):
        assert differing_nodes((), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_node_says_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "SEEN_SECONDS", 0.0)
    mark = tmp_path / f"{MARK}abc" / "token"
    assert look_at_folder(mark) == "does not see"
    mark.parent.mkdir()
    mark.mkdir()
    assert look_at_folder(mark).startswith("cannot read (")
    mark.rmdir()
    mark.write_text("another")
    assert look_at_folder(mark) == "sees another folder in place of"
    mark.write_text("abc")
    assert look_at_folder(mark) == ""
    (seen,) = mark.parent.glob("seen by *")
    seen.unlink()
    seen.mkdir()  # it cannot write there
    assert look_at_folder(mark).startswith("cannot write to (")
