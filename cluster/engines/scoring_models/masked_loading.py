"""From a model folder to a masked language model in memory, and its forward pass."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from limbeck.cluster.engines.devices import device_of, loaded_as
from limbeck.cluster.engines.models import NO_LIMIT_TOKENS, describe, resolve
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.masked import MaskedConfig, MaskedModel
from limbeck.cluster.engines.scoring_models.masked_forms import Form, Hidden, Infilling, cloze
from limbeck.corpus.errors import LimbeckError

_CHUNK_ROWS = 64  # rows turned to float32 at once, so that the copy stays in the CPU's cache


def load(config: MaskedConfig) -> MaskedModel:
    """Load a model for inference; raises LimbeckError where it is missing, cut off or no masked language model."""
    start = time.perf_counter()
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


def _chosen(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return scores.gather(-1, chosen[:, None])[:, 0] - torch.logsumexp(scores, -1)


@contextlib.contextmanager
def _only(trunk: torch.nn.Module, rows: torch.Tensor, places: torch.Tensor) -> Iterator[None]:
    """Let the output layer see the hidden states at these places alone, as one sequence: [batch, tokens, d] -> [1, places, d]."""

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
    kind = AutoConfig.from_pretrained(folder, local_files_only=True)
    loader = AutoModelForSeq2SeqLM if kind.is_encoder_decoder else AutoModelForMaskedLM
    device = device_of(config.device)
    with loaded_as(folder, "a masked language model"):
        model, report = loader.from_pretrained(
            folder, dtype=getattr(torch, config.dtype), use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise LimbeckError(
            f"{folder} lacks the weight {missing[0]} of a masked language model (an encoder alone cannot fill in words); "
            "name one that was saved with its output layer"
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
            raise LimbeckError(
                f"{folder} has no token <extra_id_0>, so it does not fill in spans; name a T5 or a BERT-like model"
            )
        start = model.config.decoder_start_token_id
        return Infilling(tuple(sentinels), pad if start is None else start, tokenizer.eos_token_id, pad)
    if tokenizer.mask_token_id is None:
        raise LimbeckError(f"the tokenizer of {folder} has no mask token; name a T5 or a BERT-like model")
    backend = tokenizer.backend_tokenizer
    template = {
        name: {"ids": encoded.ids, "sequence_ids": encoded.sequence_ids, "type_ids": encoded.type_ids}
        for name, encoded in (("single", backend.encode("a")), ("pair", backend.encode("a", "a")))
    }
    has_segments = any(template["pair"]["type_ids"]) and getattr(model.config, "type_vocab_size", 0) > 1
    return cloze(template, tokenizer.mask_token_id, pad, has_segments)


def _limit(model: Any, folder: Path, tokenizer: Any) -> int:
    """How many tokens the model reads at once: of all that config, tokenizer and position embeddings state, the least."""
    limits = [describe(folder).context_tokens, tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa numbers its tokens from there
            limits.append(module.num_embeddings - first)
    return int(min(limits))
