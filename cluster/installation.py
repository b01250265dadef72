"""What every node of a run must share: the same code, since other code would corrupt a run, and the run folder."""

import contextlib
import hashlib
import importlib.metadata
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import limbeck
from limbeck.cluster.ray_errors import cause_of
from limbeck.cluster.session import ClusterConfig, connected, running_cluster
from limbeck.corpus.errors import LimbeckError

PACKAGES = ("corpus", "infinigram", "generators", "filters", "students", "cluster", "pipelines")
ASK_SECONDS = 300.0  # for a node to answer; on a busy one, a process takes minutes to start
SEEN_SECONDS = 15.0  # for a new file to appear on a node
MARK = ".seen-by-nodes-"
_CODE = (".py", ".jinja", ".json", ".jsonl")


@dataclass(frozen=True)
class Installation:
    """An installation of Limbeck: version, hash of code and prompts, folder; and the versions of other packages."""

    version: str
    code: str
    folder: str
    others: Mapping[str, str]

    def differences(self, other: "Installation") -> list[str]:
        """Differences to another installation, regardless of its folder and of wheel or checkout."""
        found = []
        if (self.version, self.code) != (other.version, other.code):
            theirs = f"{other.version} (code {other.code}, in {other.folder})"
            found.append(f"Limbeck {theirs}, here {self.version} (code {self.code})")
        differing = {name: ours for name, ours in self.others.items() if other.others[name] != ours}
        return found + [f"{name} {other.others[name]}, here {ours}" for name, ours in differing.items()]


def this_installation(distributions: Sequence[str] = ()) -> Installation:
    """The Limbeck of this process, with the versions of these distributions; reads every source file, about 10 ms."""
    home, digest = Path(str(limbeck.__file__)).parent, hashlib.sha256()
    for package in PACKAGES:
        folder = (home / package).resolve()  # a link in a checkout, which rglob does not follow
        for file in sorted(path for path in folder.rglob("*") if path.suffix in _CODE):
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes())
    return Installation(limbeck.__version__, digest.hexdigest()[:16], str(home), {name: _version(name) for name in distributions})


def foreign_nodes(config: ClusterConfig, distributions: Sequence[str] = ()) -> list[str]:
    """Nodes of the cluster that would be joined on which Limbeck, or a package that the recipe needs, differs.

    One sentence each. Workers of a private cluster share this environment.
    """
    if running_cluster(config) is None:
        return []
    with connected(config):
        return differing_nodes(distributions)


def differing_nodes(distributions: Sequence[str] = (), folder: Path | None = None) -> list[str]:
    """Nodes of the connected cluster that differ from this process, one sentence each: other code, or another view of `folder`.

    `folder` exists here; a node must see the same one, and be able to write there.
    """
    ours = this_installation(distributions)
    found = []
    for node, theirs, failure in ask_every_node(this_installation, distributions):
        differences = ours.differences(theirs) if not failure else [f"no usable Limbeck ({failure}), here {ours.version}"]
        found += [f"node {node} has {difference}; install the same on every node" for difference in differences]
    if found or folder is None:  # nodes with other code need not be asked more
        return found
    with _marked(folder) as mark:
        for node, reason, failure in ask_every_node(look_at_folder, mark):
            if failure:
                found.append(f"node {node} did not say whether it sees the run folder {folder} ({failure}); see `ray status`")
            elif reason:
                way_out = "choose an --out that every node sees at the same path and may write to, or stop that node"
                found.append(f"node {node} {reason} the run folder {folder}; {way_out}")
    return found


def ask_every_node(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any, str]]:
    """Call a function on every node of the connected cluster: (node, its result, the cause of its failure or "")."""
    import ray  # imported late: `connected` sets variables that Ray reads on import
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [entry for entry in ray.nodes() if entry["Alive"]]
    hosts = [str(entry.get("NodeManagerHostname") or entry["NodeID"][:8]) for entry in nodes]
    asked = []
    for entry, host in zip(nodes, hosts, strict=True):
        there = NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
        name = host if hosts.count(host) == 1 else f"{host} ({entry['NodeManagerAddress']}, {entry['NodeID'][:8]})"
        options = {"num_cpus": 0, "scheduling_strategy": there}
        asked.append((name, ray.remote(function).options(**options).remote(*arguments)))
    found = []
    for name, call in asked:
        try:
            found.append((name, ray.get(call, timeout=ASK_SECONDS), ""))
        except ray.exceptions.GetTimeoutError:
            found.append((name, None, f"no answer within {ASK_SECONDS:.0f} s"))
        except ray.exceptions.RayError as error:  # for example, it cannot import the function to run
            found.append((name, None, cause_of(error)))
    return found


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file with a random token in the folder, in a directory of its own, for the duration of the block."""
    for old in folder.glob(f"{MARK}*"):  # of a killed driver
        shutil.rmtree(old, ignore_errors=True)
    token = secrets.token_hex(16)
    mark = folder / f"{MARK}{token}" / "token"
    try:
        mark.parent.mkdir()
        mark.write_text(token)
        yield mark
    except OSError as error:
        raise LimbeckError(f"cannot write the run folder {folder}: {error.strerror}; correct its permissions") from error
    finally:
        shutil.rmtree(mark.parent, ignore_errors=True)


def look_at_folder(mark: Path) -> str:
    """On a node: why it does not see the driver's file, or cannot answer beside it; "" if all is well."""
    token, deadline = mark.parent.name.removeprefix(MARK), time.monotonic() + SEEN_SECONDS
    while True:
        try:
            seen = mark.read_text()
            break
        except OSError as error:
            if time.monotonic() > deadline:  # the caches of a network file system lag behind by seconds
                return "does not see" if isinstance(error, FileNotFoundError) else f"cannot read ({error.strerror})"
        time.sleep(0.2)
    if seen != token:
        return "sees another folder in place of"
    try:
        mark.with_name(f"seen by {socket.gethostname()}").write_text(token)
    except OSError as error:
        return f"cannot write to ({error.strerror})"
    return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
