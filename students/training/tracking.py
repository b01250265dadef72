"""Experiment trackers that a training may report to, through the integrations of transformers. Imports none of them."""

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
_PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}  # any one of them is enough


def missing(trackers: Iterable[Tracker]) -> str | None:
    """The first tracker whose package is not installed and how to install it, as a sentence; None if all can be used."""
    for name in trackers:
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            return f"report_to names {name}, but the package {_PACKAGES[name][0]} is not installed; run: pip install {name}"
    return None


def prepare(trackers: Iterable[Tracker], folder: Path) -> None:
    """Let trackers write to `folder` and use no network, unless the user's environment says otherwise.

    Call it before transformers is imported, which reads some of these variables at once.
    """
    if "wandb" not in (chosen := set(trackers)):
        os.environ["WANDB_DISABLED"] = "true"
    else:
        os.environ.pop("WANDB_DISABLED", None)
    if not chosen:
        return
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": "limbeck",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder.resolve()}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": "limbeck",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
        "TRACKIO_PROJECT": "limbeck",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
