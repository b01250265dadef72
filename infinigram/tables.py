"""The table of one shard: sorted in memory where that holds it, and else part by part through the disk, with one merge.

Sorted parts are merged without comparing suffixes (SAscan, see csrc/build/gaps.hpp): from the last part to the first, all text
behind a part is read once and counted into the gaps between its sorted suffixes; parts and gaps, each read once in sequence, make
the table. So only what fits into memory is read at random, and a much larger text costs one more reading of it per part.
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

# Sorting takes a copy of the tokens, four bytes a position, and buckets for names (0.5 bytes a token in prose, 2 at worst).
_BYTES_PER_POSITION = 6
_FIXED_BYTES = 128 << 20  # Python, numpy and what reads the documents, where the system does not tell
_SPARE_BYTES = 24 << 20  # stacks and small things of the threads that sort
_LARGEST_PART_TOKENS = 2**31 - 1024
_SMALL_PART_TOKENS = 1 << 21  # below, a second thread gains less than the merge costs

Report = Callable[[str, int, int, str], None]  # step, done, total, unit


def sorting_room_bytes(memory_bytes: int) -> int:
    """What is left for sorting of the memory given, beside what this process holds by now; an eighth of it at the least.

    Held are private pages, and under a limit of the kernel's (`ulimit -d`) all that is mapped to hold some.
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
    """Write the suffix array of a tokenised shard to `table`, atomically; what a killed call has sorted is used again.

    Takes O(tokens) time where the memory holds the text and its table, and O(tokens · parts) in parts that fit it.
    """
    tokens = text.stat().st_size // width_bytes
    temporary = table.with_name(f"{table.name}.tmp")
    room = sorting_room_bytes(memory_bytes)
    if tokens * (width_bytes + _BYTES_PER_POSITION) <= room and tokens <= _LARGEST_PART_TOKENS:
        parts = max(1, min(threads, tokens // _SMALL_PART_TOKENS))
        bounds = [tokens * part // parts for part in range(parts + 1)]
        total = 2 * tokens  # sorted, then merged
        build_table(str(text), width_bytes, bounds, str(temporary), lambda done: report("sort", done, total, "tokens"))
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
    publish(temporary, table)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _parts_at_once(needed: int, threads: int) -> int:
    """How many parts to sort at a time, of so many that would fit the memory one by one.

    Side by side sorting is quicker, yet there are more parts then, and the text behind each is read. A token takes about 100 ns
    to sort and 65 ns to be read once: 100 / at_once + 65 · at_once · needed / (2 · threads) is least here.
    """
    return max(1, min(threads, round(math.sqrt(3 * threads / needed))))


def _parts(needed: int, folder: Path, tokens: int) -> int:
    """Into how many parts to cut; a killed call's cut is kept where its parts fit: how much is free differs between calls."""
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    begun = {int(found[1]) for name in names if (found := re.fullmatch(r"sorted\.\d+-of-(\d+)\.ig", name))}
    return min(tokens, min((count for count in begun if count >= needed), default=needed))


@dataclass(frozen=True)
class _Cut:
    """A text cut into parts, and what is known of them in `folder`; a file's name says how the text was cut."""

    text: Path
    width_bytes: int
    folder: Path
    parts: int
    threads: int
    report: Report

    @cached_property
    def bounds(self) -> list[int]:
        """Where the parts begin, and the end of the last; in tokens."""
        tokens = self.text.stat().st_size // self.width_bytes
        return [tokens * part // self.parts for part in range(self.parts + 1)]

    def drop_others(self) -> None:
        """Delete what another cut, or a killed call, has left in the folder."""
        known = {self.file(kind, part) for kind in ("sorted", "greater", "gaps") for part in range(self.parts)}
        for stale in set(self.folder.iterdir()) - known:
            stale.unlink()

    def file(self, kind: str, part: int) -> Path:
        """The file of a part: its `sorted` positions, the `gaps` between them, or which suffixes are `greater` than its first."""
        return self.folder / f"{kind}.{part}-of-{self.parts}.ig"

    def sort(self, at_once: int) -> None:
        """Sort the parts that are not sorted yet."""
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

    def count_gaps(self) -> list[str]:
        """Count what lies behind each part into its gaps, from the last part on, and return their files."""
        behind = [self.bounds[-1] - begin for begin in self.bounds[:-1]]
        done = 0
        for part in reversed(range(self.parts)):
            gaps, greater = self.file("gaps", part), self.file("greater", part)
            if not gaps.exists():
                self._count(part, done, sum(behind))
            if part + 1 < self.parts:
                self.file("greater", part + 1).unlink(missing_ok=True)
            done += behind[part]
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
