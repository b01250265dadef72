"""The teacher's most likely tokens at every label of a dataset, as parts on disk. Imports no torch.

A row of a part belongs to a row of the dataset:

| column | type | meaning |
|---|---|---|
| key | binary(16) | digest of the teacher, the token ids and the first label; null with an error |
| error | string | why there are none: the row is too long, or its worker died of it |
| ids | list of [k] uint16, uint32 if the vocabulary is larger | the k most likely tokens at each label, the most likely first |
| logprobs | list of [k] float16 or float32 | their natural log-probabilities |
| tail | list of float16 or float32 | the log of what all other tokens have together; -inf if there are none |

A student finds a row by its key, so it never uses what was drawn for other tokens or by another teacher.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.cluster.engines.protocol import TopLogprobs
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DONE, done, part_names, read_part, read_some
from limbeck.students.contract import CachedTeacher
from limbeck.students.training.rows import Row

KEY_BYTES = 16
PARTS_HELD = 64  # parts whose rows a trainer keeps in memory
_SMALL_VOCABULARY = 1 << 16


def row_key(teacher: str, ids: Sequence[int] | NDArray[np.int32], first: int) -> bytes:
    """The key of a row: `teacher` is the fingerprint in `_done.json`, `first` the position of the first label."""
    digest = hashlib.blake2b(f"{teacher} {first} ".encode(), digest_size=KEY_BYTES)
    digest.update(np.asarray(ids, np.int32).tobytes())
    return digest.digest()


def first_label(row: Row) -> int:
    """The first position whose token is learned: never 0, which no token precedes."""
    return max(1, row.prompt_length)


def schema(wanted: CachedTeacher, vocabulary: int) -> pa.Schema:
    """The columns of a part."""
    number = pa.float16() if wanted.dtype == "float16" else pa.float32()
    id_ = pa.uint16() if vocabulary <= _SMALL_VOCABULARY else pa.uint32()
    fields = {
        "key": pa.binary(KEY_BYTES),
        "error": pa.string(),
        "ids": pa.list_(pa.list_(id_, wanted.top_k)),
        "logprobs": pa.list_(pa.list_(number, wanted.top_k)),
        "tail": pa.list_(number),
    }
    return pa.schema(fields)


def table(keys: Sequence[bytes | None], found: Sequence[TopLogprobs | str], columns: pa.Schema) -> pa.Table:
    """Rows of a part: what an engine gave, or the reason why it gave nothing."""
    given = [one for one in found if not isinstance(one, str)]
    counts = [0 if isinstance(one, str) else len(one.tail) for one in found]
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)
    failed = pa.array([isinstance(one, str) for one in found], pa.bool_())
    k = columns.field("ids").type.value_type.list_size

    def lists(arrays: list[NDArray[np.generic]], name: str, width: int | None) -> pa.Array:
        of = columns.field(name).type
        inner = of.value_type.value_type if width else of.value_type
        flat = np.concatenate(arrays).reshape(-1) if arrays else np.zeros(0)
        values = pa.array(flat.astype(inner.to_pandas_dtype()), inner)
        nested = pa.FixedSizeListArray.from_arrays(values, width) if width else values
        return pa.ListArray.from_arrays(pa.array(ends), nested, type=of, mask=failed)

    columns_ = {
        "key": pa.array(keys, pa.binary(KEY_BYTES)),
        "error": pa.array([one if isinstance(one, str) else None for one in found], pa.string()),
        "ids": lists([one.ids for one in given], "ids", k),
        "logprobs": lists([one.logprobs for one in given], "logprobs", k),
        "tail": lists([one.tail for one in given], "tail", None),
    }
    return pa.table(columns_, schema=columns)


def failed_row(reason: str, columns: pa.Schema) -> pa.Table:
    """A row without log-probabilities, with the reason."""
    return table([None], [reason], columns)


@dataclass(frozen=True)
class Summary:
    """Counts of a finished folder. `mass`: the mean probability of the k tokens together; `bytes`: on disk."""

    rows: int
    failed: int
    positions: int
    mass: float
    bytes: int

    @property
    def bytes_per_position(self) -> float:
        """Bytes on disk for each label."""
        return self.bytes / max(1, self.positions)


def summarised(folder: Path) -> Summary:
    """Count what the parts of a folder hold, reading one part at a time."""
    rows = failed = positions = size = 0
    mass = 0.0
    for part in part_names(folder):
        (of_part,) = read_some(folder, [part], pa.schema({"error": pa.string(), "tail": pa.list_(pa.float32())}))
        rows += of_part.num_rows
        failed += of_part.num_rows - of_part["error"].null_count
        tail = of_part["tail"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        positions += len(tail)
        mass += float((1.0 - np.exp(tail.astype(np.float64))).sum())
    for path in folder.iterdir():
        size += path.stat().st_size if path.suffix == ".parquet" else 0
    return Summary(rows, failed, positions, mass / max(1, positions), size)


class TeacherCache:
    """A finished folder of log-probabilities, read part by part as rows are asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the keys of every part; raises LimbeckError if the folder is not finished."""
        facts = done(folder)
        if facts is None:
            raise LimbeckError(f"{folder} has no {DONE}, so its log-probabilities are not complete; draw them with `limbeck run`")
        self._folder, self.teacher, self.top_k = folder, str(facts["teacher"]), int(facts["top_k"])
        self._places: dict[bytes, tuple[str, int]] = {}
        for part in part_names(folder):
            (of_part,) = read_some(folder, [part], pa.schema({"key": pa.binary(KEY_BYTES)}))
            for position, key in enumerate(of_part["key"].to_pylist()):
                if key is not None:
                    self._places.setdefault(key, (part, position))
        self._parts: OrderedDict[str, pa.Table] = OrderedDict()

    def has(self, row: Row) -> bool:
        """Whether it has a row's log-probabilities."""
        return row_key(self.teacher, row.ids, first_label(row)) in self._places

    def of(self, ids: Sequence[int] | NDArray[np.int32], first: int) -> TopLogprobs:
        """The distributions at a row's labels, in float32; raises LimbeckError if it has none for these tokens."""
        place = self._places.get(row_key(self.teacher, ids, first))
        if place is None:
            raise LimbeckError(
                f"{self._folder} has no log-probabilities of a row of {len(ids)} tokens: it was drawn for other rows; delete it, "
                "and `limbeck run` draws it again"
            )
        part, position = place
        held = self._part(part)
        tail = held["tail"][position].values.to_numpy(zero_copy_only=False)
        ids_, logprobs = (held[name][position].values for name in ("ids", "logprobs"))
        shape = (len(tail), ids_.type.list_size)
        return TopLogprobs(
            ids_.flatten().to_numpy(zero_copy_only=False).astype(np.uint32).reshape(shape),
            logprobs.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(shape),
            tail.astype(np.float32),
        )

    def _part(self, part: str) -> pa.Table:
        if part not in self._parts:
            self._parts[part] = read_part(self._folder, part).combine_chunks()
            if len(self._parts) > PARTS_HELD:
                self._parts.popitem(last=False)
        self._parts.move_to_end(part)
        return self._parts[part]
