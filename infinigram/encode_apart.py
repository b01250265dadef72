"""Encoding in a process of its own: what tokenizers and readers leave in memory is gone before sorting begins.

The child is told what to do by one line of JSON, and answers in lines: {"done": bytes} now and then, {"error": sentence} where
the user can mend something. It dies with the thread that started it, and leaves the state that the next call continues from.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.infinigram.documents import Source, read_documents
from limbeck.infinigram.encode import Encoding, encode_shards, read_state
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.manifest import writing
from limbeck.infinigram.tables import Report

_PR_SET_PDEATHSIG = 1
_SORTED_BYTES_PER_INPUT_BYTE = 20  # what sorting may need; files of text may be compressed
_SMALL_INPUT_BYTES = 1 << 24  # leaves little behind


@dataclass(frozen=True)
class Encoder:
    """What to encode: documents of sources into shards of these numbers, with so many threads."""

    encoding: Encoding
    sources: list[Source]
    text_column: str
    split: str
    numbers: list[int]
    threads: int

    def encode(self, folder: Path, memory_bytes: int, report: Report) -> None:
        """Encode here, or in a child process where sorting may need the memory that this would leave behind."""
        total = sum(source.bytes for source in self.sources)
        is_large = total > max(_SMALL_INPUT_BYTES, memory_bytes // _SORTED_BYTES_PER_INPUT_BYTE)
        run = self.run_apart if is_large and not read_state(folder)["finished"] else self.run
        run(folder, lambda done: report("tokenise", done, total, "bytes"))

    def run(self, folder: Path, report: Callable[[int], None]) -> None:
        """Encode in this process, after any other that does so into the same folder; see `encode_shards`."""
        documents = read_documents(self.sources, self.text_column, self.split)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the child of a killed build may have a moment to live
            encode_shards(documents, self.encoding, self.numbers, folder, self.threads, report)
        finally:
            os.close(descriptor)

    def run_apart(self, folder: Path, report: Callable[[int], None]) -> None:
        """Encode in a child process; raises as `run` does, and BadIndex where the child is killed."""
        order = json.dumps({**asdict(self), "folder": str(folder), "parent": os.getpid()}, default=str)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
        command = [sys.executable, "-c", "from limbeck.infinigram.encode_apart import main; main()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
            try:
                assert child.stdin is not None and child.stdout is not None
                child.stdin.write(order)
                child.stdin.close()
                for line in child.stdout:
                    told: dict[str, Any] = json.loads(line)
                    if "error" in told:
                        raise BadIndex(told["error"])
                    report(told["done"])
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            raise BadIndex(_end(child.returncode))


def _end(status: int) -> str:
    again = "the same call continues where it was"
    if status == -signal.SIGKILL:
        return f"the process that encodes was killed, most likely for want of memory; give it more, {again}"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"failed with status {status}, see above"
    return f"the process that encodes {how}; {again}"


def main() -> None:
    """The child: encode as the line on standard input says."""
    order = json.loads(sys.stdin.read())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order["parent"]:
        return  # the parent died before it could take this process with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends this process
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    encoder = Encoder(
        Encoding(**order["encoding"]),
        [Source(Path(source["path"]), source["name"]) for source in order["sources"]],
        order["text_column"],
        order["split"],
        order["numbers"],
        order["threads"],
    )
    folder = Path(order["folder"])
    try:
        with writing(folder.parent):
            encoder.run(folder, lambda done: print(json.dumps({"done": done}), file=answers))
    except LimbeckError as error:
        print(json.dumps({"error": str(error)}), file=answers)
