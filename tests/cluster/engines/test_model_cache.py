"""The engines of a process: loaded once, evicted by use, weights swapped in place where the build is alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny_engines import save
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Pair, Request, Sampling
from limbeck.corpus.errors import LimbeckError

PAIRS = [Pair("The cat", " sat on the mat."), Pair("The cat", " ran.")]


def config(folder: Path) -> TransformersConfig:
    """A float32 engine of a folder."""
    return TransformersConfig(model=str(folder), dtype="float32", device="cpu")


def test_swapped_weights_are_the_new_models(tmp_path: Path) -> None:
    folders = [save(tmp_path / str(seed), "llama", seed) for seed in range(3)]
    engines = Engines(keep=1)
    first = engines.get(config(folders[0]))
    model = first.loaded.model  # type: ignore[attr-defined]
    before = first.logprobs(PAIRS)
    for folder in (folders[1], folders[2], folders[0]):
        engine = engines.get(config(folder))
        assert engine.loaded.model is model  # type: ignore[attr-defined]
        for one, other in zip(engine.logprobs(PAIRS), build(config(folder)).logprobs(PAIRS), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(engines.get(config(folders[0])).logprobs(PAIRS)[0], before[0])


def test_another_architecture_is_built_anew(tmp_path: Path) -> None:
    engines = Engines(keep=1)
    engines.get(config(save(tmp_path / "llama", "llama")))
    gpt2 = engines.get(config(save(tmp_path / "gpt2", "gpt2")))
    np.testing.assert_array_equal(gpt2.logprobs(PAIRS)[0], build(config(tmp_path / "gpt2")).logprobs(PAIRS)[0])


def test_the_least_recently_used_leaves(tmp_path: Path) -> None:
    a, b, c = (config(save(tmp_path / str(seed), "llama", seed)) for seed in range(3))
    engines = Engines(keep=2)
    first, _ = engines.get(a), engines.get(b)
    assert engines.get(a) is first
    engines.get(c)
    assert engines.get(a) is first


def test_a_retrained_folder_is_another_model(tmp_path: Path) -> None:
    engines = Engines()
    old = engines.get(config(save(tmp_path, "llama", 0)))
    new = engines.get(config(save(tmp_path, "llama", 1)))
    assert new is not old


def test_usage_outlives_an_eviction(tmp_path: Path) -> None:
    engines = Engines(keep=1)
    for seed in range(2):
        engine = engines.get(config(save(tmp_path / str(seed), "llama", seed)))
        found = list(engine.complete([Request("a", "abc", Sampling(4, temperature=0.0), 0)]))
        assert len(found) == 1
        assert engines.usage().forwarded_tokens >= 3 * (seed + 1)
    assert engines.usage().model_seconds > 0 and engines.usage().load_seconds > 0


@pytest.mark.parametrize("kept_bytes", [10, 500, -8])
def test_cut_off_weights_are_one_sentence(tmp_path: Path, kept_bytes: int) -> None:
    path = save(tmp_path, "llama") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(LimbeckError, match="model.safetensors"):
        Engines().get(config(tmp_path))


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(LimbeckError, match="causal language model"):
        build(config(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="no usable GPU"):
        build(TransformersConfig(model=str(save(tmp_path, "llama")), device="cuda"))
