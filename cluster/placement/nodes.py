"""Resources of the cluster of a run: this machine, or the nodes of a cluster that is joined."""

import os
import shutil
import subprocess
from typing import Any

from limbeck.cluster.placement.demand import Node
from limbeck.cluster.session import ClusterConfig, connected, running_cluster

ASK_SECONDS = 20.0


def cluster_nodes(config: ClusterConfig) -> list[Node]:
    """The nodes that a run with this config would compute on; joins a running cluster to query it, and starts none.

    Memory is the free memory of this machine, and Ray's figure for others. Raises LimbeckError if the cluster does not respond.
    """
    if running_cluster(config) is None:
        return [this_machine()]
    with connected(config):
        return _joined()


def this_machine() -> Node:
    """The machine of this process, with the GPUs in CUDA_VISIBLE_DEVICES."""
    import psutil

    gpus = gpu_memory_bytes()
    memory = psutil.virtual_memory().available
    return Node("this machine", float(os.cpu_count() or 1), len(gpus), memory, _least(gpus))


def gpu_memory_bytes() -> list[int]:
    """The memory of each GPU that this process may use, as reported by nvidia-smi; 0 if not reported."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in said.stdout.splitlines()] if said.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        wanted = [name.strip() for name in visible.split(",") if name.strip()]
        rows = [
            row for row in rows if row[0] in wanted or any(name.startswith("GPU-") and row[1].startswith(name) for name in wanted)
        ]
    return [int(row[2]) << 20 if row[2].isdigit() else 0 for row in rows]


def _joined() -> list[Node]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes, asked = [], {}
    for entry in (entry for entry in ray.nodes() if entry["Alive"]):
        if entry["Resources"].get("GPU", 0) >= 1:  # the driver's machine may have none, so each node is queried
            there = NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
            asked[entry["NodeID"]] = ray.remote(gpu_memory_bytes).options(num_cpus=0, scheduling_strategy=there).remote()
        nodes.append(entry)
    return [_node(entry, _answer(asked.get(entry["NodeID"]))) for entry in nodes]


def _node(entry: dict[str, Any], gpus: list[int]) -> Node:
    has, name = entry["Resources"], str(entry.get("NodeManagerHostname") or entry["NodeID"][:8])
    return Node(name, float(has.get("CPU", 0)), int(has.get("GPU", 0)), int(has.get("memory", 0)), _least(gpus))


def _least(gpus: list[int]) -> int | None:
    """The smallest memory of these GPUs; None if one does not report it."""
    return min(gpus, default=0) or None


def _answer(call: Any) -> list[int]:
    import ray

    if call is None:
        return []
    try:
        found: list[int] = ray.get(call, timeout=ASK_SECONDS)
        return found
    except ray.exceptions.RayError:  # a node that cannot run our code is reported by the check of packages
        return []
