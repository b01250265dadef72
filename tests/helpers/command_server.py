"""A process that imports what `limbeck` needs and runs each command in a fork of itself.

Each command still has its own process, environment, working directory and exit code; only the time for importing torch,
transformers and Ray is saved. Each line of standard input is an order; standard output answers it with the process id and then
the exit code. The server exits when its standard input ends.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import time
import traceback
from typing import Any, NoReturn

# the imports of a driver by the end of a run; other modules are imported in the fork of the command that needs them
DRIVER = (
    "limbeck.pipelines.run",
    "limbeck.pipelines.console.panel",
    "limbeck.pipelines.console.check",
    "limbeck.pipelines.console.whatif",
    "limbeck.pipelines.driver.preview",
    "limbeck.pipelines.driver.rescore",
    "limbeck.pipelines.runs.inspect",
    "limbeck.pipelines.runs.export",
    "limbeck.pipelines.runs.status",
    "limbeck.infinigram.index",
    "limbeck.cluster.training",
    "limbeck.cluster.workers.pool",
    "limbeck.students.training.driver",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.modeling_auto",
    "ray.data",
    "ray.train",
    "torch",
)


def main() -> None:
    """Import, then serve orders until standard input ends."""
    for name in DRIVER:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if str(missing.name).startswith("limbeck"):
                raise  # a name above is outdated; without the extras, commands need fewer modules
    gc.collect()
    gc.freeze()  # a collection in a fork then neither visits nor copies what all forks share
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            _become(order)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _become(order: dict[str, Any]) -> NoReturn:
    """Turn this fork into `python -m limbeck ARGUMENTS`, or `python SCRIPT ARGUMENTS`."""
    code = 1
    try:
        for descriptor, path in enumerate((os.devnull, order["stdout"], order["stderr"])):
            opened = os.open(path, os.O_RDWR if descriptor else os.O_RDONLY)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        importlib.import_module("sitecustomize").arm()
        importlib.import_module("limbeck.pipelines.cli.main").STARTED = time.time()
        if script := order["script"]:
            sys.path[0], sys.argv = os.path.dirname(script), [script, *order["arguments"]]
            runpy.run_path(script, run_name="__main__")
        else:
            sys.path[0], sys.argv = order["folder"], ["limbeck", *order["arguments"]]
            runpy.run_module("limbeck", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
