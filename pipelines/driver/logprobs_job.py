"""The job that asks the teacher about the labels of a dataset, for a student that learns from a cached teacher."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from limbeck.cluster.engines.protocol import DistributionEngine, TokenRow, TopLogprobs
from limbeck.cluster.workers.worker import PoolName
from limbeck.corpus.parts import has_part, read_slice, write_part
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.contract import CachedTeacher
from limbeck.students.training import teacher_cache
from limbeck.students.training.rows import Row, rendered

if TYPE_CHECKING:
    from limbeck.cluster.engines.config import EngineConfig
    from limbeck.cluster.engines.model_cache import Engines


@dataclass(frozen=True)
class LogprobsJob:
    """Render some rows of a dataset as the student will, and ask the teacher about their labels.

    Part n holds rows n × `rows_per_part` and following. `teacher` is the fingerprint in the rows' keys.
    """

    stage: str
    files: tuple[Path, ...]
    total: int
    rows_per_part: int
    text: Path  # the model folder whose tokenizer and chat template render the rows
    out: Path
    engine: "EngineConfig"
    teacher: str
    wanted: CachedTeacher
    columns: pa.Schema
    subject: str = ""
    pool: ClassVar[PoolName] = "teachers"

    @property
    def concurrent(self) -> bool:
        """Whether it may run concurrently with other jobs of its process."""
        return self.engine.batches_across_callers

    @property
    def parts(self) -> list[str]:
        """The names of all parts."""
        return [f"part-{number:05d}" for number in range(-(-self.total // self.rows_per_part))]

    def finished(self, part: str) -> bool:
        """Whether the part is published."""
        return has_part(self.out, part)

    def rows(self, part: str) -> int:
        """The number of the dataset's rows in the part."""
        return min(self.rows_per_part, self.total - self._first(part))

    def warm(self, engines: "Engines") -> None:
        """Load the teacher."""
        engines.get(self.engine)

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """One row per row of the dataset, in order (`students.training.teacher_cache`)."""
        first = self._first(part)
        texts = read_slice(self.files, first + start, first + stop, ("prompt", "completion"))
        rows = rendered(texts, _tokenizer(self.text), end_tokens(self.text))
        engine = engines.get(self.engine)
        assert isinstance(engine, DistributionEngine), f"`check` refuses an engine of kind {self.engine.kind}"
        fitting = [row for row in rows if len(row.ids) <= self.wanted.max_sequence_tokens]
        asked = [TokenRow(tuple(row.ids.tolist()), teacher_cache.first_label(row)) for row in fitting]
        given = iter(engine.top_logprobs(asked, self.wanted.top_k))
        found = [self._checked(row, next(given) if len(row.ids) <= self.wanted.max_sequence_tokens else None) for row in rows]
        keys = [teacher_cache.row_key(self.teacher, row.ids, teacher_cache.first_label(row)) for row in rows]
        named = [None if isinstance(one, str) else key for key, one in zip(keys, found, strict=True)]
        return teacher_cache.table(named, found, self.columns)

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """A row without log-probabilities, with the reason."""
        return teacher_cache.failed_row(reason, self.columns)

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the part."""
        write_part(self.out, part, table, self.columns)
        return int(table.num_rows)

    def _first(self, part: str) -> int:
        return int(part.removeprefix("part-")) * self.rows_per_part

    def _checked(self, row: Row, given: TopLogprobs | None) -> TopLogprobs | str:
        length, most = len(row.ids), self.wanted.max_sequence_tokens
        if length > most:
            return f"the row has {length} tokens, more than max_sequence_tokens ({most})"
        if given is None:
            return f"the row has {length} tokens, which is more than the teacher's context holds"
        if (given.logprobs != given.logprobs).any():
            return "the teacher's log-probabilities are not numbers"
        return given


@lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
