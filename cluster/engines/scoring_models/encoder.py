"""Sentence encoders: a text as one unit vector (Reimers and Gurevych, 2019), by any encoder that transformers loads."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.contract import ScoringModelConfig
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, describe, resolve
from limbeck.cluster.engines.precision import Dtype, dtype_on
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.batching import Batch, Lengths, by_length
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require

if TYPE_CHECKING:
    import torch

_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
_PADDING = 1 / 16  # maximum share of padding in a batch with enough tokens to fill the cores
_ENOUGH_TOKENS = 512


class EncoderConfig(ScoringModelConfig):
    """A sentence encoder: a Hugging Face id, a folder, or `embedded:all-minilm-l6-v2`.

    `max_tokens` cuts longer texts (null: the model's own limit, 256 for all-MiniLM); `batch_tokens` bounds a forward pass.
    """

    model: str = "embedded:all-minilm-l6-v2"
    dtype: Dtype = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_tokens: int | None = Field(default=None, ge=8)
    batch_tokens: int = Field(default=8192, ge=8)
    trust_remote_code: bool = False

    def load(self) -> "Encoder":
        """Return the loaded encoder; raises LimbeckError if its model is missing or truncated, or pools in an unknown way."""
        require(f"a sentence encoder (model {self.model})", "local")
        return Encoder(self)


class Encoder:
    """Turns texts into unit vectors; mean or first-token pooling, from the model's folder (default: mean)."""

    def __init__(self, config: EncoderConfig) -> None:
        """Load the model; takes seconds."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        from limbeck.cluster.engines.devices import device_of, loaded_as

        clock = time.perf_counter()
        folder = resolve(config.model)
        self._device = device_of(config.device)
        self._pooling = pooling(folder)
        with loaded_as(folder, "an encoder"):
            model = AutoModel.from_pretrained(
                folder,
                dtype=getattr(torch, dtype_on(config.dtype, self._device.type)),
                use_safetensors=True,
                trust_remote_code=config.trust_remote_code,
                local_files_only=True,
            )
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=config.trust_remote_code, local_files_only=True
            )
        self._model = model.to(self._device).eval()
        self._batch_tokens = config.batch_tokens
        self.max_tokens = min(describe(folder).context_tokens, config.max_tokens or stated_tokens(folder))
        self.dimensions = int(model.config.hidden_size)
        self.usage = Usage(load_seconds=time.perf_counter() - clock)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one unit vector per text, of its first `max_tokens` tokens; each distinct text goes through the model once.

        In float32 a vector differs by less than 1e-4 from that of the text encoded alone.  # [texts, dimensions]
        """
        import torch

        distinct = list(dict.fromkeys(texts))
        vectors = np.zeros((len(distinct), self.dimensions), np.float32)
        if not distinct:
            return vectors
        cut: dict[str, Any] = {} if self.max_tokens >= NO_LIMIT_TOKENS else {"truncation": True, "max_length": self.max_tokens}
        rows = self._tokenizer(distinct, return_attention_mask=False, return_token_type_ids=False, **cut)["input_ids"]
        clock = time.perf_counter()
        with torch.inference_mode():
            for batch in batches([len(row) for row in rows], self._batch_tokens):
                vectors[batch] = self._forward([rows[place] for place in batch])
        self.usage.model_seconds += time.perf_counter() - clock
        places = {text: place for place, text in enumerate(distinct)}
        return vectors[[places[text] for text in texts]]

    def _forward(self, rows: list[list[int]]) -> npt.NDArray[np.float32]:
        """The pooled unit vectors of token rows.  # [rows, dimensions]"""
        import torch

        lengths = [len(row) for row in rows]
        width = max(lengths)
        filler = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows], device=self._device)
        counts = torch.tensor(lengths, device=self._device)
        inside = torch.arange(width, device=self._device)[None] < counts[:, None]  # [rows, width]
        whole = min(lengths) == width
        hidden = self._model(input_ids=ids, attention_mask=None if whole else inside.long()).last_hidden_state.float()
        vectors = self._pool(hidden, inside, counts)
        self.usage.forwarded_tokens += sum(lengths)
        return np.asarray(torch.nn.functional.normalize(vectors, dim=1).cpu())

    def _pool(self, hidden: "torch.Tensor", inside: "torch.Tensor", counts: "torch.Tensor") -> "torch.Tensor":
        """One vector per row from those of its tokens.  # [rows, width, dimensions] -> [rows, dimensions]"""
        if self._pooling == "first":
            return hidden[:, 0]
        return (hidden * inside[..., None]).sum(dim=1) / counts[:, None].clamp(min=1)


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """The indices of rows to encode together, longest first: of similar length, within `batch_tokens` when padded.

    A longer row has its own batch. Equal lengths share a batch without padding; others join while the batch is small, or
    while at most a 16th of it is padding.
    """

    def full(batch: Batch, row: Lengths) -> bool:
        padded = batch.padded_with(row)
        wasteful = padded - batch.tokens - sum(row) > _PADDING * padded and batch.tokens >= _ENOUGH_TOKENS
        return padded > batch_tokens or wasteful

    return by_length([(length,) for length in lengths], full)


def pooling(folder: Path) -> Literal["mean", "first"]:
    """Pooling according to the sentence-transformers files of a model folder; raises LimbeckError for unsupported ways."""
    stages = _json(folder / "modules.json") or []
    for stage in stages:
        if (kind := str(stage["type"]).rpartition(".")[2]) not in _KNOWN_MODULES:
            raise LimbeckError(f"the encoder {folder} has an unsupported {kind} layer; use an encoder without it")
    place = next((stage["path"] for stage in stages if str(stage["type"]).endswith("Pooling")), "1_Pooling")
    stated = _json(folder / place / "config.json") or {"pooling_mode_mean_tokens": True}
    modes = sorted(
        key.removeprefix("pooling_mode_") for key, on in stated.items() if key.startswith("pooling_mode_") and on is True
    )
    if modes == ["mean_tokens"] or stated.get("pooling_mode") == "mean":
        return "mean"
    if modes == ["cls_token"] or stated.get("pooling_mode") == "cls":
        return "first"
    raise LimbeckError(f"the encoder {folder} uses {' and '.join(modes) or 'unknown'} pooling; use one with mean or cls pooling")


def stated_tokens(folder: Path) -> int:
    """The maximum text length recorded in a sentence encoder's folder, including special tokens."""
    stated = _json(folder / "sentence_bert_config.json") or {}
    return int(stated.get("max_seq_length") or NO_LIMIT_TOKENS)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise LimbeckError(f"{path} is not valid JSON ({error}); copy or download the model again") from error
