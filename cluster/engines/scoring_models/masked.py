"""Masked language models: probability of the hidden words of a text, alone or after another text.

Two families, distinguished by the files of the model folder. T5-like models (an encoder and a decoder, `<extra_id_0>` among the
tokens) restore each run of hidden tokens after one sentinel, by the decoder's chain rule (Raffel et al., 2020). BERT-like models
(a mask token) restore all hidden tokens at once, each given only the visible ones, so the hidden tokens are treated as
independent (Devlin et al., 2019). `masked_forms.py` composes the sequences of both. The driver reads the config, so torch and
transformers are imported when a model is loaded.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.contract import ScoringModelConfig
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, describe, resolve
from limbeck.cluster.engines.precision import Dtype, dtype_on
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.masked_forms import Form, Hidden, Infilling, Pieces, batches, cloze
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require

if TYPE_CHECKING:
    import torch

Logprobs = npt.NDArray[np.float32]

_CHARACTERS_PER_TOKEN = 12  # first guess of how much text to tokenise; increased if too small
_CHUNK_ROWS = 64  # rows converted to float32 at once, so that the copy stays in the CPU cache


class MaskedConfig(ScoringModelConfig):
    """A masked language model in this process; `batch_tokens` bounds one forward pass, including padding.

    `context_tokens` lowers the model's own context limit.
    """

    model: str = "google-t5/t5-large"
    dtype: Dtype = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_tokens: int = Field(default=2048, ge=16)
    context_tokens: int | None = Field(default=None, ge=8)

    def load(self) -> "MaskedModel":
        """Return the loaded model; raises LimbeckError if it is missing, truncated or not a masked language model."""
        require(f"a masked language model (model {self.model})", "local")
        return load(self)


@dataclass(frozen=True)
class Infill:
    """A text whose characters in `spans` are hidden, read after `condition` ("": alone).

    The two are tokenised separately, so a text has the same tokens after any condition. Whole tokens are hidden: all that overlap
    a span.
    """

    condition: str
    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass
class MaskedModel:
    """A loaded masked language model; `context_tokens` bounds condition, text and special tokens together."""

    model: Any
    tokenizer: Any
    form: Form
    context_tokens: int
    batch_tokens: int
    usage: Usage = field(default_factory=Usage)

    def logprobs(self, infills: Sequence[Infill]) -> list[Logprobs]:
        """Return one natural log-probability for each hidden token of each text; one NaN if condition and text do not fit.

        Every distinct sequence runs once; sequences of similar length run together, and the output layer only at hidden tokens.
        Equals one sequence at a time within rounding. A text without hidden tokens gives an empty array.
        """
        pieces = self._pieces(text for infill in infills for text in (infill.condition, infill.text))
        composed = {infill: self._compose(infill, pieces) for infill in dict.fromkeys(infills)}
        distinct = list(dict.fromkeys(sequence for sequences in composed.values() for sequence in sequences or ()))
        found = dict(zip(distinct, self._run(distinct), strict=True))
        answers: dict[Infill, Logprobs] = {}
        for infill, sequences in composed.items():
            parts = [found[sequence] for sequence in sequences] if sequences is not None else [np.full(1, np.nan, np.float32)]
            answers[infill] = np.concatenate([np.zeros(0, np.float32), *parts])
        return [answers[infill] for infill in infills]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        pieces = self._pieces(texts)
        return [len(pieces[text].tokens) for text in texts]

    def room(self, tokens: int) -> int:
        """Tokens left for a second text, given the first's length; 0 or less: none."""
        return self.context_tokens - self.form.special_tokens - tokens

    def shortened(self, text: str, tokens: int) -> str:
        """Return the longest prefix of `text` with at most `tokens` tokens, ending at a word boundary if possible."""
        if tokens <= 0:
            return ""
        window = tokens * _CHARACTERS_PER_TOKEN
        while True:
            offsets = self._pieces([text[:window]])[text[:window]].offsets
            if len(offsets) > tokens or window >= len(text):
                break
            window *= 4
        if len(offsets) <= tokens:
            return text
        end = offsets[tokens - 1][1]
        while end > 0:
            head = _up_to_a_word(text, end)
            if self.count_tokens([head])[0] <= tokens:  # a tokenizer may split a shorter text differently
                return head
            end = len(head) - 1
        return ""

    def _pieces(self, texts: Iterable[str]) -> dict[str, Pieces]:
        """The tokens of each distinct text by itself, without special tokens."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoded = self.tokenizer(distinct, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        both = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return {text: Pieces(tuple(ids), tuple(offsets)) for text, (ids, offsets) in zip(distinct, both, strict=True)}

    def _compose(self, infill: Infill, pieces: dict[str, Pieces]) -> tuple[Hidden, ...] | None:
        """The sequences that hide the spans; None if condition and text do not fit."""
        condition, text = pieces[infill.condition], pieces[infill.text]
        if len(text.tokens) > self.room(len(condition.tokens)):
            return None
        hidden = [place for place, (a, b) in enumerate(text.offsets) if any(a < end and b > start for start, end in infill.spans)]
        return tuple(self.form.compose(condition.tokens, text.tokens, hidden))

    def _run(self, sequences: Sequence[Hidden]) -> list[Logprobs]:
        found: dict[int, Logprobs] = {}
        for members in batches([(len(s.tokens), len(s.decoder)) for s in sequences], self.batch_tokens):
            start = time.perf_counter()
            batch = [sequences[member] for member in members]
            found.update(zip(members, forward(self.model, self.form, batch), strict=True))
            self.usage.model_seconds += time.perf_counter() - start
            self.usage.forwarded_tokens += sum(len(sequence.tokens) + len(sequence.decoder) for sequence in batch)
        return [found[place] for place in range(len(sequences))]


def _up_to_a_word(text: str, end: int) -> str:
    """`text[:end]`, without a partial last word unless nothing else is left."""
    if end >= len(text) or text[end].isspace():
        return text[:end].rstrip() or text[:end]
    words = text[:end].rsplit(None, 1)
    return words[0] if len(words) == 2 else text[:end]


def load(config: MaskedConfig) -> MaskedModel:
    """Load a model for inference; raises LimbeckError if it is missing, truncated or not a masked language model."""
    start = time.perf_counter()
    from transformers import AutoTokenizer

    folder = resolve(config.model)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise LimbeckError(f"the tokenizer of {folder} has no tokenizer.json; save the model with its fast tokenizer")
    model = _model(folder, config)
    limit = min(_limit(model, folder, tokenizer), config.context_tokens or NO_LIMIT_TOKENS)
    usage = Usage(load_seconds=time.perf_counter() - start)
    return MaskedModel(model, tokenizer, _form(model, tokenizer, folder), limit, config.batch_tokens, usage)


def forward(model: Any, form: Form, batch: Sequence[Hidden]) -> list[npt.NDArray[np.float32]]:
    """Return the natural log-probabilities of each sequence's targets, from one forward pass."""
    import torch

    device = model.device
    rows = torch.from_numpy(np.repeat(np.arange(len(batch)), [len(hidden.places) for hidden in batch])).to(device)
    places = torch.tensor([place for hidden in batch for place in hidden.places], device=device)
    targets = torch.tensor([target for hidden in batch for target in hidden.targets], device=device)
    inputs = {k: torch.from_numpy(v).to(device) if isinstance(v, np.ndarray) else v for k, v in form.inputs(batch).items()}
    with torch.inference_mode(), _only(form.trunk(model), rows, places):
        logits = model(**inputs).logits[0]  # [targets, vocabulary]
        assert len(logits) == len(targets), "the output layer of this model does not work token by token"
        chunks = [slice(start, start + _CHUNK_ROWS) for start in range(0, len(targets), _CHUNK_ROWS)]
        values = torch.cat([_chosen(logits[chunk].float(), targets[chunk]) for chunk in chunks])
    return np.split(values.cpu().numpy(), np.cumsum([len(hidden.places) for hidden in batch])[:-1])


