"""A training seen from the driver: a dataset of prompts and completions in, a model folder out. Nothing here imports torch."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.models import fingerprint, resolve
from limbeck.cluster.training import Placement, fit
from limbeck.corpus.config import fill_defaults
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import check_whole, read_object, read_table, write_json
from limbeck.students.base.config import ModelBase
from limbeck.students.base.prepare import prepare
from limbeck.students.contract import METRICS_FILE
from limbeck.students.training import loop
from limbeck.students.training.config import TrainingConfig
from limbeck.students.training.settings import Settings


def train(
    config: TrainingConfig,
    dataset: Path,
    teacher: Path,
    out: Path,
    seed: int,
    documents: Path | None = None,
    placement: Placement | None = None,
    teacher_logprobs: Path | None = None,
) -> dict[str, Any]:
    """Train a student on `dataset`, publish its model folder at `out`, and return the metrics stored there as training.json.

    `dataset` is a Hugging Face folder whose rows have `prompt` and `completion` (lists of messages, or strings); `teacher` is a
    model folder; `documents` is the sources folder, used only to make a smaller base and heal it. Checkpoints are stored in
    `training/` beside `out` and deleted when it is published: after an interruption the same call resumes from the last
    complete one, and with one worker the result is bit-identical. A student that is already published is returned unchanged.
    Ray must be connected.

    Metrics: train_seconds (forward, backward, optimiser), load_seconds, import_seconds, save_seconds, steps, loss_first,
    loss_last, loss_curve, tokens (forwarded), weights_moved_fraction, rows, rows_too_long, warnings. Raises LimbeckError if
    the dataset is empty, the models are incompatible, or the workers died too often.
    """
    if (out / METRICS_FILE).exists():
        return read_object(out / METRICS_FILE)
    placement = placement or Placement()
    rows = dataset_files(dataset)
    check_rows(rows)
    base = resolve(config.base.model) if isinstance(config.base, ModelBase) else teacher
    training = out.parent / "training"
    _start_afresh_unless_same(training, config, rows, base, seed)
    extra: dict[str, Any] = {}
    if config.base.is_made:
        base, extra["base"] = prepare(config.base, base, rows, documents, training, seed, placement)
    settings = Settings(
        config, tuple(rows), teacher, base, out, training, seed, placement.use_gpu, extra, teacher_logprobs=teacher_logprobs
    )
    result = fit(loop.run, {"settings": settings}, config.workers, placement, training)
    shutil.rmtree(training, ignore_errors=True)
    return result


def dataset_files(dataset: Path) -> list[Path]:
    """The Parquet files of the train split of a Hugging Face folder, in order; raises LimbeckError if it has no files."""
    files = sorted(
        path for path in dataset.rglob("*.parquet") if not any(part.startswith(".") for part in path.relative_to(dataset).parts)
    )
    train_files = [path for path in files if "train" in path.name] or files
    if not train_files:
        raise LimbeckError(f"{dataset} has no Parquet file, so no candidate was kept; relax a bound, or draw more candidates")
    return train_files


def check_rows(files: list[Path]) -> int:
    """Return the number of rows; raises LimbeckError if it is 0, or the columns prompt and completion are missing."""
    count = 0
    for file in files:
        missing = {*TrainingConfig.columns} - set(read_table(file).column_names)
        if missing:
            raise LimbeckError(
                f"{file} lacks the column {sorted(missing)[0]!r}; a dataset for training needs prompt and completion"
            )
        count += check_whole(file)
    if not count:
        raise LimbeckError(f"{files[0].parent} has no rows to train on; relax a bound, or draw more candidates")
    return count


def _start_afresh_unless_same(training: Path, config: TrainingConfig, rows: list[Path], base: Path, seed: int) -> None:
    """Keep the checkpoints of an interrupted training only if they were made from identical inputs."""
    digest = hashlib.sha256()
    for file in rows:
        digest.update(file.read_bytes())
    plan: dict[str, Any] = {
        "config": config.determining(),
        "dataset": digest.hexdigest(),
        "base": fingerprint(base),
        "seed": seed,
    }
    plan["semantics"] = config.semantics
    path = training / "plan.json"
    before = read_object(path) if path.exists() else {}
    if isinstance(before.get("config"), dict):
        fill_defaults(before["config"], plan["config"], config)
    if before == json.loads(json.dumps(plan)):
        return
    shutil.rmtree(training, ignore_errors=True)
    write_json(path, plan)
