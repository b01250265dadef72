"""Greedy selection by cosine (the set-wise filter `spread`) against the plain loop of one row at a time, in one run.

    python benchmarks/spread.py [--rows 20000] [--dimensions 384] [--limits 0.9 0.5] [--json]

Vectors are drawn around random centres, at distances that leave some rows alone and put others into crowds. The loop multiplies
each row with the matrix of taken rows, in float32, as Deita's code does. Both must take the same rows, but for pairs whose cosine
is within 1e-6 of the limit, where the loop is not exact: the number of such differences is printed.
"""

import argparse
import json
import time

import numpy as np

from limbeck.filters.sets.cosine import Vectors, spread, unit


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--limits", type=float, nargs="+", default=[0.9, 0.5])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    vectors = drawn(arguments.rows, arguments.dimensions)
    for limit in arguments.limits:
        clock = time.perf_counter()
        near = spread(vectors, limit)
        ours = time.perf_counter() - clock
        clock = time.perf_counter()
        looped = loop(vectors, limit)
        theirs = time.perf_counter() - clock
        taken = np.flatnonzero(near == np.arange(len(near)))
        figures = {
            "limit": limit,
            "rows": len(vectors),
            "taken": len(taken),
            "seconds": round(ours, 2),
            "loop_seconds": round(theirs, 2),
            "ratio": round(theirs / ours, 1),
            "different": len(set(taken.tolist()) ^ set(looped)),
        }
        print(json.dumps(figures) if arguments.json else "  ".join(f"{name} {value}" for name, value in figures.items()))


def drawn(rows: int, dimensions: int) -> Vectors:
    """Unit vectors around one centre for every four rows, at various distances."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(rows // 4, dimensions)).astype(np.float32)
    noise = rng.normal(size=(rows, dimensions)).astype(np.float32) * rng.random((rows, 1), np.float32)
    return unit(centres[rng.integers(len(centres), size=rows)] + noise)


def loop(vectors: Vectors, limit: float) -> list[int]:
    """The taken rows, by one product of a row with all taken rows after another."""
    taken: list[int] = []
    matrix = np.empty_like(vectors)
    for row, vector in enumerate(vectors):
        if not taken or (matrix[: len(taken)] @ vector).max() <= limit:
            matrix[len(taken)] = vector
            taken.append(row)
    return taken


if __name__ == "__main__":
    main()
