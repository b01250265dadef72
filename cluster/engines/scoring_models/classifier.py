"""Natural-language-inference models: config, classes by name, and predictions.

The driver reads the config, so torch and transformers are imported when a model is loaded.

A classifier reads a premise and a hypothesis as one row and estimates whether the first entails the second, is neutral to it, or
contradicts it (Bowman et al., 2015; Williams et al., 2018).
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.contract import ScoringModelConfig
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, resolve
from limbeck.cluster.engines.precision import Dtype, dtype_on
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.pairs import Joiner, Rows, batches
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require

if TYPE_CHECKING:
    import torch

LABELS = ("entailment", "neutral", "contradiction")
"""Column order of every answer, independent of the model's own order."""


_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 32768
_PROBE_LENGTHS = (9, 6, 6)
_PROBE_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}  # relative to the largest logit
_PROBE_LOGIT = 0.5  # if all logits are smaller than this, differences are relative to this value

_SPELLINGS = {
    "entailment": {"entailment", "entail", "entails", "entailed"},
    "neutral": {"neutral"},
    "contradiction": {"contradiction", "contradict", "contradicts", "contradictory"},
    "rest": {"notentailment", "nonentailment", "notentail", "nonentail"},
}


class ClassifierConfig(ScoringModelConfig):
    """Any Hugging Face sequence-classification model for natural-language inference, on a CPU or one GPU.

    `batch_tokens` bounds the tokens of one forward pass (null: 2048 on a CPU, 32768 on a GPU), `max_tokens` lowers the model's
    own limit. `label_names` names the model's classes in order if its config does not, for example
    [contradiction, entailment, neutral].
    """

    model: str = "alisawuffles/roberta-large-wanli"
    dtype: Dtype = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_tokens: int | None = Field(default=None, ge=16)
    max_tokens: int | None = Field(default=None, ge=8)
    label_names: tuple[str, ...] | None = Field(None, strict=False)  # not strict: YAML has lists, not tuples

    def load(self) -> "Classifier":
        """Load the model; raises LimbeckError if it is missing, is not such a model, or its classes have no known names."""
        require(f"a classifier (model {self.model})", "local")
        return load(self)


class Forward(Protocol):
    """A model over rows of tokens."""

    def __call__(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the logits of the rows, longest row first.  # [rows, classes]"""
        ...


@dataclass(frozen=True)
class Predictions:
    """A classifier's answers for some pairs.

    `probabilities` [pairs, 3] float32, in the order of `LABELS`; `cut_tokens` [pairs] int32: number of tokens cut from the end of
    the premise because both texts together are too long for the model.
    """

    probabilities: npt.NDArray[np.float32]
    cut_tokens: npt.NDArray[np.int32]


class Classifier:
    """A loaded model; `two_class`: it distinguishes only entailment from the rest, so neutral and contradiction are NaN."""

    def __init__(self, joiner: Joiner, forward: Forward, places: Sequence[int], batch_tokens: int) -> None:
        """Take the tokenizer, the model, and the class numbers of entailment, neutral and contradiction (or the rest)."""
        assert len(places) in (2, 3)
        self.usage = Usage()
        self.two_class = len(places) == 2
        self._joiner = joiner
        self._forward = forward
        self._places = list(places)
        self._batch_tokens = batch_tokens

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return the probabilities of entailment, neutral and contradiction of each (premise, hypothesis).  # [pairs, 3]

        See `predict`.
        """
        return self.predict(pairs).probabilities

    def predict(self, pairs: Sequence[tuple[str, str]]) -> Predictions:
        """Return the probabilities of each (premise, hypothesis), and the number of tokens cut from the premise.

        Each distinct pair goes through the model once, each distinct text through the tokenizer once. If both together are too
        long, the end of the premise is cut; if the hypothesis leaves no room for a premise, the row is NaN. Cost: one forward
        pass over the tokens of the distinct pairs, without padding for models of the BERT family.
        """
        places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        joined = self._joiner.join(list(places))
        lengths = joined.lengths  # 0: does not fit
        found = np.full((len(places), len(LABELS)), np.nan, dtype=np.float32)
        for batch in batches(lengths, self._batch_tokens):
            clock = time.perf_counter()
            logits = self._forward(joined.rows(batch))
            self.usage.model_seconds += time.perf_counter() - clock
            found[batch] = self._probabilities(logits)
        self.usage.forwarded_tokens += int(lengths.sum())
        self._count("pairs", len(places))
        self._count("pairs_with_cut_premise", int((joined.cut_tokens > 0).sum()))
        order = np.array([places[pair] for pair in pairs], dtype=np.int64)
        return Predictions(found[order], joined.cut_tokens[order])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        return self._joiner.count(texts)

    def _probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))  # [rows, classes]
        shares: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True))[:, self._places].astype(np.float32)
        if self.two_class:
            shares = np.column_stack([shares[:, 0], np.full((len(shares), 2), np.nan, dtype=np.float32)])
        return shares

    def _count(self, what: str, number: int) -> None:
        self.usage.extra[what] = self.usage.extra.get(what, 0.0) + number


def load(config: ClassifierConfig) -> Classifier:
    """Load a classifier; raises LimbeckError if it is missing, truncated, not a classifier, or its classes have no names."""
    clock = time.perf_counter()
    from transformers import AutoTokenizer

    from limbeck.cluster.engines.devices import device_of

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
    """Return the class numbers of entailment, neutral and contradiction, or of entailment and the rest, found by name."""
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


def _model(folder: Path, config: ClassifierConfig, device: "torch.device") -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    from limbeck.cluster.engines.devices import loaded_as

    with loaded_as(folder, "a classifier"), quietly():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=getattr(torch, dtype_on(config.dtype, device.type)),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise LimbeckError(f"{folder} is not a classifier: its weights lack {missing[0]}; use a model that was trained for NLI")
    return model.to(device).eval()


def _limit(model: Any, tokenizer: Any) -> int:
    """The longest row [tokens]: RoBERTa's positions start after its padding id, so two of its 514 are never used."""
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if positions is not None and positions.padding_idx is not None:
        limits[0] = positions.num_embeddings - positions.padding_idx - 1
    return min((int(limit) for limit in limits if limit and limit > 0), default=NO_LIMIT_TOKENS)


def _forward(model: Any) -> Forward:
    """The fastest forward pass that matches the model's own output on a few rows of arbitrary tokens."""
    from limbeck.cluster.engines.scoring_models.classifier_forward import PackedForward, PaddedForward

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


def _agree(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], dtype: "torch.dtype") -> bool:
    largest = max(float(np.abs(expected).max()), _PROBE_LOGIT)
    return bool(np.abs(found - expected).max() <= _PROBE_TOLERANCE[str(dtype).removeprefix("torch.")] * largest)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress the library's progress bars and its report on missing weights, which is checked here."""
    from transformers import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
