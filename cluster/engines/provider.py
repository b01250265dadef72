"""The engines of one process: built when first asked for, kept while there is room, weights swapped where the build is alike."""

from collections import OrderedDict
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from cluster.engines.config import EngineConfig, TransformersConfig
from cluster.engines.endpoint import EndpointEngine
from cluster.engines.endpoint import build as connect
from cluster.engines.endpoint_prompts import locate
from cluster.engines.models import fingerprint, resolve
from cluster.engines.protocol import Engine, Usage
from cluster.engines.transformers_engine import TransformersEngine, build

Held = TypeVar("Held", covariant=True)


class HeldConfig(Protocol[Held]):
    """The config of a critic's own model (a classifier, an encoder): names it, and loads it."""

    def load(self) -> Held:
        """Return the loaded model, with a `usage: Usage`."""
        ...

    def model_dump_json(self) -> str:
        """The config as text: one model a text."""
        ...


class Engines:
    """At most `keep` loaded models; the least recently used leaves first, and whoever still holds it must not use it any more."""

    def __init__(self, keep: int = 2) -> None:
        """Start empty; nothing is loaded before it is asked for."""
        assert keep >= 1
        self.keep = keep
        self._engines: OrderedDict[tuple[str, str], TransformersEngine | EndpointEngine] = OrderedDict()
        self._past = Usage()
        self._held: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def get(self, config: EngineConfig) -> Engine:
        """Return the engine of a config, loading it if need be; raises LimbeckError where its model cannot be loaded.

        A folder whose weights have changed since counts as another model.
        """
        folder = resolve(config.model) if isinstance(config, TransformersConfig) else locate(config.model)
        key = (config.model_dump_json(), fingerprint(folder))
        if key not in self._engines:
            evicted = None
            if len(self._engines) >= self.keep:
                _, evicted = self._engines.popitem(last=False)
                _add(self._past, evicted.usage)
            self._engines[key] = _start(config, evicted)
        self._engines.move_to_end(key)
        return self._engines[key]

    def hold(self, config: HeldConfig[Held]) -> Held:
        """Return what `config` loads, kept as engines are: at most `keep`, the least recently used leaves first."""
        key = (type(config).__name__, config.model_dump_json())
        if key not in self._held:
            if len(self._held) >= self.keep:
                _, left = self._held.popitem(last=False)
                _add(self._past, left.usage)
            self._held[key] = config.load()
        self._held.move_to_end(key)
        held: Held = self._held[key]
        return held

    def usage(self) -> Usage:
        """What all engines of this process have done, those that have left included."""
        total = Usage()
        for usage in (self._past, *(loaded.usage for loaded in [*self._engines.values(), *self._held.values()])):
            _add(total, usage)
        return total


def _start(config: EngineConfig, evicted: TransformersEngine | EndpointEngine | None) -> TransformersEngine | EndpointEngine:
    """Load or connect an engine; the memory of an evicted model is used again where both are built alike."""
    if isinstance(evicted, EndpointEngine):
        evicted.close()
        evicted = None
    if isinstance(config, TransformersConfig):
        return build(config, evicted)
    return connect(config)


def _add(total: Usage, usage: Usage) -> None:
    for name, value in asdict(usage).items():
        if name == "extra":
            for key, amount in value.items():
                total.extra[key] = total.extra.get(key, 0.0) + amount
        else:
            setattr(total, name, getattr(total, name) + value)
