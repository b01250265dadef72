"""Out of memory is handled like any crash: the worker is restarted, at most three times while it loads; rows are halved."""

import subprocess
from pathlib import Path

import pytest
import torch

from helpers.commands import script
from helpers.tiny_run import write_recipe
from limbeck.cluster.engines.fatal_errors import as_engine_died, broke_its_device, ran_out_of_memory
from limbeck.cluster.engines.protocol import EngineDied
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES

HUGE = 1 << 50
SCRIPT = """
import sys
from pathlib import Path
import pyarrow as pa
from limbeck.filters.contract import Bound
from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run

class Greedy:
    name = "greedy"
    bounds = (Bound("length", minimum=0),)

    def build(self, engines):
        "The model of a critic that does not fit, for as often as `failures` says."
        starts = Path({starts!r})
        with starts.open("a") as handle:
            handle.write("started\\n")
        if starts.read_text().count("\\n") <= {failures}:
            {fault}
        return self

    def score(self, candidates):
        if candidates.num_rows > {fits}:
            {fault}
        return pa.table({{"length": [float(len(text)) for text in candidates["output"].to_pylist()]}})

if __name__ == "__main__":
    run(load({recipe!r}), {run!r}, filters=[Greedy()])
"""
FAULTS = {
    "python": "raise MemoryError('cannot hold the weights')",
    "torch": f"import torch; torch.empty({HUGE}, dtype=torch.uint8)",
    "device": "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')",
}


def run_greedy(folder: Path, ray_address: str, fault: str, failures: int, fits: int = 10**6) -> subprocess.CompletedProcess[str]:
    """A user script whose filter runs out of memory in its first `failures` loads, and on more than `fits` rows at once."""
    recipe = write_recipe(folder, rounds=1, student=None, cluster={"rows_per_part": 12})
    names = {"recipe": str(recipe), "run": str(folder / "run"), "starts": str(folder / "starts")}
    (folder / "mine.py").write_text(SCRIPT.format(fault=FAULTS[fault], failures=failures, fits=fits, **names))
    return script(folder / "mine.py", RAY_ADDRESS=ray_address)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("python", "device"))])
def test_a_load_that_never_fits_stops_the_run_after_three_starts(tmp_path: Path, ray_address: str, fault: str) -> None:
    done = run_greedy(tmp_path, ray_address, fault, failures=99)
    assert done.returncode != 0
    assert "died 3 times while it loaded its models, last with: its engine exited: out of memory" in done.stderr, done.stderr
    assert (tmp_path / "starts").read_text().count("\n") == 4  # the first start and three restarts
    assert read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).num_rows == 36, "the stage before is kept"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_load_that_does_not_fit_once_is_tried_again(tmp_path: Path, ray_address: str) -> None:
    """Rows that do not fit together are scored in halves: none of them is at fault, so none gets a reason."""
    done = run_greedy(tmp_path, ray_address, "torch", failures=1, fits=20)
    assert done.returncode == 0, done.stderr
    scores = read_parts(tmp_path / "run/rounds/000/scores/greedy")
    assert scores.num_rows == 36 and scores["length"].null_count == 0
    assert "out of memory" in (tmp_path / "run/events.jsonl").read_text(), "the exit message is kept"


def test_what_running_out_of_memory_looks_like() -> None:
    with pytest.raises(EngineDied, match="out of memory: .*allocate memory"), as_engine_died():
        torch.empty(HUGE, dtype=torch.uint8)
    with pytest.raises(EngineDied, match="out of memory: MemoryError"), as_engine_died():
        raise MemoryError
    with pytest.raises(RuntimeError, match="shape"), as_engine_died():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(EngineDied, match="its device failed: CUDA error: an illegal memory access"), as_engine_died():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert broke_its_device(torch.AcceleratorError("", 700))
    assert ran_out_of_memory(torch.OutOfMemoryError("")) and not ran_out_of_memory(ValueError("out of memory"))
