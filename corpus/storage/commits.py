"""The log of a run: which driver owns it since when, and every manifest that an owner has committed.

An entry is an object with the next number, so that of two writers one fails and reads what the other wrote. A driver that takes
over appends a claim, which begins an epoch. A manifest is committed by an entry too, so it cannot be committed in an epoch that
has ended: a driver that was paused, lost its lock and wakes up finds the claim where its entry belongs.
"""

import json
import re
import uuid
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.storage.contract import Store
from limbeck.corpus.storage.manifest import Manifest, manifest_name, newest, parse_manifest

COMMITS = "commits/"
PREPARED = re.compile(r"_manifest\.(\d{6})-[0-9a-f]+\.prepared")


class Superseded(LimbeckError):
    """Another driver has taken over the run."""


class Commits:
    """The log of one run, written by one driver."""

    def __init__(self, store: Store, driver: str) -> None:
        """`driver`: an id that no other driver has."""
        self._store, self._driver = store, driver

    @property
    def epoch(self) -> int:
        """The number of the epoch in which this driver owns, or owned, the run."""
        return self._epoch_in(self._entries())

    def claimed(self) -> bool:
        """Whether any driver has claimed the run."""
        return bool(self._store.names(COMMITS))

    def claim(self) -> int:
        """Begin an epoch as the owner, and complete what earlier owners committed; returns the number of the epoch."""
        while True:
            entries = self._entries()
            epoch = sum("claim" in entry for entry in entries) + 1
            if self._append(len(entries), {"claim": self._driver, "epoch": epoch}):
                for entry in entries:
                    if "manifest" in entry:
                        self._complete(entry)
                return epoch

    def own(self) -> int:
        """The number of this driver's epoch; raises `Superseded` if another driver owns the run.

        If no driver has claimed the run, this one does.
        """
        while True:
            entries = self._entries()
            self._refuse_if_superseded(entries)
            if entries or self._append(0, {"claim": self._driver, "epoch": 1}):
                return self._epoch_in(entries)

    def commit(self, folder: str, manifest: Manifest) -> None:
        """Make a manifest that of a folder; raises `Superseded` if another driver owns the run."""
        epoch = self.own()
        prepared = f"{folder}/_manifest.{epoch:06d}-{uuid.uuid4().hex}.prepared"
        self._store.put(prepared, manifest.to_json().encode())
        entry = {"manifest": folder, "generation": manifest.generation, "prepared": prepared, "in": epoch}
        try:
            while True:
                entries = self._entries()
                self._refuse_if_superseded(entries)
                if self._append(len(entries), entry):
                    break
        except BaseException:
            self._store.remove(prepared)
            raise
        self._complete(entry)

    def _epoch_in(self, entries: list[dict[str, Any]]) -> int:
        mine = [entry["epoch"] for entry in entries if entry.get("claim") == self._driver]
        return int(mine[-1]) if mine else 1

    def _refuse_if_superseded(self, entries: list[dict[str, Any]]) -> None:
        owner = next((entry["claim"] for entry in reversed(entries) if "claim" in entry), self._driver)
        if owner != self._driver:
            raise Superseded("another driver has taken over this run meanwhile, so this one stops; see `limbeck status`")

    def _complete(self, entry: dict[str, Any]) -> None:
        """Give a committed manifest its final name, and remove what earlier ones and earlier epochs left; may be repeated."""
        folder, generation, prepared = entry["manifest"], entry["generation"], entry["prepared"]
        try:
            content = self._store.read(prepared)
        except KeyError:  # it is complete
            return
        parse_manifest(content, prepared)
        self._store.put(f"{folder}/{manifest_name(generation)}", content)
        self._store.remove(prepared)
        for name in self._store.names(f"{folder}/_manifest."):
            other = PurePosixPath(name).name
            abandoned = PREPARED.fullmatch(other)
            if 0 < newest([other]) < generation or (abandoned is not None and int(abandoned.group(1)) < entry["in"]):
                self._store.remove(name)

    def _entries(self) -> list[dict[str, Any]]:
        return [_entry(name, self._store.read(name)) for name in self._store.names(COMMITS)]

    def _append(self, position: int, entry: dict[str, Any]) -> bool:
        return self._store.put(f"{COMMITS}{position:08d}.json", json.dumps(entry).encode())


def _entry(name: str, content: bytes) -> dict[str, Any]:
    """An entry from its content: a claim with its epoch, or a manifest; raises LimbeckError if it is damaged."""
    with suppress(ValueError, RecursionError):
        entry = json.loads(content)
        keys = ({"claim", "epoch"}, {"manifest", "generation", "prepared", "in"})
        if isinstance(entry, dict) and any(needed <= entry.keys() for needed in keys):
            return entry
    raise LimbeckError(f"{name} of the run folder is damaged; restore it from a copy, or start again with another --out")
