"""What a training worker is given."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from limbeck.students.training.config import TrainingConfig

PROGRESS_FILE = "progress.json"
C = TypeVar("C", bound=TrainingConfig, covariant=True)


@dataclass(frozen=True)
class Settings(Generic[C]):
    """Settings of a training worker; sent by pickle."""

    config: C
    files: tuple[Path, ...]  # Parquet files of rows: prompt and completion, or input_ids
    teacher: Path
    base: Path
    out: Path
    training: Path
    seed: int
    use_gpu: bool
    extra: dict[str, Any] = field(default_factory=dict)  # added to the metrics
    progress: Path | None = None  # folder for the progress file; None: `training`
    teacher_logprobs: Path | None = None  # the cached teacher (teacher_cache.py), if the config wants one
    sample: Path | None = None  # Parquet file of input_ids for the reported loss of the trained model

    @property
    def progress_file(self) -> Path:
        """Where rank 0 reports its progress for the driver."""
        return self.progress or self.training / PROGRESS_FILE
