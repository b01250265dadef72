"""Make the model that a student starts from, on a worker: cut, new or trimmed. Heavy imports are inside functions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing, read_table, write_json
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.base.config import BaseConfig, LayersBase, ScratchBase, VocabularyConfig
from limbeck.students.base.layers import drop_layers, keep_evenly
from limbeck.students.base.scratch import new_model
from limbeck.students.base.text import train_documents, write_sample_again
from limbeck.students.base.text_files import VOCABULARY_FILE, copy_text_files
from limbeck.students.base.trimming import counted, record, save, trim
from limbeck.students.base.vocabulary import kept_tokens, read_trimmable, special_ids, write_text_files
from limbeck.students.training.rows import read_rows, rendered
from limbeck.students.training.sample_loss import nats_per_token, read_sample
from limbeck.students.training.settings import PROGRESS_FILE

REPORT_FILE = "base.json"


@dataclass(frozen=True)
class Making:
    """What a worker needs to make a model; travels by pickle."""

    config: BaseConfig
    source: Path  # the model folder that it is made from
    dataset: tuple[Path, ...]  # Parquet files of the rows to train on later
    documents: Path | None
    sample: Path  # as `text.write_sample` writes it
    trimmed_sample: Path  # the same in the tokens of a trimmed vocabulary
    out: Path
    seed: int
    use_gpu: bool


def make(config: dict[str, Any]) -> dict[str, Any]:
    """Make the model of `config["making"]` and publish its folder with a report.

    The report: nats_per_token and nats_per_byte of the source (`_teacher`) and of what was made (`_start`) on the sample; kept
    and dropped layers (in the order of removal), parameters, and vocabulary (tokens, of, share of the occurrences that are kept).
    """
    making: Making = config["making"]
    base = making.config
    model = _load(making.source, making.use_gpu)
    report: dict[str, Any] = measured("teacher", model, making.sample)
    if isinstance(base, LayersBase):
        report |= _cut(base, model, making)
    elif isinstance(base, ScratchBase):
        model = new_model(base.sizes, model.config, making.seed).to(model.device)
    sample = making.sample
    with publishing(making.out) as folder:
        folder.mkdir()
        if base.vocabulary is None:
            save(model, folder)
            copy_text_files(making.source, folder)
        else:
            report["vocabulary"] = _trim(base.vocabulary, model, making, folder)
            sample = making.trimmed_sample
            write_sample_again(making.sample, Tokenizer.load(folder), sample)
        report |= {**measured("start", model, sample), "parameters": sum(tensor.numel() for tensor in model.parameters())}
        _refuse_unless_same(model, folder, sample)
        write_json(folder / REPORT_FILE, report)
    return report


def measured(name: str, model: Any, sample: Path) -> dict[str, float]:
    """The loss of a model on a sample, per token and per byte; bytes compare models with different vocabularies."""
    rows = read_sample(sample)
    nats = nats_per_token(model, rows)
    return {f"nats_per_token_{name}": nats, f"nats_per_byte_{name}": per_byte(nats, sample)}


def per_byte(nats_per_token: float, sample: Path) -> float:
    """A loss per token of a sample as a loss per byte."""
    table = read_table(sample)
    tokens = sum(len(row) - 1 for row in table["input_ids"].to_pylist())
    return float(nats_per_token * tokens / max(1, sum(table["bytes"].to_pylist())))


def _load(folder: Path, use_gpu: bool = False) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, local_files_only=True)
    return model.to("cuda" if use_gpu else "cpu").eval()


def _cut(base: LayersBase, model: Any, making: Making) -> dict[str, Any]:
    if base.choose == "evenly":
        dropped = keep_evenly(model, base.layers)
    else:
        dropped = drop_layers(model, read_sample(making.sample), base.layers, making.sample.parent / PROGRESS_FILE)
    kept = [layer for layer in range(len(dropped) + base.layers) if layer not in dropped]
    return {"kept": kept, "dropped": dropped, "nats_per_token_cut": measured("cut", model, making.sample)["nats_per_token_cut"]}


def _trim(config: VocabularyConfig, model: Any, making: Making, folder: Path) -> dict[str, Any]:
    """Trim the model's vocabulary and write its folder; returns tokens, of, and the share of the occurrences that are kept."""
    from transformers import AutoTokenizer

    content, backend = read_trimmable(making.source), Tokenizer.load(making.source)
    tokenizer = AutoTokenizer.from_pretrained(making.source, local_files_only=True)
    rows = len(model.get_input_embeddings().weight)
    counts = counted(backend, (row["document"] for row in train_documents(making.documents)), rows)
    for row in rendered(read_rows(making.dataset), tokenizer, end_tokens(making.source)):
        counts += _occurrences(row.ids, rows)
    kept = kept_tokens(content, counts, config.keep, special_ids(making.source).union(_turn(tokenizer)))
    before = record(making.source, kept, rows)
    trim(model, kept)
    save(model, folder, {old: new for new, old in enumerate(kept)})
    write_text_files(making.source, folder, content, kept)
    write_json(folder / VOCABULARY_FILE, before)
    return {"tokens": len(kept), "of": rows, "occurrences_kept": float(counts[kept].sum() / max(1, counts.sum()))}


def _occurrences(ids: Any, rows: int) -> Any:
    import numpy as np

    return np.bincount(ids, minlength=rows)


def _turn(tokenizer: Any) -> Iterator[int]:
    """The tokens that the chat template adds to a turn of the user."""
    if tokenizer.chat_template is not None:
        yield from tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}], tokenize=True, return_dict=True, add_generation_prompt=True
        )["input_ids"]


def _refuse_unless_same(model: Any, folder: Path, sample: Path) -> None:
    """Raise LimbeckError if the saved model computes something else than the one in memory."""
    some = read_sample(sample)[:1]
    ours, theirs = nats_per_token(model, some), nats_per_token(_load(folder).to(model.device), some)
    if abs(ours - theirs) > 1e-2 * max(1.0, abs(ours)):
        raise LimbeckError(
            f"the saved {type(model).__name__} has a loss of {theirs:.4f} on a document, but {ours:.4f} before it was "
            "saved, so this architecture cannot be changed so; choose another kind of base"
        )
