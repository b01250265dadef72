"""What an engine's process started ends with it, and nothing else does."""

import subprocess
import sys
import time

import psutil
import pytest

from helpers.paths import ROOT

PROGRAM = """
import subprocess, sys, time
from limbeck.cluster.engines.vllm.watchdog import Watchdog
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
child = "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); time.sleep(600)"
parent = [sys.executable, "-c", "import subprocess, sys, time; " + child]
before = subprocess.Popen(sleeper)
watchdog = Watchdog()
after = subprocess.Popen(parent, stdout=subprocess.PIPE, text=True)
grandchild = int(after.stdout.readline())
if sys.argv[1] == "settled":
    watchdog.settle()
else:
    time.sleep(1.5)
if sys.argv[1] == "released":
    watchdog.release()
print(before.pid, after.pid, grandchild, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", ["settled", "starting", "released"])
def test_only_what_started_after_it_ends(how: str) -> None:
    command = [sys.executable, "-c", PROGRAM, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as started:
        assert started.stdout is not None
        before, after, grandchild = map(int, started.stdout.readline().split())
        if how != "released":
            assert not any(map(gone, (before, after, grandchild)))
            started.kill()
        deadline = time.monotonic() + 20
        while not (gone(after) and gone(grandchild)) and time.monotonic() < deadline:
            time.sleep(0.1)
        ended = gone(after), gone(grandchild), gone(before)
        started.kill()
    psutil.Process(before).kill()
    assert ended == (True, True, False)
