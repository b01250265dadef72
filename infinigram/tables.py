"""The table of one shard: sorted in memory where that holds it, and else part by part through the disk, with one merge."""

import itertools
import re
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _infinigram import build_table, merge_parts, sort_part
from infinigram.manifest import publish

# Sorting takes a copy of the tokens, four bytes a position, and buckets for names (0.5 bytes a token in prose, 2 at worst).
_BYTES_PER_POSITION = 6
_FIXED_BYTES = 128 << 20  # Python, numpy and what reads the documents, where the system does not tell
_SPARE_BYTES = 24 << 20  # stacks and small things of the threads that sort
_LARGEST_PART_TOKENS = 2**31 - 1024
_SMALL_PART_TOKENS = 1 << 21  # below, a second thread gains less than the merge costs
_BUFFER_ENTRIES = (256, 1 << 16)

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
    """Write the suffix array of a tokenised shard to `table`, atomically; sorted parts of a killed call are used again.

    Takes O(tokens) time in parts that fit `memory_bytes`, and O(tokens log parts) for their merge.
    """
    tokens = text.stat().st_size // width_bytes
    temporary = table.with_name(f"{table.name}.tmp")
    room = sorting_room_bytes(memory_bytes)
    if tokens * (width_bytes + _BYTES_PER_POSITION) <= room and tokens <= _LARGEST_PART_TOKENS:
        parts = max(1, min(threads, tokens // _SMALL_PART_TOKENS))
        bounds = [tokens * part // parts for part in range(parts + 1)]
        total = 2 * tokens  # sorted, then merged
        build_table(str(text), width_bytes, bounds, str(temporary), lambda done: report("sort", done, total, "tokens"))
    else:
        parts_folder = table.with_name(f"{table.name}.parts")
        bounds = _bounds(tokens, width_bytes, room, threads, parts_folder)
        paths = _sorted_parts(text, width_bytes, bounds, parts_folder, threads, report)
        least, most = _BUFFER_ENTRIES
        buffer_entries = max(least, min(most, room // 4 // (4 * threads * len(paths))))
        merge_parts(
            str(text),
            width_bytes,
            bounds,
            [str(path) for path in paths],
            str(temporary),
            threads,
            buffer_entries,
            lambda done: report("merge", done, tokens, "tokens"),
        )
        publish(temporary, table)
        for path in paths:
            path.unlink()
        parts_folder.rmdir()
        return
    publish(temporary, table)


def _bounds(tokens: int, width_bytes: int, room: int, threads: int, parts_folder: Path) -> list[int]:
    """Where to cut the text so that `threads` parts are sorted at once in so many bytes.

    A killed call's cuts are kept where its parts fit: how much is free differs from one call to the next.
    """
    largest = max(1, min(room // (threads * (width_bytes + _BYTES_PER_POSITION)), _LARGEST_PART_TOKENS))
    needed = max(1, -(-tokens // largest))
    begun = {int(found[1]) for name in _names(parts_folder) if (found := re.fullmatch(r"sorted\.\d+-of-(\d+)\.ig", name))}
    parts = min((count for count in begun if count >= needed), default=needed)
    return [tokens * part // parts for part in range(parts + 1)]


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def _sorted_parts(text: Path, width_bytes: int, bounds: list[int], folder: Path, threads: int, report: Report) -> list[Path]:
    """Sort the parts that are not there yet; a part's name says how the text was cut, so other cuts take none over."""
    folder.mkdir(exist_ok=True)
    ranges = list(itertools.pairwise(bounds))
    paths = [folder / f"sorted.{part}-of-{len(ranges)}.ig" for part in range(len(ranges))]
    for stale in set(folder.iterdir()) - set(paths):
        stale.unlink()
    done = {begin: (end - begin) * path.exists() for (begin, end), path in zip(ranges, paths, strict=True)}
    lock = threading.Lock()

    def sort(part: int) -> None:
        (begin, end), path = ranges[part], paths[part]

        def tell(tokens: int) -> None:
            with lock:
                done[begin] = tokens
                report("sort", sum(done.values()), bounds[-1], "tokens")

        temporary = path.with_name(f"{path.name}.tmp")
        sort_part(str(text), width_bytes, begin, end, str(temporary), tell)
        publish(temporary, path)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(sort, [part for part, path in enumerate(paths) if not path.exists()]))
    return paths
