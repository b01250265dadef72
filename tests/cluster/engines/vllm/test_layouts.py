"""vLLM with an adapter, and spread over processes by layers and by heads: the same answers as the model whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("vllm")

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build as build_here
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.protocol import Pair, Request, Sampling
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.cluster.engines.vllm.engine import build

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "embedded:smollm2-135m-instruct"
CONFIG = VllmConfig(model=MODEL, dtype="float32", context_tokens=256, cache_bytes=1 << 29)
PAIRS = [
    Pair(f"The colour of {thing} is", " a matter of taste and light.") for thing in ("milk", "a crow", "the sea", "old brass")
]
REQUESTS = [Request(str(n), f"{n} and {n} make", Sampling(12, temperature=0.0), n) for n in range(6)]


def assert_same_answers(config: VllmConfig, model: str) -> None:
    here = build_here(TransformersConfig(model=model, dtype="float32", device="cpu", context_tokens=256))
    engine = build(config)
    try:
        for found, expected in zip(engine.logprobs(PAIRS), here.logprobs(PAIRS), strict=True):
            np.testing.assert_allclose(found, expected, atol=5e-3)
        texts, expected_texts = ({a.request_id: a.text for a in asked.complete(REQUESTS)} for asked in (engine, here))
        assert sum(texts[name] == expected_texts[name] for name in texts) >= 5
    finally:
        engine.close()


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 2), (3, 1)])
def test_spread_over_processes(tensor: int, pipeline: int) -> None:
    assert_same_answers(CONFIG.model_copy(update={"tensor_parallel_size": tensor, "pipeline_parallel_size": pipeline}), MODEL)


def test_an_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    settings = LoraConfig(r=6, lora_alpha=12, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(resolve(MODEL), dtype=torch.float32), settings)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, when an adapter changes nothing
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(resolve(MODEL)).save_pretrained(tmp_path / "merged")
    plain = build_here(TransformersConfig(model=MODEL, dtype="float32", device="cpu"))
    merged = build_here(TransformersConfig(model=str(tmp_path / "merged"), dtype="float32", device="cpu"))
    assert max(float(np.abs(a - b).max()) for a, b in zip(plain.logprobs(PAIRS), merged.logprobs(PAIRS), strict=True)) > 0.1
    assert_same_answers(CONFIG.model_copy(update={"lora": str(tmp_path / "adapter")}), str(tmp_path / "merged"))
