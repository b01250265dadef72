"""Models with a trimmed vocabulary: made, recorded, and given their full vocabulary back. Heavy imports are inside functions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing, read_object, write_json
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.students.base.text_files import VOCABULARY_FILE, copy_text_files
from limbeck.students.base.vocabulary import Counts, renumbered


def counted(tokenizer: Tokenizer, texts: Iterable[str], rows: int) -> Counts:
    """How often each token occurs in the texts; `rows` is the size of the embedding.  # [rows]"""
    counts = np.zeros(rows, np.int64)
    for text in texts:
        np.add.at(counts, tokenizer.backend.encode(text, add_special_tokens=False).ids, 1)
    return counts


def record(source: Path, kept: Sequence[int], rows: int) -> dict[str, Any]:
    """The record of the vocabulary of a model folder trimmed to `kept`; `rows` is the size of its embedding.

    The old ids of a vocabulary that was trimmed before are those of its original.
    """
    if (source / VOCABULARY_FILE).exists():
        before = read_record(source)
        return {**before, "old_ids": [before["old_ids"][token] for token in kept]}
    return {"tokenizer": Tokenizer.load(source).fingerprint, "old_rows": rows, "old_ids": list(kept)}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a trimmed model; raises LimbeckError if its vocabulary is not trimmed."""
    if not (folder / VOCABULARY_FILE).exists():
        raise LimbeckError(f"{folder} has no {VOCABULARY_FILE}, so its vocabulary was not trimmed")
    return read_object(folder / VOCABULARY_FILE, "restore it from a copy")


def trim(model: Any, kept: Sequence[int]) -> None:
    """Keep these rows of a model's embedding and output layer, in their order, in place.

    Raises LimbeckError if another tensor of the model has a row for every token.
    """
    import torch

    _refuse_other_rows(model)
    places = torch.tensor(kept)
    for tensor in _rows(model):
        tensor[: len(kept)] = tensor[places]
    model.resize_token_embeddings(len(kept), mean_resizing=False)


def restore_vocabulary(student: Path, original: Path, out: Path) -> None:
    """Publish at `out` the student with the full vocabulary of `original`, the model from which it was trimmed.

    Kept tokens have the student's rows, removed ones those of `original`; the text files are those of `original`. Raises
    LimbeckError if the student was not trimmed, or not from this model, or was made anew in another width.
    """
    import torch
    from transformers import AutoModelForCausalLM

    known = read_record(student)
    if Tokenizer.load(original).fingerprint != known["tokenizer"]:
        raise LimbeckError(f"{student} was not trimmed from the tokenizer of {original}; name the model that it was made from")
    load = {"dtype": "auto", "use_safetensors": True, "local_files_only": True}
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder, **load) for folder in (student, original))
    widths = [model.get_input_embeddings().weight.shape[1] for model in (ours, theirs)]
    if widths[0] != widths[1]:
        raise LimbeckError(
            f"{student} has a width of {widths[0]}, and {original} of {widths[1]}, so the removed tokens have no rows of "
            "that width; restore only models that were made from the original's weights"
        )
    trained = [tensor.clone() for tensor in _rows(ours)]
    ours.resize_token_embeddings(known["old_rows"], mean_resizing=False)
    places = torch.tensor(known["old_ids"])
    for tensor, before, rows in zip(_rows(ours), trained, _rows(theirs), strict=True):
        tensor[:] = rows.to(tensor.dtype)
        tensor[places] = before
    old_ids = dict(enumerate(known["old_ids"]))
    with publishing(out) as folder:
        save(ours, folder, old_ids)
        copy_text_files(original, folder)


def save(model: Any, folder: Path, ids: dict[int, int] | None = None) -> None:
    """Save a model; with `ids`, the token ids in its settings are renumbered: from → to."""
    model.save_pretrained(folder)
    for name in ("config.json", "generation_config.json") if ids is not None else ():
        if (path := folder / name).exists():
            write_json(path, renumbered(read_object(path), ids or {}), replace=True)


def _rows(model: Any) -> list[Any]:
    """The tensors that have one row per token: the embedding, an untied output layer, and its bias."""
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    found = [embedding.weight.data]
    if output.weight is not embedding.weight:
        found.append(output.weight.data)
    if getattr(output, "bias", None) is not None:
        found.append(output.bias.data)
    return found


def _refuse_other_rows(model: Any) -> None:
    rows, known = len(model.get_input_embeddings().weight), {tensor.data_ptr() for tensor in _rows(model)}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if rows in tensor.shape and tensor.data_ptr() not in known:
            raise LimbeckError(
                f"{type(model).__name__} has {name} with a row for every token, which cannot be trimmed; remove vocabulary"
            )
