"""The engines of one process: built on first use, kept while they fit, weights swapped within one architecture."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.protocol import Engine, Usage
from limbeck.cluster.engines.unloading import unload

Held = TypeVar("Held", covariant=True)
Key = tuple[Hashable, ...]
Load = Callable[[list[Any]], Any]
"""Loads a model, given the evicted ones; it removes them from the list, so that no other reference keeps their memory."""


class HeldConfig(Protocol[Held]):
    """The config of a filter's own model (a classifier, an encoder)."""

    def load(self) -> Held:
        """Return the loaded model, with a `usage: Usage`."""
        ...

    def model_dump_json(self) -> str:
        """The config as text, which identifies the model."""
        ...


class Engines:
    """Engines, and the filters' own models, at most `keep` of each; the least recently used is evicted first. Thread-safe.

    A model requested by a lease stays until the lease ends; one obtained without a lease must not be used after its eviction.
    Engines that hold no model in this process (kind endpoint) are never evicted and not counted.
    """

    def __init__(self, keep: int = 2) -> None:
        assert keep >= 1
        self._engines, self._held = ModelCache(keep), ModelCache(keep)

    def get(self, config: EngineConfig) -> Engine:
        """Return the engine of a config, loading it if necessary; raises LimbeckError if its model cannot be loaded.

        A folder with changed weights counts as another model.
        """
        key = (config.identity, *config.fingerprint().items())
        engine: Engine = self._ask(self._engines, key, config.start, not config.remote)
        return engine

    def hold(self, config: HeldConfig[Held]) -> Held:
        """Return the model of `config`, cached like engines."""

        def load(left: list[Any]) -> Held:
            unload(left)
            return config.load()

        held: Held = self._ask(self._held, (type(config).__name__, config.model_dump_json()), load, True)
        return held

    @contextlib.contextmanager
    def lease(self) -> Iterator["Lease"]:
        """For the duration of a job: the engines it requests stay loaded, and their usage is counted for that job."""
        lease = Lease(self._engines, self._held)
        try:
            yield lease
        finally:
            lease.end()

    def usage(self) -> Usage:
        """Usage of all engines of this process, including evicted ones."""
        return add(self._engines.usage(), self._held.usage())

    def _ask(self, cache: "ModelCache", key: Key, load: Load, counted: bool) -> Any:
        return cache.ask(key, load, counted)


class Lease(Engines):
    """The engines as used by one job."""

    def __init__(self, engines: "ModelCache", held: "ModelCache") -> None:
        self._engines, self._held = engines, held
        self._asked: list[tuple[ModelCache, Key]] = []

    def take_usage(self) -> Usage:
        """Usage of this job's engines since the last report; each amount is reported once, to one job."""
        total = Usage()
        for cache, key in self._asked:
            add(total, cache.take_usage(key))
        return total

    def end(self) -> None:
        """Release the leased engines."""
        while self._asked:
            cache, key = self._asked.pop()
            cache.release(key)

    def _ask(self, cache: "ModelCache", key: Key, load: Load, counted: bool) -> Any:
        if (cache, key) in self._asked:
            return cache.ask(key, load, counted)
        found = cache.ask(key, load, counted, pin=True, may_wait=not self._asked)
        self._asked.append((cache, key))
        return found


class ModelCache:
    """Loaded models by key, at most `keep` of those that count; models are loaded one at a time."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._changed = threading.Condition()
        self._loaded: OrderedDict[Key, Any] = OrderedDict()
        self._pins: dict[Key, int] = {}
        self._uncounted: set[Key] = set()
        self._loading = False
        self._past, self._reported = Usage(), dict[Key, Usage]()

    def ask(self, key: Key, load: Load, counted: bool, pin: bool = False, may_wait: bool = False) -> Any:
        """Return the model of a key, loading it if necessary.

        If every model is in use, waits for one to be released; a job that uses another model already does not wait, since two
        such jobs would wait for each other: then there is one more than `keep` until one is released.
        """
        with self._changed:
            if pin:
                self._pins[key] = self._pins.get(key, 0) + 1
            self._changed.wait_for(lambda: key in self._loaded or self._may_load(counted, may_wait))
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
            self._loading = True
            left = self._make_room() if counted else []
        loaded = None
        try:
            loaded = load(left)
        finally:
            with self._changed:
                self._loading = False
                if loaded is not None:
                    self._loaded[key], self._reported[key] = loaded, Usage()
                    if not counted:
                        self._uncounted.add(key)
                elif pin:
                    self._unpin(key)
                self._changed.notify_all()
        return loaded

    def release(self, key: Key) -> None:
        """Release a model that was requested with a pin."""
        with self._changed:
            self._unpin(key)
            self._changed.notify_all()

    def usage(self) -> Usage:
        """Usage of all models, including evicted ones."""
        with self._changed:
            total = add(Usage(), self._past)
            for model in self._loaded.values():
                add(total, model.usage)
            return total

    def take_usage(self, key: Key) -> Usage:
        """Usage of a model since the previous call."""
        with self._changed:
            now = _snapshot(self._loaded[key].usage)
            before, self._reported[key] = self._reported[key], now
            return add(_snapshot(now), before, -1)

    def _may_load(self, counted: bool, may_wait: bool) -> bool:
        if self._loading:
            return False
        return not counted or not may_wait or self._count() < self._keep or self._idle() is not None

    def _count(self) -> int:
        return len(self._loaded) - len(self._uncounted)

    def _idle(self) -> Key | None:
        """The least recently used model that no job uses."""
        return next((key for key in self._loaded if key not in self._pins and key not in self._uncounted), None)

    def _make_room(self) -> list[Any]:
        """Evict idle models until one more fits or none is idle; returns them."""
        left = []
        while self._count() >= self._keep and (key := self._idle()) is not None:
            left.append(self._loaded.pop(key))
            del self._reported[key]
            add(self._past, left[-1].usage)
        return left

    def _unpin(self, key: Key) -> None:
        self._pins[key] -= 1
        if not self._pins[key]:
            del self._pins[key]


def add(total: Usage, usage: Usage, sign: int = 1) -> Usage:
    """Add a usage to `total`, which is returned; a negative `sign` subtracts it."""
    for name, value in vars(usage).items():
        if name != "extra":
            setattr(total, name, getattr(total, name) + sign * value)
    for key, amount in dict(usage.extra).items():  # copied: another thread may be adding to it
        total.extra[key] = total.extra.get(key, 0.0) + sign * amount
    return total


def _snapshot(usage: Usage) -> Usage:
    return replace(usage, extra=dict(usage.extra))
