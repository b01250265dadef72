"""Loaded by every Python process that has this folder on PYTHONPATH: refuses old import names, and SIGKILL at a chosen rename.

FAULTS names a JSON file: [{"rename": regex on the target, "when": "before" | "after", "victim": "self" | "driver"}, ...]. Each
fault strikes once: `<file>.<index>` marks it as spent. The driver's process id is read from the run's lock.
"""

import json
import os
import re
import signal

from helpers.old_names import refuse_old_names

refuse_old_names()
_plan = os.environ.get("FAULTS")


def _strike(target, when):
    for index, fault in enumerate(json.load(open(_plan))):
        if fault["when"] != when or not re.search(fault["rename"], str(target)):
            continue
        victim = os.getpid() if fault["victim"] == "self" else _driver(target)
        if not os.path.exists(f"/proc/{victim}"):
            continue  # another fault has ended it already; this one waits for the next
        try:
            os.close(os.open(f"{_plan}.{index}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.kill(victim, signal.SIGKILL)


def _driver(target):
    run = os.path.dirname(os.path.abspath(target))
    while not os.path.exists(os.path.join(run, "run.lock")):
        run = os.path.dirname(run)
    return json.load(open(os.path.join(run, "run.lock")))["process"]


def _wrapped(original):
    def rename(source, target, **more):
        _strike(target, "before")
        original(source, target, **more)
        _strike(target, "after")

    return rename


if _plan:
    os.rename, os.replace = _wrapped(os.rename), _wrapped(os.replace)
