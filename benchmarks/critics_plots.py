"""A filter's scores of kept and corrupted pairs as one SVG: a panel per column, a row of points and a box per kind of pair."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

COLOURS = ("#4f9d69", "#c8553d", "#d98b3a", "#a77bb5", "#7a8b99", "#c9a227")


def plot(columns: Mapping[str, Mapping[str, npt.NDArray[np.float64]]], file: Path) -> None:
    """Write the figure; `columns`: column → kind of pair → scores. Scores that are NaN are counted in the label."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "limbeck"})
    figure, axes = plt.subplots(1, len(columns), figsize=(3.6 * len(columns) + 1.2, 2.6), squeeze=False, sharey=True)
    for axis, (column, kinds) in zip(axes[0], columns.items(), strict=True):
        _panel(axis, column, kinds)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _panel(axis, column: str, kinds: Mapping[str, npt.NDArray[np.float64]]) -> None:  # type: ignore[no-untyped-def]
    rng, labels = np.random.default_rng(0), []
    for place, (kind, values) in enumerate(kinds.items()):
        finite = values[np.isfinite(values)]
        height = -place + rng.uniform(-0.28, 0.28, len(finite))
        axis.plot(finite, height, ".", markersize=3, alpha=0.45, color=COLOURS[place % len(COLOURS)], markeredgewidth=0)
        if len(finite):
            low, middle, high = np.percentile(finite, [25, 50, 75])
            axis.plot([low, high], [-place, -place], color="black", linewidth=1)
            axis.plot([middle], [-place], "|", color="black", markersize=12)
        missing = len(values) - len(finite)
        labels.append(f"{kind} ({missing} unscored)" if missing else kind)
    axis.set_yticks([-place for place in range(len(kinds))], labels)
    axis.set_title(column)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    axis.grid(axis="x", alpha=0.25)
