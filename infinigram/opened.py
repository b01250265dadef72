"""Open an index folder; an open index holds its files, engine and tokenizer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from limbeck import _infinigram
from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.layout import Layout, locate, steadily
from limbeck.infinigram.manifest import WIDTH_BYTES

_ENGINES = {"u8": _infinigram.EngineU8, "u16": _infinigram.EngineU16, "u32": _infinigram.EngineU32}
Ids = Any  # a list or tuple of ints, or anything with a buffer or __array__
Query = Any  # Ids, or text if the index has a tokenizer
Path_ = str | os.PathLike[str]


class OpenIndex:
    """The state of an open index, shared by `Index`, documents and traces."""

    def __init__(self, layout: Layout, dtype: str, version: int, eos: int, load: str, accelerate: bool) -> None:
        self.layout = layout
        self.dtype = dtype
        self.version = version
        self.eos = eos
        self.tokenizer: Any = None
        self.engine = _ENGINES[dtype](list(layout.shards), list(layout.removed), version == 5, eos, load == "ram", accelerate)

    @classmethod
    def open(
        cls,
        paths: Path_ | Sequence[Path_],
        *,
        dtype: Literal["u8", "u16", "u32"] | None = None,
        version: Literal[4, 5] | None = None,
        eos: int | None = None,
        tokenizer: Any = None,
        load: Literal["mmap", "ram"] = "mmap",
        accelerate: bool = True,
        official_order: bool = False,
    ) -> Self:
        """Open an index folder, or several as one; raises BadIndex if files are missing, truncated or contradict each other.

        Values recorded in the manifest may be omitted; official folders have no manifest, and default to u16, version 4 and no
        eos. `tokenizer` has `encode(text) -> list[int]` and `decode(ids) -> str`. "ram" reads the files into huge pages: a fifth
        faster, and safe if the files change. `accelerate` reads the keys (an eighth of a byte per token) and the first ranks of
        every token (0.1 s for 100M tokens in the page cache); without it nothing is read, for huge indexes on cold disks, and
        queries take twice as long. Shards are ordered by number unless the official order is requested.

        Opening checks shards of up to 65,536 tokens completely and larger ones by samples, never checksums: a changed text that
        still sorts is accepted, and a changed entry of a large table may mislead a search, until `verify` finds it.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        folders = [Path(path) for path in given]
        if load not in ("mmap", "ram"):
            raise BadQuery(f"load is {load!r}; it must be 'mmap' or 'ram'")

        def opening() -> Any:
            layout = locate(folders, official_order=official_order)
            return cls(layout, *_known(layout.manifest, dtype, version, eos), load, accelerate)

        index: Self = steadily(folders, opening)
        index.tokenizer = tokenizer
        recorded = index.layout.manifest.get("tokenizer")
        if tokenizer is None and recorded:
            from limbeck.infinigram.tokenizers import open_tokenizer

            index.tokenizer = open_tokenizer(recorded, index.layout.shards[0].folder)
        return index

    def ids(self, query: Query) -> Ids:
        """Token ids of a query; raises BadQuery for text if there is no tokenizer."""
        if type(query) is not str:
            return query
        if self.tokenizer is None:
            raise BadQuery(
                "this index has no tokenizer and takes token ids, not text; "
                "pass ids (--ids), or open it with tokenizer=... (--set tokenizer=NAME)"
            )
        return self.tokenizer.encode(query)

    @property
    def tokens(self) -> int:
        """Tokens of all documents that are not removed, including separators."""
        return int(self.engine.tokens)

    @property
    def document_count(self) -> int:
        """Number of documents that are not removed."""
        return sum(self.engine.shard_documents) - sum(len(shard.removed) for shard in self.layout.shards)


def _known(manifest: dict[str, Any], dtype: str | None, version: int | None, eos: int | None) -> tuple[str, int, int]:
    """Dtype, version and eos from the caller or the manifest; raises BadIndex if they differ or are invalid."""
    dtype_known = _settled("dtype", dtype, manifest, "u16")
    version_known = _settled("version", version, manifest, 4)
    if dtype_known not in _ENGINES:
        raise BadIndex(f"the token dtype is {dtype_known!r}; it must be u8, u16 or u32")
    if version_known not in (4, 5):
        raise BadIndex(f"version {version_known!r} is not 4 or 5; open a version 6 folder as 4, or as 5 if it is reversed")
    eos_known = eos if eos is not None else manifest.get("eos")
    return dtype_known, version_known, (1 << 8 * WIDTH_BYTES[dtype_known]) - 1 if eos_known is None else eos_known


def _settled(name: str, given: Any, manifest: dict[str, Any], otherwise: Any) -> Any:
    """The value from the caller or the manifest; raises BadIndex if they differ."""
    recorded = manifest.get(name)
    if given is not None and recorded is not None and given != recorded:
        raise BadIndex(f"{name} is {given!r} but the manifest has {recorded!r}; omit it")
    return next((value for value in (given, recorded) if value is not None), otherwise)
