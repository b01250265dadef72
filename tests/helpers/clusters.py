"""Ray clusters that tests join by address; they cannot be discovered, and end with the process that started them."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from helpers.paths import child_environment

# set by limbeck.cluster.session before a driver imports Ray
DRIVER_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@dataclass(frozen=True)
class RayCluster:
    """A running cluster; `raylets` are the process ids of its nodes, the head's first."""

    address: str
    raylets: list[int]
    process: subprocess.Popen[str]

    def add_node(self) -> None:
        """Add another node like the last."""
        assert self.process.stdin is not None
        self.process.stdin.write("another\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def ray_cluster(*nodes: dict[str, Any], **environment: str) -> Iterator[RayCluster]:
    """A cluster of these nodes (`num_cpus=...`); `environment` also applies to its workers."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # sockets need a short path
        process = subprocess.Popen(
            [sys.executable, "-m", "helpers.cluster_nodes", json.dumps(nodes)],
            env=child_environment(HF_HUB_OFFLINE="1", RAY_TMPDIR=folder, **DRIVER_SETTINGS, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield RayCluster(**json.loads(process.stdout.readline()), process=process)
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            for left in psutil.wait_procs(family, timeout=1)[1]:
                left.kill()
            process.kill()
            process.wait()
