"""Progress of a run: a live panel on a terminal, plain lines otherwise. Both are event listeners."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.pipelines.runs.events import Listener, acceptance_words
from limbeck.pipelines.runs.training import progress_bar, training_progress

if TYPE_CHECKING:
    from rich.panel import Panel


@contextlib.contextmanager
def watching(*, panel: bool | None = None) -> Iterator[Listener]:
    """Yield a listener for `Events`; `panel` None: a panel if standard error is a terminal."""
    if panel is None:
        panel = sys.stderr.isatty()
    if not panel:
        lines = PlainLines()
        try:
            yield lines
        finally:
            lines.close()
        return
    from rich.console import Console
    from rich.live import Live

    state = State()
    with Live(get_renderable=state.render, console=Console(stderr=True), refresh_per_second=4, transient=False):
        yield state.take


class PlainLines:
    """A listener that prints one line per event that `sentence` describes, with the time of day.

    While a student is trained there are no events, so the trainer's progress is read every `interval` seconds, and printed if it
    moved, or if nothing was printed for `silence` seconds.
    """

    def __init__(self, interval: float = 10.0, silence: float = 10.0) -> None:
        self._interval, self._silence = interval, silence
        self._watching: tuple[threading.Event, threading.Thread] | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event."""
        self.close()
        if line := sentence(event):
            _print(line)
        if event["event"] == "training_started":
            stop = threading.Event()
            thread = threading.Thread(target=self._follow, args=(event, stop), daemon=True)
            self._watching = stop, thread
            thread.start()

    def close(self) -> None:
        """Stop following a training."""
        if self._watching is not None:
            stop, thread = self._watching
            stop.set()
            thread.join()
            self._watching = None

    def _follow(self, event: dict[str, Any], stop: threading.Event) -> None:
        last, since = "", time.monotonic()
        printed = since
        while not stop.wait(self._interval):
            now, clock = training_progress(Path(event["progress"]), bar=False), time.monotonic()
            if now != last:
                _print(f"round {event['round']}: training, {now}")
                last, since, printed = now, clock, clock
            elif clock - printed >= self._silence:
                _print(f"round {event['round']}: training, {now} (for {clock - since:.0f} s)")
                printed = clock


def _print(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def sentence(event: dict[str, Any]) -> str:
    """One event as a sentence; "" if it has none."""
    kind = event["event"]
    if kind == "part_done":
        rate = event["output_tokens"] / event["seconds"] if event["seconds"] else 0.0
        speed = f", {rate:.0f} tokens/s" if event["output_tokens"] else ""
        failed = f", {len(event['failed_rows'])} failed rows" if event["failed_rows"] else ""
        subject = f" of {event['subject']}" if event.get("subject") else ""
        return f"{event['stage']}{subject} {event['part']}: {event['rows']} rows in {event['seconds']:.1f} s{speed}{failed}"
    if kind == "selected":
        rejected = ", ".join(f"{name} {n}" for name, n in event["rejected_by"].items())
        return (
            f"round {event['round']}: kept {event['kept']} of {event['candidates']} candidates (rejected: {rejected or 'none'})"
        )
    if kind == "trained":
        steps = f", {event['steps']} steps" if "steps" in event else ""
        loss = f", loss {event['loss_first']:.3f} to {event['loss_last']:.3f}" if "loss_first" in event else ""
        if "held_out_loss_first" in event:
            loss += f", held-out loss {event['held_out_loss_first']:.3f} to {event['held_out_loss_last']:.3f}"
        return f"round {event['round']}: student trained{steps}{loss}"
    if kind == "acceptance":
        return acceptance_words(event)
    if kind == "sources_read":
        splits = ", ".join(f"{event[split]} {split}" for split in ("train", "dev", "test"))
        reasons = ", ".join(f"{count} {reason}" for reason, count in event.get("reasons", {}).items())
        used = f"{event['used']} {event.get('rows_are', 'documents')}: {splits}"  # older runs do not say what rows are
        return f"{used}; {event['rejected']} not used" + (f" ({reasons})" if reasons else "")
    templates = {
        "run_started": "run {name} in {folder}",
        "cluster": "{words}",
        "stage_started": "{stage}: {parts} parts",
        "training_started": "round {round}: training a student on {rows} rows",
        "calibrated": "bounds calibrated: {pass_rate:.0%} of {candidates} candidates pass all of them",
        "warning": "warning: {words}",
        "note": "{words}",
        "rounds_ended": "{words}",
        "extended": "{words}",
        "waiting": "{words}",
        "evaluated": "{model} on {split}: {pass_rate:.1%} of candidates pass",
        "run_done": "done in {seconds:.0f} s; report: {report}",
        "run_failed": "stopped: {words}",
    }
    return templates[kind].format(**event) if kind in templates else ""


class State:
    """The state of the panel, updated by events."""

    def __init__(self) -> None:
        """Start empty."""
        self._started = time.monotonic()
        self._stage, self._stage_started = "starting", time.monotonic()
        self._parts = self._parts_done = self._rows = 0
        self._tokens, self._seconds = 0, 0.0
        self._kept: list[str] = []
        self._training: Path | None = None
        self._lines: list[str] = []
        self._warnings: list[str] = []

    def take(self, event: dict[str, Any]) -> None:
        """Update the state with one event."""
        kind = event["event"]
        if kind in ("stage_started", "training_started"):
            self._stage = event.get("stage") or f"round-{event['round']}/student"
            self._parts, self._parts_done, self._rows = event.get("parts", 0), 0, 0
            self._tokens, self._seconds, self._stage_started = 0, 0.0, time.monotonic()
            self._training = Path(event["progress"]) if kind == "training_started" else None
        if kind == "part_done":
            self._parts_done += 1
            self._rows += event["rows"]
            self._tokens += event["output_tokens"]
            self._seconds += event["seconds"] if event["output_tokens"] else 0.0
        if kind == "selected":
            self._kept.append(f"round {event['round']}: {event['kept']} kept, {event['candidates'] - event['kept']} rejected")
        if kind == "warning":
            self._warnings.append(sentence(event))
        elif kind != "part_done" and (line := sentence(event)):
            self._lines = [*self._lines[-5:], line]

    def render(self) -> "Panel":
        """The panel, for rich."""
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        elapsed = time.monotonic() - self._stage_started
        grid = Table.grid(padding=(0, 2))
        for line in self._warnings:
            grid.add_row("", Text(line, "yellow"))
        grid.add_row("stage", self._stage)
        if self._parts:
            grid.add_row("progress", f"{progress_bar(self._parts_done, self._parts)} {self._parts_done} of {self._parts} jobs")
        if self._training:
            grid.add_row("training", training_progress(self._training))
        grid.add_row("speed", f"{self._rows / elapsed if elapsed else 0:.1f} rows/s, {self._rate():.0f} tokens/s")
        grid.add_row("kept", "; ".join(self._kept) or "not decided yet")
        grid.add_row("time", f"{_clock(time.monotonic() - self._started)} so far, stage ETA {self._eta(elapsed)}")
        for line in self._lines:
            grid.add_row("", f"[dim]{line}[/dim]")
        return Panel(grid, title="limbeck", expand=False)

    def _rate(self) -> float:
        return self._tokens / self._seconds if self._seconds else 0.0

    def _eta(self, elapsed: float) -> str:
        if not self._parts_done or not self._parts:
            return "unknown"
        return _clock(elapsed / self._parts_done * (self._parts - self._parts_done))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
