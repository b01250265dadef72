"""Forward passes of a classifier: one without padding for models of the BERT family, the model's own for all others.

Without padding, rows are concatenated: linear layers and normalisations process real tokens only (plus a few to round the number
up), and rows of equal length attend in one call. In the last layer only the first token is computed beyond keys and values, since
the head reads nothing else. On a CPU the weights are packed once for oneDNN, whose kernels use the widest available vectors and
fuse bias, activation and residual. All of this computes the model's function in its own dtype.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.cluster.engines.scoring_models.pairs import Rows

_FAMILY = {"bert", "roberta", "xlm-roberta", "camembert"}
_GELU = {"gelu": "none", "gelu_python": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_TOKENS_STEP, _ROWS_STEP, _LENGTH_STEP = 128, 16, 16  # sizes are multiples of these
_ROWS_HINT = 1024  # rows of activations for which oneDNN packs the weights


class Linear(nn.Module):
    """A linear layer whose weights are packed for oneDNN if that helps; `forward` takes any leading dimensions."""

    def __init__(self, *layers: nn.Linear) -> None:
        """Take one layer, or several with the same input whose outputs are concatenated."""
        super().__init__()
        weights: list[torch.Tensor] = [layer.weight.detach() for layer in layers]
        weight = torch.cat(weights)
        biases = [torch.zeros(len(layer.weight)).to(weight) if layer.bias is None else layer.bias.detach() for layer in layers]
        self.onednn = _onednn_helps(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT) if self.onednn else weight
        self.bias = torch.cat(biases)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs · weightᵀ + bias."""
        if self.onednn:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
            return out
        plain: torch.Tensor = F.linear(inputs, self.weight, self.bias)
        return plain

    def gelu(self, inputs: torch.Tensor, approximate: str) -> torch.Tensor:
        """Return the GELU of `forward`."""
        if self.onednn:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "gelu", [], approximate)
            return out
        activated: torch.Tensor = F.gelu(self(inputs), approximate=approximate)
        return activated

    def plus(self, inputs: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return `forward` plus a residual of its shape."""
        if self.onednn:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, residual, self.weight, self.bias, "add")
            return out
        added: torch.Tensor = self(inputs) + residual
        return added


@dataclass(frozen=True)
class Layer:
    """One encoder layer of the BERT family; `activation` is None if the GELU can be fused."""

    qkv: Linear
    attention_out: Linear
    attention_norm: nn.LayerNorm
    up: Linear
    gelu: str | None
    activation: Any
    down: Linear
    norm: nn.LayerNorm

    def feed_forward(self, attended: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The part after attention, token by token.  # [tokens, d], [tokens, d] -> [tokens, d]"""
        hidden = self.attention_norm(self.attention_out.plus(attended, hidden))
        wide = self.up.gelu(hidden, self.gelu) if self.gelu is not None else self.activation(self.up(hidden))
        normed: torch.Tensor = self.norm(self.down.plus(wide, hidden))
        return normed


@dataclass(frozen=True)
class Group:
    """Neighbouring rows that attend in one call: `rows` of one length, from token `start` on, or padded to one.

    If padded, `places` [rows, length] are their tokens (padding repeats token 0), `mask` [rows, 1, 1, length] is added to the
    scores, and `real` are the positions within rows * length that are not padding.
    """

    start: int
    rows: int
    length: int
    places: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    real: torch.Tensor | None = None

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, only_first: bool) -> torch.Tensor:
        """Return attention within each row of [tokens, heads, d]: [tokens of the group or rows, heads * d]."""
        asked, keys, values = (self._of(states) for states in (query, key, value))
        if only_first:
            asked = asked[:, :, :1]
        if self.mask is None:
            out = F.scaled_dot_product_attention(asked, keys, values)  # [rows, heads, length or 1, d]
        else:
            scores = torch.matmul(asked * asked.shape[-1] ** -0.5, keys.transpose(-1, -2)) + self.mask
            out = torch.matmul(torch.softmax(scores, dim=-1), values)
        flat = out.transpose(1, 2).reshape(-1, query.shape[1] * query.shape[2])
        return flat if only_first or self.real is None else flat[self.real]

    def _of(self, states: torch.Tensor) -> torch.Tensor:
        """The group's tokens of [tokens, heads, d] as [rows, heads, length, d]."""
        if self.places is not None:
            return states[self.places].transpose(1, 2)
        tokens = states[self.start : self.start + self.rows * self.length]
        return tokens.view(self.rows, self.length, *states.shape[1:]).transpose(1, 2)


