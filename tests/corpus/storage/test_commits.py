"""The log of a run: however a driver is paused, it commits nothing after another one has taken over."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.memory_store import Bucket, MemoryStore
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.storage.commits import Commits, Superseded
from limbeck.corpus.storage.contract import Store
from limbeck.corpus.storage.local import LocalStore
from limbeck.corpus.storage.manifest import Location, Manifest, parse_manifest

STAGE = "rounds/000/candidates"


@pytest.fixture(params=["local", "conditional-put"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path) if request.param == "local" else MemoryStore(Bucket())


def manifest(generation: int) -> Manifest:
    return Manifest(generation, {f"part-{generation:05d}": Location("parts.parquet", 0, 0, generation, 9)})


def manifests(store: Store) -> list[Manifest]:
    return [parse_manifest(store.read(name), name) for name in store.names(f"{STAGE}/_manifest.")]


def test_epochs_count_owners_and_a_commit_gives_a_manifest_its_name(store: Store) -> None:
    first = Commits(store, "first")
    assert not first.claimed() and first.epoch == 1
    first.commit(STAGE, manifest(1))
    assert first.claimed() and first.epoch == 1 and manifests(store) == [manifest(1)]
    second = Commits(store, "second")
    assert second.claim() == second.epoch == 2 and Commits(store, "third").claim() == 3
    assert manifests(store) == [manifest(1)]


def test_a_new_generation_replaces_those_before(store: Store) -> None:
    commits = Commits(store, "one")
    for generation in (1, 2, 3):
        commits.commit(STAGE, manifest(generation))
    commits.commit("rounds/000/steps", manifest(1))
    assert manifests(store) == [manifest(3)] and not [name for name in store.names() if name.endswith("prepared")]


class Paused:
    """A store whose owner is paused before its n-th call, while `meanwhile` happens."""

    def __init__(self, store: Store, at: int, meanwhile: Callable[[], None]) -> None:
        self._store, self._left, self._meanwhile = store, at, meanwhile
        self.paused = False

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0 and not self.paused:
            self.paused = True
            self._meanwhile()

    def put(self, name: str, content: bytes) -> bool:
        self._step()
        return self._store.put(name, content)

    def read(self, name: str) -> bytes:
        self._step()
        return self._store.read(name)

    def names(self, prefix: str = "") -> list[str]:
        self._step()
        return self._store.names(prefix)

    def remove(self, name: str) -> None:
        self._step()
        self._store.remove(name)

    def publish(self, name: str, source: Path) -> bool:
        raise NotImplementedError

    def append(self, name: str, record: bytes) -> None:
        raise NotImplementedError

    def records(self, name: str) -> Iterator[bytes]:
        raise NotImplementedError


@pytest.mark.parametrize("claims", [False, True], ids=["new-folder", "existing-folder"])
def test_a_driver_that_is_paused_anywhere_in_a_commit_and_loses_the_run_publishes_nothing_after(
    tmp_path: Path, claims: bool
) -> None:
    """At every call of a commit: another driver takes over and commits; then the paused one goes on."""
    committed_before_pause, refused = 0, 0
    for at in range(40):
        store = LocalStore(tmp_path / str(at))
        if claims:
            Commits(store, "old").claim()

        def take_over(store: Store = store) -> None:
            new = Commits(store, "new")
            new.claim()
            found = manifests(store)  # what the old driver has committed so far is complete
            assert found in ([], [manifest(1)])
            new.commit(STAGE, Manifest(len(found) + 1, {**(found[0].parts if found else {}), **manifest(7).parts}))

        paused = Paused(store, at, take_over)
        try:
            Commits(paused, "old").commit(STAGE, manifest(1))
            committed_before_pause += paused.paused
        except Superseded as error:
            refused += 1
            assert "taken over" in str(error) and isinstance(error, LimbeckError)
        newest = manifests(store)[-1]
        if not paused.paused:
            assert at > 5 and newest == manifest(1)
            break
        assert "part-00007" in newest.parts, "what the new driver committed stays"
        with pytest.raises(Superseded):
            Commits(store, "old").commit(STAGE, manifest(newest.generation + 1))
        assert manifests(store)[-1] == newest
        assert not [name for name in store.names() if name.endswith("prepared")]
    assert refused > 2 and committed_before_pause > 1


def test_what_was_committed_and_not_named_before_a_crash_is_named_by_the_next_owner(tmp_path: Path) -> None:
    """A kill before every call of a commit."""

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    named = []
    for at in range(40):
        store = LocalStore(tmp_path / str(at))
        Commits(store, "old").claim()
        try:
            Commits(Paused(store, at, kill), "old").commit(STAGE, manifest(1))
        except Killed:
            Commits(store, "next").claim()
            named.append(manifests(store) == [manifest(1)])
        else:
            break
    assert named == sorted(named) and set(named) == {False, True} and manifests(store) == [manifest(1)]
