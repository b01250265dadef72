"""Opens run folders: what is none, and a run that is only starting, is said in one sentence."""

from pathlib import Path

from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lock import lock_holder


def existing(path: Path | str) -> RunFolder:
    """Open a run folder; raises LimbeckError if it is not one, or if its run is starting and has recorded nothing yet."""
    folder = begun(path)
    if not folder.lock_file.exists():
        holder = lock_holder(folder) or {}
        who = f"process {holder['process']} on {holder['host']}" if holder.get("process") else "a process"
        raise LimbeckError(f"{path} has nothing yet: the run is starting ({who}); `limbeck status {path}` shows its progress")
    return folder


def begun(path: Path | str) -> RunFolder:
    """Open a run folder, or one whose run is starting: a live driver has it, and there is no lock.json yet.

    Raises LimbeckError if it is neither.
    """
    folder = RunFolder(Path(path).resolve())
    if not folder.lock_file.exists() and lock_holder(folder) is None and not folder.lock_file.exists():
        if folder.run_lock.exists():
            raise LimbeckError(f"{path} has no lock.json: its run ended while it was starting; start it again with `limbeck run`")
        raise LimbeckError(f"{path} is not a run folder (it has no lock.json); name the folder given to `limbeck run --out`")
    return folder
