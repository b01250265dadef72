"""The model that a student starts from: made and healed in the training folder, a step at a time. Imports no torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.cluster.training import Placement, fit
from limbeck.corpus.parts import read_object, write_json
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.students.base.config import BaseConfig, HealingConfig
from limbeck.students.base.healing import training_of
from limbeck.students.base.making import REPORT_FILE, Making, make, per_byte
from limbeck.students.base.text import write_sample, write_text
from limbeck.students.contract import METRICS_FILE
from limbeck.students.training import loop
from limbeck.students.training.settings import PROGRESS_FILE, Settings


def prepare(
    config: BaseConfig,
    source: Path,
    dataset: Sequence[Path],
    documents: Path | None,
    training: Path,
    seed: int,
    placement: Placement,
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the model to start from, made in `training` unless it exists, and a report.

    `source` is the model that it is made from, `dataset` the Parquet files of rows to train on later, `documents` the folder of
    the run's train sources. The report is that of `making.make`; with healing also nats_per_token_healed, nats_per_byte_healed,
    and healing: the metrics of the training on text, with the documents and tokens of the text, the curve of the loss on the
    sample, and why it stopped early. Steps that are done are not repeated. Raises LimbeckError if there are too few layers or
    documents, or the vocabulary cannot be trimmed.
    """
    sample, again, made = training / "sample.parquet", training / "sample-trimmed.parquet", training / "made"
    if not sample.exists():
        write_sample(config, Tokenizer.load(source), documents, seed, sample)
    if not made.exists():
        making = Making(config, source, tuple(dataset), documents, sample, again, made, seed, placement.use_gpu)
        fit(make, {"making": making}, 1, placement, training)
    report = read_object(made / REPORT_FILE)
    if config.healing is None:
        return made, report
    measured = sample if config.vocabulary is None else again
    healed, text = training / "healed", training / "text.parquet"
    if not healed.exists():
        extra = _text(config.healing, made, documents, measured, seed, text)
        settings = Settings(
            config=training_of(config.healing, extra["tokens"]),
            files=(text,),
            teacher=source,
            base=made,
            out=healed,
            training=training / "healing",
            progress=training / PROGRESS_FILE,
            seed=seed,
            use_gpu=placement.use_gpu,
            sample=measured,
            extra={"text": extra},
        )
        fit(loop.run, {"settings": settings}, 1, placement, training)
    metrics = read_object(healed / METRICS_FILE)
    nats = metrics.pop("nats_per_token")
    after = {"nats_per_token_healed": nats, "nats_per_byte_healed": per_byte(nats, measured)}
    return healed, {**report, **after, "healing": metrics}


def _text(config: HealingConfig, made: Path, documents: Path | None, sample: Path, seed: int, file: Path) -> dict[str, Any]:
    """Write the text for healing unless it is there, and return its counts."""
    counts = file.with_suffix(".json")
    if not (file.exists() and counts.exists()):
        file.unlink(missing_ok=True)
        facts = write_text(config, Tokenizer.load(made), _end_token(made), documents, sample, seed, file)
        write_json(counts, facts, replace=True)
    return read_object(counts)


def _end_token(model: Path) -> list[int]:
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    end = settings.get("text_config", settings).get("eos_token_id")
    return [] if end is None else [end] if isinstance(end, int) else list(end[:1])
