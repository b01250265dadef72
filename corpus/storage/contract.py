"""What Limbeck needs of a place that stores a run: local disks have it, and object stores with conditional writes.

Everything is created whole, once, and never replaced, so the only condition that a store must support is "create if there is no
such name". A store without it cannot tell two drivers apart and is refused. `tests/corpus/storage/test_contract.py` is the
contract's test; every implementation passes it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """Named objects; a name is a relative path with "/". Methods may be called by many processes on many machines at once."""

    def put(self, name: str, content: bytes) -> bool:
        """Create an object; False, and nothing is changed, if the name exists. Of several writers, exactly one gets True."""
        ...

    def publish(self, name: str, source: Path) -> bool:
        """Like `put`, with the content of a local file or folder, which is consumed. Of a folder, all files appear at once."""
        ...

    def read(self, name: str) -> bytes:
        """The content of an object; raises KeyError if there is none."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with `prefix`, sorted; what was created before the call is among them."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        ...

    def append(self, name: str, record: bytes) -> None:
        """Add a record (without a newline) to a sequence that one process writes; it is stored as one or more segments."""
        ...

    def records(self, name: str) -> Iterator[bytes]:
        """The records of a sequence in order; a record that a crash cut off may be among them, as it is."""
        ...
