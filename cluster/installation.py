"""The installation of a process: workers with other code than their driver would corrupt a run."""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import limbeck
from limbeck.cluster.session import ClusterConfig, connected, running_cluster
from limbeck.corpus.errors import last_line

PACKAGES = ("corpus", "infinigram", "generators", "filters", "students", "cluster", "pipelines")
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


def differing_nodes(distributions: Sequence[str] = ()) -> list[str]:
    """Nodes of the connected cluster that differ from this process, one sentence each."""
    import ray  # imported late: `connected` sets variables that Ray reads on import
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ours, asked = this_installation(distributions), {}
    for entry in (entry for entry in ray.nodes() if entry["Alive"]):
        there = NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
        name = str(entry.get("NodeManagerHostname") or entry["NodeID"][:8])
        asked[name] = ray.remote(this_installation).options(num_cpus=0, scheduling_strategy=there).remote(distributions)
    found = []
    for node, call in asked.items():
        try:
            differences = ours.differences(ray.get(call))
        except ray.exceptions.RayTaskError as error:  # it cannot import the function to run
            differences = [f"no usable Limbeck ({last_line(error)}), here {ours.version}"]
        found += [f"node {node} has {difference}; install the same on every node" for difference in differences]
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
