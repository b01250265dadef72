"""The engines of one process: built when first asked for, kept while there is room, weights swapped where the build is alike."""

from collections import OrderedDict
from dataclasses import asdict

from cluster.engines.config import EngineConfig
from cluster.engines.models import fingerprint, resolve
from cluster.engines.protocol import Engine, Usage
from cluster.engines.transformers_engine import TransformersEngine, build


class Engines:
    """At most `keep` loaded models; the least recently used leaves first, and whoever still holds it must not use it any more."""

    def __init__(self, keep: int = 2) -> None:
        """Start empty; nothing is loaded before it is asked for."""
        assert keep >= 1
        self.keep = keep
        self._engines: OrderedDict[tuple[str, str], TransformersEngine] = OrderedDict()
        self._past = Usage()

    def get(self, config: EngineConfig) -> Engine:
        """Return the engine of a config, loading it if need be; raises LimbeckError where its model cannot be loaded.

        A folder whose weights have changed since counts as another model.
        """
        key = (config.model_dump_json(), fingerprint(resolve(config.model)))
        if key not in self._engines:
            evicted = None
            if len(self._engines) >= self.keep:
                _, evicted = self._engines.popitem(last=False)
                _add(self._past, evicted.usage)
            self._engines[key] = build(config, evicted)
        self._engines.move_to_end(key)
        return self._engines[key]

    def usage(self) -> Usage:
        """What all engines of this process have done, those that have left included."""
        total = Usage()
        for usage in (self._past, *(engine.usage for engine in self._engines.values())):
            _add(total, usage)
        return total


def _add(total: Usage, usage: Usage) -> None:
    for name, value in asdict(usage).items():
        if name == "extra":
            for key, amount in value.items():
                total.extra[key] = total.extra.get(key, 0.0) + amount
        else:
            setattr(total, name, getattr(total, name) + value)
