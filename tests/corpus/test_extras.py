"""Extras: what each brings, and the one sentence about what is missing."""

import re
import tomllib

import pytest

from helpers.paths import ROOT
from limbeck.corpus import extras

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def without(*modules: str) -> object:
    return lambda module: module not in modules


def test_nothing_is_missing_here() -> None:
    assert extras.problem([("a", "local"), ("b", "train"), ("c", "parser"), ("d", "tiktoken")]) is None
    extras.require("a model", "local")


@pytest.mark.parametrize(
    ("missing", "needs", "sentence"),
    [
        (["torch"], [("a", "local")], "a needs torch, which is not installed: pip install 'limbeck[local]'"),
        (["gguf"], [("a", "local")], "a needs gguf, which is not installed: pip install 'limbeck[local]'"),
        (["torch"], [("a", "local"), ("b", "local")], "a and b need torch, which is not installed: pip install 'limbeck[local]'"),
        (
            ["torch", "trl"],
            [("a", "local"), ("b", "train"), ("c", "local")],
            "a, b and c need torch, which is not installed: pip install 'limbeck[local,train]'",
        ),
        (
            ["vllm", "spacy"],
            [("a", "vllm"), ("b", "parser"), ("c", "tiktoken")],
            "a needs vllm and b needs spacy, which are not installed: pip install 'limbeck[vllm,parser]'",
        ),
    ],
)
def test_one_sentence_names_the_missing_extra(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], needs: list[tuple[str, str]], sentence: str
) -> None:
    monkeypatch.setattr(extras, "installed", without(*missing))
    assert extras.problem(needs) == sentence


def test_require_raises_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", without("spacy"))
    with pytest.raises(extras.MissingExtra, match=r"the parser needs spacy.*limbeck\[parser\]"):
        extras.require("the parser", "parser")


def distributions(requirements: list[str]) -> set[str]:
    """The names, as modules, of what a list of requirements installs, extras of Limbeck's own followed."""
    found = set[str]()
    for requirement in requirements:
        name = re.split(r"[\[<>=; ]", requirement)[0]
        if name == "limbeck":
            for extra in re.findall(r"\[(.*)\]", requirement)[0].split(","):
                found |= distributions(PROJECT["optional-dependencies"][extra])
        else:
            found.add(name.replace("-", "_"))  # as it is imported
    return found


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_each_extra_declares_what_is_looked_for(extra: str) -> None:
    assert set(extras.EXTRAS[extra]) <= distributions(PROJECT["optional-dependencies"][extra])


def test_the_core_has_no_extra_s_package_and_ray_is_bounded() -> None:
    core = distributions(PROJECT["dependencies"])
    assert not core & {module for modules in extras.EXTRAS.values() for module in modules}
    everything = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
    rays = [line for line in everything if line.startswith("ray[")]
    assert len(rays) == 3 and all(",<" in line for line in rays) and len({line.partition("]")[2] for line in rays}) == 1
