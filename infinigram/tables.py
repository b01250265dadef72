"""The table of one shard: sorted in memory if it fits, otherwise in parts on disk with one merge.

Sorted parts are merged without comparing suffixes (SAscan, see csrc/build/gaps.hpp): from the last part to the first, everything
after a part is read once and counted into the gaps between its sorted suffixes; parts and gaps, each read once sequentially,
produce the table. So random reads stay within what fits in memory, and a much larger text costs one additional pass per part.
"""

import math
import re
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limbeck._infinigram import build_table, count_gaps, merge_parts, sort_part
from limbeck.corpus.files import publish

# Sorting takes a copy of the tokens, four bytes per position, and buckets for names (0.5 bytes per token in prose, at most 2).
_BYTES_PER_POSITION = 6
_FIXED_BYTES = 128 << 20  # Python, numpy and the document readers, if the system does not report it
_SPARE_BYTES = 24 << 20  # stacks and small allocations of the sorting threads
_LARGEST_PART_TOKENS = 2**31 - 1024
_SMALL_PART_TOKENS = 1 << 21  # below, a second thread gains less than the merge costs

Report = Callable[[str, int, int, str], None]  # step, done, total, unit


def sorting_room_bytes(memory_bytes: int) -> int:
    """Memory left for sorting within the budget, after what this process already holds; at least an eighth of the budget.

    Held memory is private pages, or, under a kernel limit (`ulimit -d`), all private mappings.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        status = ""
    held, mapped = (
        int(found[1]) << 10 if (found := re.search(rf"{field}:\s+(\d+) kB", status)) else _FIXED_BYTES
        for field in ("RssAnon", "VmData")
    )
    room, (limit, _) = memory_bytes - held, resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        room = min(room, limit - mapped)
    return max(room - _SPARE_BYTES, memory_bytes // 8)


def make_table(text: Path, width_bytes: int, table: Path, memory_bytes: int, threads: int, report: Report) -> None:
    """Write the suffix array of a tokenised shard to `table`, atomically; parts sorted by a killed call are reused.

    O(tokens) time if text and table fit in memory, O(tokens · parts) otherwise.
    """
    tokens = text.stat().st_size // width_bytes
    temporary = table.with_name(f"{table.name}.tmp")
    room = sorting_room_bytes(memory_bytes)
    if tokens * (width_bytes + _BYTES_PER_POSITION) <= room and tokens <= _LARGEST_PART_TOKENS:
        parts = max(1, min(threads, tokens // _SMALL_PART_TOKENS))
        bounds = [tokens * part // parts for part in range(parts + 1)]
        total = 2 * tokens  # sorted, then merged
        build_table(str(text), width_bytes, bounds, str(temporary), lambda done: report("sort", done, total, "tokens"))
        report("sort", total, total, "tokens")
        publish(temporary, table)
        return
    folder = table.with_name(f"{table.name}.parts")
    needed = max(2, -(-tokens * (width_bytes + _BYTES_PER_POSITION) // room), -(-tokens // _LARGEST_PART_TOKENS))
    at_once = _parts_at_once(needed, threads)
    cut = _Cut(text, width_bytes, folder, _parts(needed * at_once, folder, tokens), threads, report)
    folder.mkdir(exist_ok=True)
    cut.drop_others()
    cut.sort(at_once)
    gaps = cut.count_gaps()
    merge_parts(
        str(text),
        width_bytes,
        cut.bounds,
        [str(cut.file("sorted", part)) for part in range(cut.parts)],
        gaps,
        str(temporary),
        lambda done: report("merge", done, tokens, "tokens"),
    )
    report("merge", tokens, tokens, "tokens")
    publish(temporary, table)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _parts_at_once(needed: int, threads: int) -> int:
    """Number of parts to sort concurrently, given the number that would fit in memory one at a time.

    Concurrent sorting is faster, but needs more parts, and the text after each part is read. A token takes about 100 ns to sort
    and 65 ns to read once: 100 / at_once + 65 · at_once · needed / (2 · threads) is minimal here.
    """
    return max(1, min(threads, round(math.sqrt(3 * threads / needed))))


def _parts(needed: int, folder: Path, tokens: int) -> int:
    """Number of parts; the split of a killed call is kept if its parts fit, since free memory differs between calls."""
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    begun = {int(found[1]) for name in names if (found := re.fullmatch(r"sorted\.\d+-of-(\d+)\.ig", name))}
    return min(tokens, min((count for count in begun if count >= needed), default=needed))


@dataclass(frozen=True)
class _Cut:
    """A text split into parts, and their files in `folder`; a file name includes the number of parts."""

    text: Path
    width_bytes: int
    folder: Path
    parts: int
    threads: int
    report: Report

    @cached_property
    def bounds(self) -> list[int]:
        """Starts of the parts and the end of the last one, in tokens."""
        tokens = self.text.stat().st_size // self.width_bytes
        return [tokens * part // self.parts for part in range(self.parts + 1)]

    def drop_others(self) -> None:
        """Delete files of another split, or of a killed call."""
        known = {self.file(kind, part) for kind in ("sorted", "greater", "gaps") for part in range(self.parts)}
        for stale in set(self.folder.iterdir()) - known:
            stale.unlink()

    def file(self, kind: str, part: int) -> Path:
        """A part's file: its `sorted` positions, the `gaps` between them, or the flags of suffixes `greater` than its first."""
        return self.folder / f"{kind}.{part}-of-{self.parts}.ig"

    def sort(self, at_once: int) -> None:
        """Sort the unsorted parts."""
        done = {
            part: self.bounds[part + 1] - self.bounds[part] for part in range(self.parts) if self.file("sorted", part).exists()
        }
        lock = threading.Lock()

        def sort(part: int) -> None:
            def tell(tokens: int) -> None:
                with lock:
                    done[part] = tokens
                    self.report("sort", sum(done.values()), self.bounds[-1], "tokens")

            path = self.file("sorted", part)
            temporary = path.with_name(f"{path.name}.tmp")
            sort_part(str(self.text), self.width_bytes, self.bounds[part], self.bounds[part + 1], str(temporary), tell)
            publish(temporary, path)

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(sort, [part for part in range(self.parts) if part not in done]))
        self.report("sort", self.bounds[-1], self.bounds[-1], "tokens")

    def count_gaps(self) -> list[str]:
        """Count the suffixes after each part into its gaps, starting with the last part, and return the files."""
        behind = [self.bounds[-1] - begin for begin in self.bounds[:-1]]
        done = 0
        for part in reversed(range(self.parts)):
            gaps, greater = self.file("gaps", part), self.file("greater", part)
            if not gaps.exists():
                self._count(part, done, sum(behind))
            if part + 1 < self.parts:
                self.file("greater", part + 1).unlink(missing_ok=True)
            done += behind[part]
        self.report("rank", done, done, "tokens")
        greater.unlink(missing_ok=True)
        return [str(self.file("gaps", part)) for part in range(self.parts)]

    def _count(self, part: int, before: int, total: int) -> None:
        gaps, greater = (path.with_name(f"{path.name}.tmp") for path in (self.file("gaps", part), self.file("greater", part)))
        count_gaps(
            str(self.text),
            self.width_bytes,
            self.bounds[part],
            self.bounds[part + 1],
            str(self.file("sorted", part)),
            str(self.file("greater", part + 1)),
            str(greater),
            str(gaps),
            self.threads,
            lambda done: self.report("rank", before + done, total, "tokens"),
        )
        publish(greater, self.file("greater", part))
        publish(gaps, self.file("gaps", part))
