"""Types of the C++ extension; the functions are described where they are bound (infinigram/csrc/bindings_*.cpp)."""

from collections.abc import Callable

from corpus.errors import LimbeckError

class BadIndex(LimbeckError): ...
class BadQuery(LimbeckError): ...

# bindings_build.cpp
def sort_part(text_path: str, width: int, begin: int, end: int, part_path: str, report: Callable[[int], None]) -> None: ...
def merge_parts(
    text_path: str,
    width: int,
    bounds: list[int],
    part_paths: list[str],
    table_path: str,
    threads: int,
    buffer_entries: int,
    report: Callable[[int], None],
) -> None: ...
def build_table(text_path: str, width: int, bounds: list[int], table_path: str, report: Callable[[int], None]) -> None: ...