def _chosen(scores: "torch.Tensor", chosen: "torch.Tensor") -> "torch.Tensor":
    import torch

    return scores.gather(-1, chosen[:, None])[:, 0] - torch.logsumexp(scores, -1)


@contextlib.contextmanager
def _only(trunk: "torch.nn.Module", rows: "torch.Tensor", places: "torch.Tensor") -> Iterator[None]:
    """Restrict the output layer to the hidden states at these positions, as a sequence: [batch, tokens, d] -> [1, places, d]."""

    def select(module: Any, args: Any, output: Any) -> Any:
        chosen = output[0][rows, places][None]
        if isinstance(output, tuple):
            return (chosen, *output[1:])
        output.last_hidden_state = chosen
        return output

    handle = trunk.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _model(folder: Path, config: MaskedConfig) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    from limbeck.cluster.engines.devices import device_of, loaded_as

    kind = AutoConfig.from_pretrained(folder, local_files_only=True)
    loader = AutoModelForSeq2SeqLM if kind.is_encoder_decoder else AutoModelForMaskedLM
    device = device_of(config.device)
    with loaded_as(folder, "a masked language model"):
        model, report = loader.from_pretrained(
            folder,
            dtype=getattr(torch, dtype_on(config.dtype, device.type)),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise LimbeckError(
            f"{folder} lacks the weight {missing[0]} of a masked language model (an encoder alone cannot fill in words); "
            "use one that was saved with its output layer"
        )
    return model.to(device).eval()


def _form(model: Any, tokenizer: Any, folder: Path) -> Form:
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    if model.config.is_encoder_decoder:
        vocabulary = tokenizer.get_vocab()
        sentinels: list[int] = []
        while (token := vocabulary.get(f"<extra_id_{len(sentinels)}>")) is not None:
            sentinels.append(token)
        if not sentinels:
            raise LimbeckError(f"{folder} has no token <extra_id_0>, so it does not fill in spans; use a T5 or a BERT-like model")
        start = model.config.decoder_start_token_id
        return Infilling(tuple(sentinels), pad if start is None else start, tokenizer.eos_token_id, pad)
    if tokenizer.mask_token_id is None:
        raise LimbeckError(f"the tokenizer of {folder} has no mask token; use a T5 or a BERT-like model")
    backend = tokenizer.backend_tokenizer
    template = {
        name: {"ids": encoded.ids, "sequence_ids": encoded.sequence_ids, "type_ids": encoded.type_ids}
        for name, encoded in (("single", backend.encode("a")), ("pair", backend.encode("a", "a")))
    }
    has_segments = any(template["pair"]["type_ids"]) and getattr(model.config, "type_vocab_size", 0) > 1
    return cloze(template, tokenizer.mask_token_id, pad, has_segments)


def _limit(model: Any, folder: Path, tokenizer: Any) -> int:
    """Context limit of the model: the minimum of those in config, tokenizer and position embeddings."""
    import torch

    limits = [describe(folder).context_tokens, tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa numbers its tokens from there
            limits.append(module.num_embeddings - first)
    return int(min(limits))
