"""From a model folder to a classifier in memory: its classes by name, its limit, and the fastest forward pass that it takes."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import logging as transformers_logging

from limbeck.cluster.engines.devices import device_of, loaded_as
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, resolve
from limbeck.cluster.engines.scoring_models.classifier import LABELS, Classifier, ClassifierConfig, Forward
from limbeck.cluster.engines.scoring_models.classifier_forward import PackedForward, PaddedForward
from limbeck.cluster.engines.scoring_models.classifier_pairs import Joiner, Rows
from limbeck.corpus.errors import LimbeckError

_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 32768
_PROBE_LENGTHS = (9, 6, 6)
_PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest logit
_PROBE_LOGIT = 0.5  # logits all smaller than this are compared as if one were this large

_SPELLINGS = {
    "entailment": {"entailment", "entail", "entails", "entailed"},
    "neutral": {"neutral"},
    "contradiction": {"contradiction", "contradict", "contradicts", "contradictory"},
    "rest": {"notentailment", "nonentailment", "notentail", "nonentail"},
}


def load(config: ClassifierConfig) -> Classifier:
    """Load a classifier; raises LimbeckError where the model is missing, cut off, no classifier, or its classes are not named."""
    clock = time.perf_counter()
    folder = resolve(config.model)
    device = device_of(config.device)
    model = _model(folder, config, device)
    places = label_places(config.label_names or model.config.id2label, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise LimbeckError(f"the tokenizer of {folder} has no tokenizer.json; save the model with its fast tokenizer")
    joiner = Joiner(tokenizer, min(_limit(model, tokenizer), config.max_tokens or NO_LIMIT_TOKENS))
    batch_tokens = config.batch_tokens or (_CPU_BATCH_TOKENS if device.type == "cpu" else _GPU_BATCH_TOKENS)
    classifier = Classifier(joiner, _forward(model), places, batch_tokens)
    classifier.usage.load_seconds = time.perf_counter() - clock
    return classifier


def label_places(names: Mapping[int, str] | Sequence[str], folder: Path) -> list[int]:
    """Return at which class numbers entailment, neutral and contradiction stand, or entailment and the rest, found by name."""
    by_place = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    found: dict[str, int] = {}
    for place, name in by_place.items():
        plain = "".join(character for character in str(name).lower() if character.isalpha())
        label = next((label for label, spellings in _SPELLINGS.items() if plain in spellings), None)
        if label is not None and label not in found:
            found[label] = int(place)
    for wanted in (LABELS, ("entailment", "rest")):
        if set(found) == set(wanted) and len(by_place) == len(wanted):
            return [found[label] for label in wanted]
    named = ", ".join(str(by_place[place]) for place in sorted(by_place))
    raise LimbeckError(
        f"{folder} has the classes {named}, not entailment, neutral and contradiction (or entailment and not_entailment); "
        "name them in its own order by label_names, for example label_names: [contradiction, neutral, entailment]"
    )


def _model(folder: Path, config: ClassifierConfig, device: torch.device) -> Any:
    with loaded_as(folder, "a classifier"), quietly():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, config.dtype), use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise LimbeckError(f"{folder} is no classifier: its weights lack {missing[0]}; name a model that was trained for NLI")
    return model.to(device).eval()


def _limit(model: Any, tokenizer: Any) -> int:
    """The longest row [tokens]: RoBERTa's positions begin behind its padding id, so two of its 514 are never used."""
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if positions is not None and positions.padding_idx is not None:
        limits[0] = positions.num_embeddings - positions.padding_idx - 1
    return min((int(limit) for limit in limits if limit and limit > 0), default=NO_LIMIT_TOKENS)


def _forward(model: Any) -> Forward:
    """The fastest forward pass that gives the model's own answers to a few rows of arbitrary tokens."""
    padded = PaddedForward(model)
    rows = _probe_rows(model)
    expected = padded(rows)
    if PackedForward.takes(model):
        packed = PackedForward(model)
        if _agree(packed(rows), expected, model.dtype):
            return packed
    with padded.trying_onednn():
        if not _agree(padded(rows), expected, model.dtype):
            raise ArithmeticError("oneDNN gives other logits")
    return padded


def _probe_rows(model: Any) -> Rows:
    lengths = np.array(_PROBE_LENGTHS)
    ids = (7 * np.arange(lengths.sum()) + 11) % model.config.vocab_size
    ids[ids == model.config.pad_token_id] += 1  # padding has no position of its own
    return Rows(ids, np.zeros_like(ids), lengths)


def _agree(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], dtype: torch.dtype) -> bool:
    largest = max(float(np.abs(expected).max()), _PROBE_LOGIT)
    return bool(np.abs(found - expected).max() <= _PROBE_TOLERANCE[dtype] * largest)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the library's progress bars, and its report on missing weights: what is missing is ours to judge."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
