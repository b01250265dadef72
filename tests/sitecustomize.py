"""Loaded by every Python process that has this folder on PYTHONPATH: refuses old import names, and injects faults at renames.

FAULTS names a JSON file, a list of faults, each a `rename` (a regular expression on the target), `when` ("before" or "after") and
one of
- `victim`: "self" or "driver" gets SIGKILL, once. The driver's process id is read from the run's lock.
- `hold`: a file. Every process that reaches such a rename waits until that file exists.
`<plan>.<index>` marks a fault that has struck, or a hold that a process has come to. See helpers/gates.py.
"""

import json
import os
import re
import signal
import time

from helpers.hidden_modules import hide_modules
from helpers.old_names import refuse_old_names

refuse_old_names()
hide_modules()


def arm():
    """Wrap the renames of this process if its environment names a plan."""
    plan = os.environ.get("FAULTS")
    if plan:
        os.rename, os.replace = _wrapped(plan, os.rename), _wrapped(plan, os.replace)


def _wrapped(plan, original):
    def rename(source, target, **more):
        _strike(plan, target, "before")
        original(source, target, **more)
        _strike(plan, target, "after")

    return rename


def _strike(plan, target, when):
    for index, fault in enumerate(json.load(open(plan))):
        if fault["when"] != when or not re.search(fault["rename"], str(target)):
            continue
        if "hold" in fault:
            _mark(plan, index)
            while not os.path.exists(fault["hold"]):
                time.sleep(0.02)
            continue
        victim = os.getpid() if fault["victim"] == "self" else _driver(target)
        if not os.path.exists(f"/proc/{victim}"):
            continue  # another fault has ended it already; this one waits for the next
        if _mark(plan, index):
            os.kill(victim, signal.SIGKILL)


def _mark(plan, index):
    """Whether this is the first time."""
    try:
        os.close(os.open(f"{plan}.{index}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _driver(target):
    run = os.path.dirname(os.path.abspath(target))
    while not os.path.exists(os.path.join(run, "run.lock")):
        run = os.path.dirname(run)
    return json.load(open(os.path.join(run, "run.lock")))["process"]


arm()
