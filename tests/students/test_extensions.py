"""Extensions that DeepSpeed compiles: a process that is killed meanwhile leaves nothing that a later one waits for."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.commands import settings
from helpers.gates import wait_for
from helpers.tiny_students import make_dataset, make_model
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.pipelines.console.panel import training_progress

LEFT_OVER = """
import sys
from pathlib import Path
from torch.utils import cpp_extension
from limbeck.students.training.extensions import ROOT, build_safely

def load(name, *arguments, **named):
    folder = Path(os.environ[ROOT]) / name
    left = sorted(path.name for path in folder.iterdir())
    baton = cpp_extension.FileBaton(str(folder / "lock"))
    assert baton.try_acquire(), "another process builds, or did"
    print(json.dumps({"left": left, "progress": Path(sys.argv[1]).read_text()}), flush=True)
    sys.stdin.readline()
    (folder / "built").touch()
    baton.release()

import json, os
cpp_extension.load = load
build_safely(Path(sys.argv[1]))
cpp_extension.load("ext", sources=[])
"""


def building(folder: Path, progress: Path) -> "subprocess.Popen[str]":
    """A process that builds an extension in torch's way, and stops in the middle until it gets a line."""
    return subprocess.Popen(
        [sys.executable, "-c", LEFT_OVER, str(progress)],
        env=settings(TORCH_EXTENSIONS_DIR=str(folder)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def test_the_lock_of_a_dead_process_is_broken_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    progress = [tmp_path / f"progress-{number}.json" for number in range(3)]
    first = building(tmp_path, progress[0])
    assert said(first) == {"left": [], "progress": progress[0].read_text()}
    assert training_progress(progress[0]) == "compiling ext, an extension of DeepSpeed"
    first.kill()
    first.wait()
    (lock,) = tmp_path.glob("*/ext/lock")
    (lock.parent / "half.o").touch()
    second = building(tmp_path, progress[1])
    assert said(second)["left"] == [], "what the dead process left is gone, its lock too"
    third = building(tmp_path, progress[2])
    wait_for(progress[2].exists, third)  # it waits for the second, and says so
    assert training_progress(progress[2]) == "compiling ext, an extension of DeepSpeed"
    for process in (second, third):
        assert process.poll() is None and process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        if process is second:
            assert process.wait(timeout=60) == 0
            assert said(third)["left"] == ["built"], "a finished build stays"
    assert third.wait(timeout=60) == 0
    assert not any(path.exists() for path in progress[1:]), "the trainer's own progress follows"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_after_one_that_was_killed_while_deepspeed_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DeepSpeed's own build for this machine."""
    from limbeck.students.sft import SftConfig
    from limbeck.students.training.driver import train

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    teacher, dataset = make_model(tmp_path / "teacher", dtype="bfloat16"), make_dataset(tmp_path / "dataset")
    config = SftConfig(
        workers=2,
        batch_size=4,
        micro_batch_size=1,
        checkpoint_steps=100,
        deepspeed={"zero_optimization": {"stage": 2}},
    )
    progress, seen = tmp_path / "round/training/progress.json", set[str]()
    killed, trained = threading.Event(), threading.Event()

    def kill_the_compiling() -> None:
        """Kill the first process that compiles, with its compiler; remember what the progress says, also of the next one."""
        while not trained.is_set():
            locks = list(tmp_path.glob("extensions/*/*/lock"))
            seen.add(training_progress(progress))
            if locks and not killed.is_set():
                for process in psutil.Process().children(recursive=True):
                    if opened(process, locks[0]):
                        process.kill()
                        killed.set()

    with connected(ClusterConfig(address="local")):
        watching = threading.Thread(target=kill_the_compiling, daemon=True)
        watching.start()
        try:
            metrics = train(config, dataset, teacher, tmp_path / "round" / "student", 3)
        finally:
            trained.set()
        watching.join(timeout=60)
    assert killed.is_set(), "a process was killed while it held torch's lock"
    assert metrics["steps"] == 6
    assert any(words.startswith("compiling ") for words in seen), seen
    assert not list(tmp_path.glob("extensions/*/*/lock"))
    assert list(tmp_path.glob("extensions/*/*/*.so"))


def opened(process: psutil.Process, path: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(os.path.realpath(link) == str(path) for link in Path(f"/proc/{process.pid}/fd").iterdir())
    except OSError:
        return False
