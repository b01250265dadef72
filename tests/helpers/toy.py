"""The toy package on the path of child processes, as installed by pip: modules beside a dist-info folder."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

from helpers.commands import command, settings
from helpers.paths import SEARCH_PATH, TESTS

SOURCE = TESTS / "helpers" / "toy_package"


def install(site: Path, version: str | None = None) -> dict[str, str]:
    """Install the toy package in the folder `site`; `version` replaces its own; returns the environment for child processes."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    site.mkdir(exist_ok=True)
    if not (site / "limbeck_toy").exists():
        (site / "limbeck_toy").symlink_to(SOURCE / "limbeck_toy")
    points = project["entry-points"]["limbeck.kinds"]
    write_distribution(site, project["name"], version or project["version"], points)
    return {"PYTHONPATH": f"{site}:{SEARCH_PATH}"}


def write_distribution(site: Path, name: str, version: str, points: dict[str, str]) -> None:
    """Write the metadata of an installed distribution; an earlier version's is replaced."""
    info = site / f"{name.replace('-', '_')}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[limbeck.kinds]\n{lines}")


def limbeck(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in its own process: packages are looked up when Limbeck is imported."""
    return subprocess.run(command(*arguments), env=settings(**environment), capture_output=True, text=True, timeout=600)


def scripted(model: Path, **settings: object) -> dict[str, object]:
    """A recipe's section for the scripted engine, whose tokens are those of `model`."""
    return {"kind": "scripted", "model": str(model), **settings}
