"""A what-if on the terminal: changed counts, examples in both directions, and the yield curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError

BAR_CELLS = 48
LONGEST_TEXT = 160


def show(found: Mapping[str, Any]) -> None:
    """Print counts before and after, and the examples."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, before, after = Console(), found["before"], found["after"]
    table = Table("", "before", "after", "change", box=None)
    names = list(dict.fromkeys([*before["rejected_by"], *after["rejected_by"]]))
    rows = [
        ("kept", before["kept"], after["kept"]),
        ("sources with a kept candidate", before["sources_kept"], after["sources_kept"]),
    ]
    rows += [(f"rejected by {name}", before["rejected_by"].get(name, 0), after["rejected_by"].get(name, 0)) for name in names]
    for label, old, new in rows:
        table.add_row(label, str(old), str(new), f"{new - old:+d}" if new != old else "")
    console.print(table)
    if found["undecided"]:
        console.print(
            f"{found['undecided']} candidates are undecided: the run skipped a score that the new bounds need", style="yellow"
        )
    for key, title, style in (
        ("examples_kept", f"{found['newly_kept']} candidates would be kept", "green"),
        ("examples_rejected", f"{found['newly_rejected']} candidates would be rejected", "red"),
    ):
        if found[key]:
            console.rule(Text(f"{title}; examples: {len(found[key])}"), style=style)
        for row in found[key]:
            console.print(Text(_short(row["output"]) or "(no output)", style="bold"))
            console.print(Text(f"  {row['rejected_by']}: {row['reason']}", style=style))
            console.print(Text(f"  {_short(row['document'])}", style="dim"))


def show_sweep(key: str, points: Sequence[Mapping[str, Any]]) -> None:
    """Print the yield curve, one bar per value."""
    from rich.console import Console

    console, most = Console(highlight=False), max(1, *(point["kept"] for point in points))
    console.print(f"kept candidates by {key}")
    for point in points:
        bar = "█" * round(BAR_CELLS * point["kept"] / most)
        unclear = f", {point['undecided']} undecided" if point["undecided"] else ""
        said = f"{point['kept']} ({point['share']:.1%}, {point['sources_kept']} sources{unclear})"
        console.print(f"{point['value']:>10g} {bar} {said}", soft_wrap=True)


def plot_sweep(key: str, points: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the yield curve as a page that needs no network; raises LimbeckError if it cannot be written."""
    from limbeck.pipelines.report.page import render_sweep

    try:
        file.write_text(render_sweep(key, points), encoding="utf-8")
    except OSError as error:
        raise LimbeckError(f"cannot write {file}: {error.strerror}; name another file for --plot") from error


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} …"
