"""The plan on a cluster that is joined: the nodes, processors and GPUs that it says it has, not this machine's."""

import json
from pathlib import Path

import pytest

from helpers.clusters import ray_cluster
from helpers.commands import limbeck
from helpers.tiny_run import write_recipe


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_joined_cluster_s_nodes_are_what_counts(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    with ray_cluster({"num_cpus": 1, "num_gpus": 0}, {"num_cpus": 8, "num_gpus": 8}) as cluster:
        address = cluster.address

        def check(*overrides: str) -> dict[str, object]:
            options = [word for override in overrides for word in ("--set", override)]
            done = limbeck("check", recipe, "--json", "--set", f"cluster.address={address}", *options)
            assert done.stdout, done.stderr
            found: dict[str, object] = json.loads(done.stdout)
            return found

        found = check("cluster.workers=2", "cluster.gpus_per_worker=4", "student.workers=4", "student.batch_size=16")
        plan = found["placement"]
        assert found["problems"] == [] and isinstance(plan, dict)
        assert sorted((node["cpus"], node["gpus"]) for node in plan["nodes"]) == [(1.0, 0), (8.0, 8)]
        assert len(set(plan["pools"][0]["nodes"])) == 1 and plan["training"]["when"] == "after the workers"
        assert plan["training"]["gpus"] == 1 and "is unknown" in plan["notes"][0]  # GPUs that only Ray has heard of
        (problem,) = check("cluster.workers=3", "cluster.gpus_per_worker=4")["problems"]  # type: ignore[misc]
        assert "= 12 GPUs, but the cluster has 8; lower cluster.workers to 2" in problem
        (problem,) = check("cluster.gpus_per_worker=16")["problems"]  # type: ignore[misc]
        assert "no node has more than 8" in problem and "vllm serve" in problem
        done = limbeck(
            "run", recipe, "--out", tmp_path / "run", "--set", f"cluster.address={address}", "--set", "cluster.workers=10"
        )
        assert done.returncode == 1 and "cluster.workers 10 × cluster.cpus_per_worker 1 = 10 CPUs" in done.stderr, done.stderr
