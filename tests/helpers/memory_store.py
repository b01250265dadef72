"""An object store with conditional put and nothing else, in memory: whole objects, no rename, no folders, no append."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from limbeck.corpus.storage.local import remove


class Bucket:
    """What a service offers: create an object unless its key exists, read, list, delete."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def create(self, key: str, content: bytes) -> bool:
        """The conditional put (`If-None-Match: *`)."""
        with self._lock:
            return self._objects.setdefault(key, content) is content

    def get(self, key: str) -> bytes:
        return self._objects[key]

    def listed(self) -> list[str]:
        with self._lock:
            return sorted(self._objects)

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)


class MemoryStore:
    """The store's contract on a bucket. A folder is uploaded first, under keys of its own, and then named by one object."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def put(self, name: str, content: bytes) -> bool:
        return self._bucket.create(f"objects/{name}", bytes(bytearray(content)))

    def publish(self, name: str, source: Path) -> bool:
        try:
            if source.is_file():
                return self.put(name, source.read_bytes())
            upload = uuid.uuid4().hex
            files = sorted(file for file in source.rglob("*") if file.is_file())
            lines = []
            for number, file in enumerate(files):
                self._bucket.create(f"uploads/{upload}/{number}", file.read_bytes())
                lines.append(f"uploads/{upload}/{number} {file.relative_to(source).as_posix()}")
            return self._bucket.create(f"folders/{name}", "\n".join(lines).encode())
        finally:
            remove(source)

    def read(self, name: str) -> bytes:
        key = self._every().get(name)
        if key is None:
            raise KeyError(name)
        return self._bucket.get(key)

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self._every() if name.startswith(prefix))

    def remove(self, name: str) -> None:
        self._bucket.delete(f"objects/{name}")

    def append(self, name: str, record: bytes) -> None:
        """A segment per record; the next number that is free."""
        number = len([key for key in self._bucket.listed() if key.startswith(f"segments/{name}/")])
        while not self._bucket.create(f"segments/{name}/{number:08d}", bytes(bytearray(record))):
            number += 1

    def records(self, name: str) -> Iterator[bytes]:
        return (self._bucket.get(key) for key in self._bucket.listed() if key.startswith(f"segments/{name}/"))

    def _every(self) -> dict[str, str]:
        """Name → key."""
        found = {}
        for key in self._bucket.listed():
            kind, _, name = key.partition("/")
            if kind == "objects":
                found[name] = key
            elif kind == "folders":
                for line in self._bucket.get(key).decode().splitlines():
                    upload, _, inner = line.partition(" ")
                    found[f"{name}/{inner}"] = upload
        return found
