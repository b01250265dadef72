"""What every test runs under: one copy of Limbeck, in this process and in those that tests start; and what tests share.

`make test` spreads the tests over two processes (pytest-xdist). Those that join the shared cluster all run in one of them, the
first; every other file runs as a whole in whichever is free.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.old_names import refuse_old_names
from helpers.paths import PACKAGE, SEARCH_PATH

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes on two cores; read when torch is imported, so before that
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

from helpers.clusters import ray_cluster
from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck import _infinigram

refuse_old_names()
os.environ["PYTHONPATH"] = SEARCH_PATH

# a sanitized build that the ordinary one shadows would test nothing
expected = os.environ.get("LIMBECK_TEST_EXTENSION")
assert expected is None or os.path.samefile(os.path.dirname(str(_infinigram.__file__)), expected), _infinigram.__file__
assert os.path.dirname(str(_infinigram.__file__)) == str(PACKAGE), f"{_infinigram.__file__} is not beside {PACKAGE}"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the shared cluster in one group, and first; every other file is a group."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    shared = {item for item in items if "ray_address" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("the shared cluster" if item in shared else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item not in shared)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of the Ray cluster that all tests join whose subject is not a cluster: `RAY_ADDRESS=ray_address`."""
    with ray_cluster({"num_cpus": 2}) as cluster:
        yield cluster.address


@pytest.fixture(scope="session")
def plain_run(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe with one round and no student, beside its recipe.yaml. Do not write to it."""
    home = tmp_path_factory.mktemp("plain")
    done = limbeck("run", write_recipe(home, rounds=1, student=None), "--out", home / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"
