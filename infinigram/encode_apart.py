"""Encode in a separate process, so that memory kept by tokenizers and readers is released before sorting begins.

The child reads its task from one line of JSON, and answers in lines: {"done": bytes} at intervals, {"error": sentence} for errors
that the user can fix. It exits with the thread that started it, and leaves the state from which the next call resumes.
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
from limbeck.infinigram.documents import Skipped, Source, read_documents
from limbeck.infinigram.encode import Encoding, encode_shards, read_state
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.manifest import writing
from limbeck.infinigram.tables import Report

_PR_SET_PDEATHSIG = 1
_SORTED_BYTES_PER_INPUT_BYTE = 20  # peak of sorting; input files may be compressed
_SMALL_INPUT_BYTES = 1 << 24  # leaves little memory behind


@dataclass(frozen=True)
class Encoder:
    """What to encode: documents of sources into these shards, with `threads` threads."""

    encoding: Encoding
    sources: list[Source]
    text_column: str
    split: str
    numbers: list[int]
    threads: int

    def encode(self, folder: Path, memory_bytes: int, report: Report) -> None:
        """Encode here, or in a child process if sorting may need the memory that encoding leaves behind."""
        total = sum(source.bytes for source in self.sources)
        is_large = total > max(_SMALL_INPUT_BYTES, memory_bytes // _SORTED_BYTES_PER_INPUT_BYTE)
        run = self.run_apart if is_large and not read_state(folder)["finished"] else self.run
        run(folder, lambda done: report("tokenise", done, total, "bytes"))
        report("tokenise", total, total, "bytes")

    def run(self, folder: Path, report: Callable[[int], None]) -> None:
        """Encode in this process, after waiting for any other that encodes into the same folder; see `encode_shards`."""
        skipped = Skipped()
        documents = read_documents(self.sources, self.text_column, self.split, skipped)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the child of a killed build may still be running
            encode_shards(documents, self.encoding, self.numbers, folder, self.threads, report, skipped)
        finally:
            os.close(descriptor)

    def run_apart(self, folder: Path, report: Callable[[int], None]) -> None:
        """Encode in a child process; raises as `run` does, and BadIndex if the child is killed."""
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
    again = "repeat the call to resume"
    if status == -signal.SIGKILL:
        return f"the encoding process was killed, most likely because memory ran out; give it more memory, then {again}"
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed with status {status} (see above)"
    return f"the encoding process {how}; {again}"


def main() -> None:
    """Child process: encode the task read from standard input."""
    order = json.loads(sys.stdin.read())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != order["parent"]:
        return  # the parent has already died
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and ends this process
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keep library output out of the answers
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