class PackedForward:
    """A model of the BERT family over concatenated rows."""

    def __init__(self, model: Any) -> None:
        """Copy the weights; the model's own layers are no longer needed."""
        base = model.base_model
        self._embeddings = base.embeddings
        self._first_position = 0 if model.config.model_type == "bert" else base.embeddings.position_embeddings.padding_idx + 1
        self._heads = model.config.num_attention_heads
        self._layers = [_layer(layer, model.config.hidden_act) for layer in base.encoder.layer]
        self._pooler = base.pooler if model.config.model_type == "bert" else nn.Identity()
        self._head = model.classifier
        self._device = model.device
        self._dtype = model.dtype
        # There, products of whole matrices are two to three times as fast as the fused kernel, which gains nothing from bfloat16;
        # but oneDNN compiles a kernel for every new shape, so shapes must recur.
        self._pads = model.device.type == "cpu" and model.dtype == torch.bfloat16

    @staticmethod
    def takes(model: Any) -> bool:
        """Whether the model is of the family: absolute positions, two-way attention, a head that reads the first token."""
        config = model.config
        absolute = getattr(config, "position_embedding_type", None) in (None, "absolute")
        return config.model_type in _FAMILY and absolute and not getattr(config, "is_decoder", False)

    @torch.inference_mode()
    def __call__(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the logits of the rows.  # [rows, classes]"""
        number = len(rows.lengths)
        starts = np.cumsum(rows.lengths) - rows.lengths
        positions = np.arange(len(rows.ids)) - np.repeat(starts, rows.lengths) + self._first_position
        given = (_filled(array, _TOKENS_STEP) for array in (rows.ids, rows.types, positions))
        ids, types, places = (torch.from_numpy(array).to(self._device)[None] for array in given)
        groups = list(_groups(rows.lengths, starts, self._dtype, padded=self._pads))
        hidden = self._embeddings(input_ids=ids, token_type_ids=types, position_ids=places)[0]  # [tokens, d]
        for layer in self._layers[:-1]:
            hidden = layer.feed_forward(self._attended(layer, hidden, groups, only_first=False), hidden)
        first = torch.from_numpy(_filled(starts, _ROWS_STEP)).to(self._device)
        last = self._layers[-1]
        hidden = last.feed_forward(self._attended(last, hidden, groups, only_first=True), hidden[first])[:number]  # [rows, d]
        logits = self._head(self._pooler(hidden[:, None]))  # [rows, classes]
        return logits.float().cpu().numpy()  # type: ignore[no-any-return]

    def _attended(self, layer: Layer, hidden: torch.Tensor, groups: list[Group], *, only_first: bool) -> torch.Tensor:
        """Self-attention within each row: of all tokens, or of each row's first, padded.  # [tokens or rows, d]"""
        tokens, width = hidden.shape
        query, key, value = layer.qkv(hidden).view(tokens, 3, self._heads, width // self._heads).unbind(1)
        outs = [group.attend(query, key, value, only_first) for group in groups]
        missing = -sum(map(len, outs)) % (_ROWS_STEP if only_first else _TOKENS_STEP)
        if missing:
            outs.append(hidden.new_zeros(missing, width))
        return torch.cat(outs)


class PaddedForward:
    """Any sequence-classification model, run by the library on rows padded to the longest."""

    def __init__(self, model: Any) -> None:
        """Take the model."""
        self._model = model
        self._takes_types = getattr(model.config, "type_vocab_size", 0) > 1
        self._padding = model.config.pad_token_id or 0

    @torch.inference_mode()
    def __call__(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the logits of the rows.  # [rows, classes]"""
        mask = np.arange(rows.lengths.max()) < rows.lengths[:, None]  # [rows, longest]
        ids, types = np.full(mask.shape, self._padding), np.zeros(mask.shape, dtype=np.int64)
        ids[mask], types[mask] = rows.ids, rows.types
        given = {"input_ids": ids, "attention_mask": mask.astype(np.int64)} | (
            {"token_type_ids": types} if self._takes_types else {}
        )
        tensors = {name: torch.from_numpy(array).to(self._model.device) for name, array in given.items()}
        return self._model(**tensors).logits.float().cpu().numpy()  # type: ignore[no-any-return]

    @contextmanager
    def trying_onednn(self) -> Iterator[None]:
        """Pack the linear layers for oneDNN; restored if the block raises."""
        layers = {name: layer for name, layer in self._model.named_modules() if type(layer) is nn.Linear}
        layers = {name: layer for name, layer in layers.items() if _onednn_helps(layer.weight)}
        try:
            for name, layer in layers.items():
                self._model.set_submodule(name, Linear(layer))
            yield
        except (AttributeError, RuntimeError, TypeError, ArithmeticError):
            for name, layer in layers.items():
                self._model.set_submodule(name, layer)


def _groups(
    lengths: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], dtype: torch.dtype, *, padded: bool
) -> Iterator[Group]:
    """Rows of one length together, or `padded` to a multiple of 16; `lengths` descend."""
    longest = -(-lengths // _LENGTH_STEP) * _LENGTH_STEP if padded else lengths
    for length in dict.fromkeys(longest.tolist()):
        chosen = np.flatnonzero(longest == length)
        group = Group(int(starts[chosen[0]]), len(chosen), length)
        if padded:
            offsets = np.arange(length)
            real = offsets < lengths[chosen][:, None]  # [rows, length]
            places = torch.from_numpy(np.where(real, starts[chosen][:, None] + offsets, 0))
            mask = torch.zeros(real.shape, dtype=dtype).masked_fill(torch.from_numpy(~real), -torch.inf)
            group = replace(group, places=places, mask=mask[:, None, None], real=torch.from_numpy(np.flatnonzero(real)))
        yield group


def _filled(array: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.int64]:
    """The array padded with its first entry to a multiple of `step`: few sizes, so that oneDNN compiles few kernels."""
    return np.concatenate([array, np.full(-len(array) % step, array[0])])


def _layer(layer: Any, activation: str) -> Layer:
    attention = layer.attention
    return Layer(
        qkv=Linear(attention.self.query, attention.self.key, attention.self.value),
        attention_out=Linear(attention.output.dense),
        attention_norm=attention.output.LayerNorm,
        up=Linear(layer.intermediate.dense),
        gelu=_GELU.get(activation),
        activation=layer.intermediate.intermediate_act_fn,
        down=Linear(layer.output.dense),
        norm=layer.output.LayerNorm,
    )


def _onednn_helps(weight: torch.Tensor) -> bool:
    """Whether oneDNN has a kernel for a weight: float32, and bfloat16 if the processor supports it."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
