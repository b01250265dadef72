"""The address of the cluster that a run joins: as given, or found on this machine."""

import os
import re
import socket
from pathlib import Path

import psutil

from limbeck.corpus.errors import LimbeckError

ENVIRONMENT = "RAY_ADDRESS"
PRIVATE = "limbeck.private"
"""The label of the node of a private cluster."""
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+(?:%\w+)?\]")
_CONNECT_SECONDS = 3.0


def cluster_address(configured: str | None) -> str | None:
    """The `host:port` of the cluster to join: `configured`, else RAY_ADDRESS, else one started here; None: start a private one.

    `auto` is RAY_ADDRESS if that names a cluster, else the cluster that runs on this machine; `local` is None. Private clusters
    of other drivers are never joined: they stop with their driver. Raises LimbeckError if the address cannot be used.
    """
    variable = os.environ.get(ENVIRONMENT, "").strip()
    address, source = (configured, "cluster.address") if configured is not None else (variable or None, ENVIRONMENT)
    if address == "auto" and variable not in ("", "auto"):
        address, source = variable, ENVIRONMENT  # as Ray does
    if address == "local":
        return None
    if address == "auto":
        return _running_here(source)
    if address is None:
        noted = _noted()
        return noted if noted and answers(noted) else None  # a stopped cluster leaves its note behind
    host_and_port(address, source)
    return address


def host_and_port(address: str, source: str) -> tuple[str, int]:
    """Split `host:port`, the brackets of an IPv6 host removed; raises LimbeckError, which names `source`, for anything else."""
    scheme, found, rest = address.partition("://")
    if found and scheme == "ray":
        host = rest.rpartition(":")[0] or rest
        raise LimbeckError(
            f"{source} {address} is the address of a Ray Client server, through which Limbeck does not run; submit the command "
            f"to the cluster with `ray job submit --address http://{host}:8265 -- limbeck run ...`"
        )
    host, colon, port = address.rpartition(":")
    if found or not colon or not _HOST.fullmatch(host) or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        bare = " (an IPv6 host needs brackets: [::1]:6379)" if address.count(":") > 1 and not found else ""
        raise LimbeckError(
            f"{source} {address!r} is not the address of a Ray cluster{bare}; write host:port, such as 10.0.0.5:6379, auto for "
            "the cluster that runs on this machine, or local for a private one"
        )
    return host.strip("[]"), int(port)


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    try:
        with socket.create_connection(host_and_port(address, "address"), timeout=_CONNECT_SECONDS):
            return True
    except (OSError, LimbeckError):
        return False


def _running_here(source: str) -> str:
    """The cluster noted by `ray start`, else the only one that this machine belongs to and that is not private."""
    noted = _noted()
    if noted and answers(noted):
        return noted
    found = [address for address in sorted(shared_clusters()) if answers(address)]
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} Ray clusters run on this machine ({', '.join(found)}); set {source} to the one to join"
    none = f"{source} is auto, but no Ray cluster runs on this machine; start one with `ray start --head`, or set it to host:port"
    raise LimbeckError(many if found else none)


def on_loopback(address: str) -> bool:
    """Whether a cluster at this address listens on this machine only."""
    return address.startswith(("127.", "[::1]"))


def shared_clusters() -> set[str]:
    """The addresses of the clusters that nodes on this machine belong to, except private ones of Limbeck's drivers."""
    found = set()
    for process in psutil.process_iter(["name", "cmdline"]):  # without Ray, which is imported after `connected` has set variables
        words = process.info["cmdline"] or ()
        if process.info["name"] == "raylet" and not any(PRIVATE in word for word in words):
            found |= {word.partition("=")[2] for word in words if word.startswith("--gcs-address=")}
    return found


def _noted() -> str | None:
    """The address that `ray start` has written; None if it never did on this machine."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        return note.read_text().strip() or None
    except OSError:
        return None
