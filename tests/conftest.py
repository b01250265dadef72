"""Session setup: one copy of Limbeck in this process and in those that tests start, and shared fixtures.

`make test` distributes whole files over two processes (pytest-xdist). Session fixtures, such as the cluster, exist once per
process.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from helpers.old_names import refuse_old_names
from helpers.paths import PACKAGE, SEARCH_PATH

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes on two cores; read when torch is imported, so before that
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

# one token for all clusters and drivers: otherwise the first private cluster creates one in the home folder, and drivers that
# start after that do not fit clusters that started before
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "1" * 64}

from helpers.clusters import ray_cluster
from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck import _infinigram

refuse_old_names()
# examples have no deadline; `make test` also fixes which examples are drawn (--hypothesis-profile=ci)
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
os.environ["PYTHONPATH"] = SEARCH_PATH

# a sanitized build that is shadowed by the ordinary one would test nothing
expected = os.environ.get("LIMBECK_TEST_EXTENSION")
assert expected is None or os.path.samefile(os.path.dirname(str(_infinigram.__file__)), expected), _infinigram.__file__
assert os.path.dirname(str(_infinigram.__file__)) == str(PACKAGE), f"{_infinigram.__file__} is not beside {PACKAGE}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that join the cluster first: whole runs take longest, and short files fill the end of both processes."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        joining = {item.path for item in items if "ray_address" in getattr(item, "fixturenames", ())}
        items.sort(key=lambda item: item.path not in joining)


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> None:
    """Keep what earlier modules imported and collected out of later collections, which hypothesis makes at every example.

    torch, transformers and thousands of test items otherwise make each collection take a tenth of a second and more.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of the Ray cluster for tests whose subject is not a cluster: they pass `RAY_ADDRESS=ray_address`."""
    with ray_cluster({"num_cpus": 2}) as cluster:
        yield cluster.address


@pytest.fixture(scope="session")
def plain_run(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe with one round and no student, beside its recipe.yaml. Do not write to it."""
    home = tmp_path_factory.mktemp("plain")
    done = limbeck("run", write_recipe(home, rounds=1, student=None), "--out", home / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"
