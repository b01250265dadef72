"""What Limbeck takes from Ray's private modules still exists, and is taken in one place."""

import importlib

import pytest

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


def test_nothing_else_imports_ray_s_private_modules() -> None:
    private = [
        f"{package}/{path.relative_to(folder)}"
        for package in PACKAGES
        for folder in [(PACKAGE / package).resolve()]
        for path in folder.rglob("*.py")
        if "ray._" in path.read_text(encoding="utf-8")
    ]
    assert private == ["cluster/ray_internals.py"]
