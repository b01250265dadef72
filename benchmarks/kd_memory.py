"""Memory and time of one distillation step, JSD(0.5): plain full logits, TRL's chunked function, and ours, in one run.

    python -m benchmarks.kd_memory [--positions 4096] [--chunks 16 32 64 128] [--others-positions 1024] [--json]

Every measurement is a process of its own, with MALLOC_MMAP_THRESHOLD_=1048576, since glibc keeps freed memory otherwise. It
computes loss and gradients of random hidden states (width 576) and a trained head of 49,152 words in float32. It prints the peak
bytes of living tensors (of what every operation returns; temporaries inside an operation are not seen) and the peak resident
memory, both above what was there before the step and without the gradient of the hidden states. Seconds, of the clock and of the
processor, are the fewest of `--repeats` rounds of the ways in turn, measured apart from the count. The other ways need 1.6 MB per
position: by default they are measured at fewer positions, and scaled linearly, but for the gradient of the head. (TRL's buffers
grow up to 4,096 positions.)
"""

import argparse
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.students.losses.chunked import Head, distillation_loss
from limbeck.students.losses.divergences import Divergence

TIMES = ("seconds", "processor_seconds")
WIDTH, VOCABULARY = 576, 49_152
HIDDEN_BYTES = 4 * WIDTH  # of the gradient of one position
HEAD_BYTES = 4 * WIDTH * VOCABULARY  # of the gradient of the head, which does not grow with the positions


class Living(TorchDispatchMode):
    """Count the bytes of the storages that operations return, from their creation to their end."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and register its results."""
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor):
                self._register(tensor.untyped_storage())
        return found

    def ignore(self, tensors: list[torch.Tensor]) -> None:
        """Do not count tensors that were there before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = weakref.ref(storage)

    def _register(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known and self._known[key]() is storage:
            return

        def ended(_: Any) -> None:
            self._known.pop(key, None)
            self.now -= size

        self._known[key] = weakref.ref(storage, ended)
        self.now += size
        self.peak = max(self.peak, self.now)


def plain(hidden: torch.Tensor, weight: torch.Tensor, teacher: torch.Tensor, teacher_weight: torch.Tensor, _: int) -> Any:
    """The divergence from full log-probabilities, differentiated by autograd."""
    with torch.no_grad():
        p_log = (teacher @ teacher_weight.t()).log_softmax(-1)
    q_log = (hidden @ weight.t()).log_softmax(-1)
    mixed = torch.logaddexp(p_log, q_log) - torch.log(torch.tensor(2.0))
    sums = [torch.nn.functional.kl_div(mixed, of, reduction="sum", log_target=True) for of in (p_log, q_log)]
    return (sums[0] + sums[1]) / 2


def trl(hidden: torch.Tensor, weight: torch.Tensor, teacher: torch.Tensor, teacher_weight: torch.Tensor, _: int) -> Any:
    """TRL's function, as its DistillationTrainer calls it."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    return ChunkedDivergenceFunction.apply(hidden, weight, None, teacher, teacher_weight, None, 0.5)[0].sum()


def ours(hidden: torch.Tensor, weight: torch.Tensor, teacher: torch.Tensor, teacher_weight: torch.Tensor, chunk: int) -> Any:
    """Ours, `chunk` positions at a time."""
    return distillation_loss(hidden, Head(weight), teacher, Head(teacher_weight), Divergence("jsd"), chunk=chunk)


WAYS: dict[str, Callable[..., Any]] = {"plain": plain, "trl": trl, "ours": ours}


def step(way: str, positions: int, chunk: int, what: str) -> dict[str, Any]:
    """One step in this process: its loss, and its seconds or its peak bytes."""
    torch.manual_seed(0)
    hidden, teacher = torch.randn(positions, WIDTH), torch.randn(positions, WIDTH)
    weight, teacher_weight = (torch.randn(VOCABULARY, WIDTH).div_(WIDTH**0.5) for _ in range(2))
    WAYS[way](
        hidden[:8].clone().requires_grad_(), weight[:512].clone().requires_grad_(), teacher[:8], teacher_weight[:512], 4
    ).backward()
    hidden.requires_grad_(), weight.requires_grad_()
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # begin a new peak
    living, started, worked = Living(), time.perf_counter(), time.process_time()
    living.ignore([hidden, weight, teacher, teacher_weight])
    if what == "tensors":
        with living:
            loss = WAYS[way](hidden, weight, teacher, teacher_weight, chunk)
            loss.backward()
    else:
        loss = WAYS[way](hidden, weight, teacher, teacher_weight, chunk)
        loss.backward()
    seconds, processor, gradients = time.perf_counter() - started, time.process_time() - worked, positions * HIDDEN_BYTES
    peak = living.peak if what == "tensors" else _resident("VmHWM") - before
    return {"loss": loss.item() / positions, "seconds": seconds, "processor_seconds": processor, "bytes": peak - gradients}


def _resident(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":"))


def measured(way: str, positions: int, chunk: int, what: str) -> dict[str, Any]:
    """A step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kd_memory", "--one", way, "--positions", str(positions), "--chunks", str(chunk)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run([*command, "--what", what], env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(way: str, positions: int, at: int, chunk: int) -> dict[str, Any]:
    """Memory of a way, measured `at` some positions and scaled to all of them."""
    factor = positions / at
    tensors, resident = measured(way, at, chunk, "tensors"), measured(way, at, chunk, "resident")
    name = f"ours, {chunk} positions at a time" if way == "ours" else way
    return {
        "way": name,
        "positions": positions,
        "measured_at": at,
        "loss": tensors["loss"],
        "tensor_mb": ((tensors["bytes"] - HEAD_BYTES) * factor + HEAD_BYTES) / 1e6,
        "resident_mb": ((resident["bytes"] - HEAD_BYTES) * factor + HEAD_BYTES) / 1e6,
        **{key: resident[key] * factor for key in TIMES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=8 * 512)
    parser.add_argument("--others-positions", type=int, default=1024)
    parser.add_argument("--chunks", type=int, nargs="+", default=[64])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=list(WAYS), help="measure one step, in this process")
    parser.add_argument("--what", choices=["tensors", "resident"], default="resident")
    arguments = parser.parse_args()
    positions = arguments.positions
    if arguments.one:
        print(json.dumps(step(arguments.one, positions, arguments.chunks[0], arguments.what)))
        return
    jobs = [("plain", min(positions, arguments.others_positions), 0), ("trl", min(positions, arguments.others_positions), 0)]
    jobs += [("ours", positions, chunk) for chunk in arguments.chunks]
    rows = [row(way, positions, at, chunk) for way, at, chunk in jobs]
    for _ in range(arguments.repeats - 1):
        for found, (way, at, chunk) in zip(rows, jobs, strict=True):
            again = measured(way, at, chunk, "resident")
            found.update({key: min(found[key], again[key] * positions / at) for key in TIMES})
    for found in rows[2:]:
        for other, name in zip(rows[:2], ("plain", "trl"), strict=True):
            for figure in ("tensor_mb", "resident_mb", *TIMES):
                found[f"{name}_{figure}_ratio"] = other[figure] / found[figure]
    doubled = row("ours", 2 * positions, 2 * positions, arguments.chunks[0])
    for figure in ("tensor_mb", "resident_mb"):
        doubled[f"{figure}_growth"] = doubled[figure] / rows[2][figure] - 1
    for found in (*rows, doubled):
        print(json.dumps(found) if arguments.json else "  ".join(f"{name} {_shown(value)}" for name, value in found.items()))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
