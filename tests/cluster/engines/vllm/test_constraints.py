"""What the engine of kind vllm refuses before vLLM is asked, so without vLLM."""

from types import SimpleNamespace
from typing import Any

from helpers.tiny_engines import tokenizer
from limbeck.cluster.engines.constraint import Constraint
from limbeck.cluster.engines.protocol import Request, Sampling
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.cluster.engines.vllm.engine import VllmEngine


def test_a_constraint_costs_one_row() -> None:
    started: Any = SimpleNamespace(context_tokens=64, tokenizer=tokenizer(), end_tokens=frozenset({257}))
    engine = VllmEngine(VllmConfig(model="none"), started)
    constraint = Constraint.of(["dog"])
    (answer,) = engine.complete([Request("a", "x", Sampling(4, temperature=0.0, constraint=constraint), 0)])
    assert answer.finish_reason == "error" and answer.prompt_tokens == 1
    assert answer.error == "an engine of kind vllm does not support constraints; use an engine of kind transformers"
