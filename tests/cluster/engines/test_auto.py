"""Which engine `auto` is: decided once, when a recipe is resolved."""

import importlib.util
from pathlib import Path

import pytest

from helpers.tiny_run import recipe
from limbeck.cluster.engines.config import AutoConfig, TransformersConfig
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.pipelines.recipe import Recipe


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM were installed."""
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: known("json") if name == "vllm" else known(name, *rest))


def resolved(folder: Path, **cluster: object) -> Recipe:
    data = recipe(folder, cluster=cluster)
    data["teacher"] = {"kind": "auto", "model": data["teacher"]["model"], "dtype": "float32"}
    data["filters"].append({"kind": "fluency", "engine": {"kind": "auto", "model": data["teacher"]["model"]}})
    return Recipe.model_validate(data).resolved()


@pytest.mark.usefixtures("installed")
def test_gpus_and_vllm_make_it_vllm(tmp_path: Path) -> None:
    found = resolved(tmp_path, gpus_per_worker=2.0)
    assert isinstance(found.teacher, VllmConfig)
    assert (found.teacher.dtype, found.teacher.tensor_parallel_size) == ("float32", 2)
    assert [type(part.engine) for part in found.filters if part.asks] == [VllmConfig, VllmConfig]


@pytest.mark.usefixtures("installed")
def test_without_gpus_it_is_transformers_and_critics_have_their_own(tmp_path: Path) -> None:
    assert isinstance(resolved(tmp_path).teacher, TransformersConfig)
    found = resolved(tmp_path, gpus_per_worker=0.5, critics={"gpus_per_worker": 0.0})
    assert isinstance(found.teacher, VllmConfig) and found.teacher.tensor_parallel_size == 1
    pmi, fluency = (part.engine for part in found.filters if part.asks)
    assert pmi == found.teacher and isinstance(fluency, TransformersConfig)


def test_without_vllm_it_is_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "vllm" else known(name, *rest))
    assert isinstance(resolved(tmp_path, gpus_per_worker=1.0).teacher, TransformersConfig)


def test_a_student_has_the_teachers_engine_but_not_its_server_or_adapter() -> None:
    teacher = VllmConfig(model="big", lora="adapter", quantization="awq", max_sequences=8)
    assert teacher.for_student("/student") == VllmConfig(model="/student", max_sequences=8)
    assert EndpointConfig(model="big").for_student("/student") == TransformersConfig(model="/student")
    assert TransformersConfig(model="big", dtype="float32").for_student("/s") == TransformersConfig(model="/s", dtype="float32")
    assert AutoConfig(model="big").choose(0.0) == TransformersConfig(model="big")
