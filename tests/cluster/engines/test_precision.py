"""The number type that `auto` stands for: by the CPU's instructions, by device, and as a run recorded it."""

import json
from pathlib import Path

import pytest
import torch

from helpers.tiny_engines import save
from limbeck.cluster.engines import precision
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.local.loading import load
from limbeck.cluster.engines.precision import Concrete, cpu_dtype, settled
from limbeck.pipelines.recipe import validate
from limbeck.pipelines.runs.folder import RunFolder, recorded_cpu_dtype

CPUS = {
    "flags\t\t: fpu sse4_2 avx fma f16c avx2\n": "float32",
    "flags\t\t: fpu avx2 avx512f avx512bw avx512vl\n": "float32",  # emulates bfloat16
    "flags\t\t: fpu avx2 avx512f avx512_bf16\n": "bfloat16",
    "flags\t\t: fpu avx2 amx_bf16 amx_tile\n": "bfloat16",
    "Features\t: fp asimd i8mm bf16\n": "bfloat16",
    "Features\t: fp asimd\n": "float32",
    "flags\t\t: avx512_bf16\nflags\t\t: avx2\n": "float32",  # cores of two kinds
    "processor\t: 0\n": "float32",
}


@pytest.mark.parametrize(("text", "wanted"), CPUS.items())
def test_bfloat16_needs_the_cpus_instructions(text: str, wanted: str, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert cpu_dtype(file) == wanted


def test_without_cpuinfo_it_is_float32(tmp_path: Path) -> None:
    assert cpu_dtype(tmp_path / "missing") == "float32"


@pytest.mark.parametrize("cpu", ["float32", "bfloat16"])
def test_a_model_is_loaded_in_the_type_of_the_cpu(cpu: Concrete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_dtype", lambda: cpu)
    model = str(save(tmp_path / "model", "llama"))
    assert load(TransformersConfig(model=model, device="cpu")).model.dtype == getattr(torch, cpu)
    assert load(TransformersConfig(model=model, device="cpu", dtype="float16")).model.dtype == torch.float16


RECIPE = {
    "name": "types",
    "sources": {"kind": "installed-packages", "split": {"train": 2, "dev": 1, "test": 1}},
    "teacher": {"kind": "transformers", "model": "some/teacher"},
    "generator": {"kind": "summaries"},
    "filters": [
        {"kind": "nli", "classifier": {"model": "some/nli"}},
        {"kind": "fluency", "engine": {"kind": "transformers", "model": "some/other", "device": "cpu"}},
        {"kind": "pmi", "engine": {"kind": "transformers", "model": "some/third", "dtype": "float16"}},
    ],
    "student": {"kind": "sft"},
}


@pytest.mark.parametrize(
    ("gpus", "cpu", "wanted"),
    [
        (0, "float32", ["float32", "float32", "float32", "float16", "float32"]),
        (0, "bfloat16", ["bfloat16", "bfloat16", "bfloat16", "float16", "bf16"]),
        (1, "float32", ["bfloat16", "bfloat16", "float32", "float16", "bf16"]),  # one engine asks for the CPU
    ],
)
def test_a_recipe_is_resolved_to_types(gpus: int, cpu: Concrete, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.pipelines.recipe.gpu_here", lambda: False)
    recipe = validate({**RECIPE, "cluster": {"gpus_per_worker": float(gpus)}}, "here").resolved(cpu)
    found = json.loads(json.dumps(recipe.model_dump(mode="json", serialize_as_any=True)))
    nli, fluency, pmi = found["filters"]
    types = [found["teacher"]["dtype"], nli["classifier"]["dtype"], fluency["engine"]["dtype"], pmi["engine"]["dtype"]]
    assert [*types, found["student"]["precision"]] == wanted
    assert recipe.resolved("float32" if cpu == "bfloat16" else "bfloat16") == recipe, "what is decided stays decided"


def test_a_run_resumes_with_the_type_it_began_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert recorded_cpu_dtype(folder) is None
    for lock, wanted in ({"stages": {}}, "bfloat16"), ({"stages": {}, "cpu_dtype": "float32"}, "float32"):
        folder.lock_file.write_text(json.dumps(lock))
        assert recorded_cpu_dtype(folder) == wanted


def test_sections_without_open_types_are_returned_as_they_are() -> None:
    config = TransformersConfig(model="some/model", dtype="float32")
    assert settled(config, False, "bfloat16") is config
