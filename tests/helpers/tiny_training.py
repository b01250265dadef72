"""The training loop in this process, with a model and a dataset of a few thousand weights."""

from pathlib import Path
from typing import Any

from helpers.tiny_students import make_dataset, make_model
from limbeck.students.sft import SftConfig
from limbeck.students.training import driver, loop
from limbeck.students.training.config import TrainingConfig
from limbeck.students.training.progress import Progress
from limbeck.students.training.rows import Row, read_rows
from limbeck.students.training.settings import Settings


def train_config(**changes: Any) -> SftConfig:
    return SftConfig(**{"batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, "checkpoint_steps": 2, **changes})


def train_settings(root: Path, config: TrainingConfig, **model: Any) -> Settings[TrainingConfig]:
    """A model and a dataset in `root`, made if missing."""
    if not (root / "model").exists():
        make_model(root / "model", **model)
        make_dataset(root / "dataset")
    files = tuple(driver.dataset_files(root / "dataset"))
    return Settings(
        config, files, root / "model", root / "model", root / "round" / "student", root / "round" / "training", 3, False
    )


def train_here(given: Settings[TrainingConfig]) -> dict[str, Any]:
    return loop.run({"settings": given})


def build_trainer(given: Settings[TrainingConfig]) -> Any:
    from limbeck.students.training.steps import Steps

    progress = Progress(given.progress_file, first_worker=True)
    trainer = loop._build(given, read_rows(given.files), progress)[0]
    trainer.add_callback(Steps(trainer, progress, lambda step: None))
    return trainer


def trained_rows(trainer: Any) -> list[Row]:
    """The rows in the order in which they are trained on."""
    return [row for batch in trainer.batches for row in batch]
