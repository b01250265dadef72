"""What Limbeck takes from Ray's private modules still exists, and is taken in one place."""

import importlib
import json
import subprocess
import sys

import pytest

from helpers.clusters import DRIVER_SETTINGS, ray_cluster
from helpers.commands import settings
from helpers.paths import PACKAGE
from limbeck.cluster import ray_internals
from limbeck.cluster.installation import PACKAGES


@pytest.mark.parametrize(("module", "attribute"), ray_internals.PRIVATE)
def test_ray_still_has_it(module: str, attribute: str) -> None:
    ray = importlib.import_module("ray")
    found = importlib.import_module(module)
    assert hasattr(found, attribute), f"{module}.{attribute} is gone in Ray {ray.__version__}: change cluster/ray_internals.py"


def test_a_placement_group_is_found_again_by_its_id() -> None:
    identifier = "ab" * 18
    assert ray_internals.placement_group(identifier).id.hex() == identifier


QUEUED = """
import json, sys, time
import ray
from limbeck.cluster.ray_internals import waits_for_resources
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Holder:
    def __init__(self, seconds=0):
        time.sleep(seconds)
    def answer(self):
        return 1

holding, starting = Holder.remote(), Holder.options(num_cpus=0).remote(3600)
ray.get(holding.answer.remote())
queued = Holder.remote()
while waits_for_resources(starting) or not waits_for_resources(queued):
    time.sleep(0.1)
time.sleep(3)
print(json.dumps([waits_for_resources(actor) for actor in (holding, starting, queued)]))
"""


@pytest.mark.timeout(300)
def test_only_an_actor_without_a_place_waits_for_resources() -> None:
    with ray_cluster({"num_cpus": 1}) as cluster:
        command = [sys.executable, "-c", QUEUED, cluster.address]
        done = subprocess.run(command, env={**settings(), **DRIVER_SETTINGS}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [False, False, True]


def test_nothing_else_imports_ray_s_private_modules() -> None:
    private = [
        f"{package}/{path.relative_to(folder)}"
        for package in PACKAGES
        for folder in [(PACKAGE / package).resolve()]
        for path in folder.rglob("*.py")
        if "ray._" in path.read_text(encoding="utf-8")
    ]
    assert private == ["cluster/ray_internals.py"]
