"""Which keys of engines may change while a run is interrupted: each key is listed here, so that a new one is a decision."""

from typing import Any

import pytest

from helpers.toy_package.limbeck_toy.engine import ScriptedConfig
from limbeck.cluster.engines.config import AutoConfig, EndpointConfig, EngineConfig, TransformersConfig, VllmConfig
from limbeck.cluster.engines.contract import ScoringModelConfig
from limbeck.cluster.engines.endpoint.config import EndpointBudget
from limbeck.corpus.config import Config

DETERMINING = {
    AutoConfig: "kind model dtype context_tokens trust_remote_code",
    TransformersConfig: "kind model dtype context_tokens trust_remote_code",
    VllmConfig: "kind model dtype context_tokens quantization lora trust_remote_code",
    EndpointConfig: "kind model served_name context_tokens",
}
"""The model, its arithmetic, its code, and the limit that decides which prompts are answered."""

OPERATIONAL = {
    AutoConfig: "",
    TransformersConfig: "device batch_sequences pack_tokens cache_bytes",
    VllmConfig: "tensor_parallel_size pipeline_parallel_size gpu_memory_utilization cache_bytes max_sequences batch_tokens "
    "prefix_caching enforce_eager max_logprobs",
    EndpointConfig: "base_url api_key_env max_concurrency latency_factor timeout_seconds patience_seconds backoff_seconds "
    "attempts budget",
}
"""Where the model runs, its memory and speed, spending, and patience with faults."""


def test_every_kind_of_engine_is_listed() -> None:
    own = {kind for kind in EngineConfig.kinds.values() if kind.__module__.startswith("limbeck.")}
    assert own == DETERMINING.keys() == OPERATIONAL.keys()


@pytest.mark.parametrize("kind", DETERMINING, ids=lambda kind: kind.kind_name())
def test_every_key_of_an_engine_is_determining_or_operational(kind: type[EngineConfig]) -> None:
    assert kind.operational_keys() == set(OPERATIONAL[kind].split())
    section = kind.model_validate({"model": "some"})
    assert section.determining().keys() == set(DETERMINING[kind].split())
    assert set(kind.model_fields) == section.determining().keys() | kind.operational_keys()


def subclasses(kind: type[Config]) -> list[type[Config]]:
    return [kind, *(found for child in kind.__subclasses__() for found in subclasses(child))]


def test_a_declared_key_is_a_field() -> None:
    for kind in subclasses(Config):
        if kind is not ScoringModelConfig:  # abstract, and so are its keys
            assert vars(kind).get("operational", frozenset()) <= kind.model_fields.keys(), kind


def test_scoring_models_are_recorded_without_their_batches() -> None:
    for kind in subclasses(ScoringModelConfig):
        assert kind.operational_keys() == {"device", "batch_tokens"}


def test_a_key_is_determining_unless_it_is_declared() -> None:
    assert ScriptedConfig(model="some").determining() == ScriptedConfig(model="some").model_dump(mode="json")


class Inner(Config):
    operational = frozenset({"speed"})
    size: int = 1
    speed: int = 2


class Inherited(Inner):
    operational = frozenset({"place"})
    place: str = "here"


class Outer(Config):
    alone: Inner = Inner()
    listed: tuple[Inner, ...] = (Inner(), Inherited(size=3))
    named: dict[str, Inner] = {"a": Inherited()}
    bare: dict[str, Any] = {"speed": 5}


def test_operational_keys_are_dropped_at_any_depth_and_inherited() -> None:
    assert Outer().determining() == {
        "alone": {"size": 1},
        "listed": [{"size": 1}, {"size": 3}],
        "named": {"a": {"size": 1}},
        "bare": {"speed": 5},
    }
    assert Outer().determining(exclude=("listed", "named", "bare")) == {"alone": {"size": 1}}


def test_a_budget_has_no_part_in_the_record() -> None:
    poor, rich = (EndpointConfig(model="m", budget=EndpointBudget(tokens=tokens)) for tokens in (3000, 6000))
    assert poor.determining() == rich.determining()
