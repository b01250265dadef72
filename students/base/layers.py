"""A smaller student from the teacher's layers: the least important are dropped one by one, and the rest is healed.

Importance is the loss on a sample of documents without the layer; the remaining layers are measured again after each removal
(greedily, as in SLEB: Song et al. 2024, arXiv:2402.09025). Neighbouring layers are redundant with each other, which a single
measurement, or dropping evenly spaced layers, does not account for. Perplexity before and after is only reported.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.cluster.training import Placement, fit
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing, read_object, read_parts, write_json, write_table
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.students.base.config import HealingConfig, LayersBase
from limbeck.students.contract import METRICS_FILE
from limbeck.students.sft import SftConfig
from limbeck.students.training import loop
from limbeck.students.training.sample_loss import batches, nats_per_token, read_sample, summed_loss
from limbeck.students.training.settings import PROGRESS_FILE, Settings

REPORT_FILE = "layers.json"


@dataclass(frozen=True)
class Choice:
    """What a worker needs to choose layers; travels by pickle."""

    config: LayersBase
    teacher: Path
    sample: Path  # Parquet file with a column input_ids
    out: Path
    use_gpu: bool


def prepare(
    config: LayersBase, teacher: Path, documents: Path | None, training: Path, seed: int, placement: Placement
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the smaller model, made in `training` unless it exists, and a report.

    The report: kept, dropped (in the order of removal), nats_per_token_{teacher, cut, healed} on the sample, healing (metrics
    of the training on raw text). Raises LimbeckError if there are too few layers or documents.
    """
    sample, text, cut = training / "sample.parquet", training / "raw-text.parquet", training / "cut"
    if documents is None:
        raise LimbeckError("a base of kind layers needs the run's sources; give their folder")
    if not (sample.exists() and text.exists()):
        _write_tokens(config, teacher, documents, sample, text)
    if not cut.exists():
        fit(choose, {"choice": Choice(config, teacher, sample, cut, placement.use_gpu)}, 1, placement, training)
    report = read_object(cut / REPORT_FILE)
    if config.healing is None:
        return cut, report
    healed = training / "healed"
    if not healed.exists():
        settings = Settings(
            config=_healing(config.healing),
            files=(text,),
            teacher=teacher,
            base=cut,
            out=healed,
            training=training / "healing",
            progress=training / PROGRESS_FILE,
            seed=seed,
            use_gpu=placement.use_gpu,
            sample=sample,
        )
        fit(loop.run, {"settings": settings}, 1, placement, training)
    metrics = read_object(healed / METRICS_FILE)
    return healed, {**report, "nats_per_token_healed": metrics.pop("nats_per_token"), "healing": metrics}


def choose(config: dict[str, Any]) -> dict[str, Any]:
    """Drop the least important layers of the teacher and publish the cut model with its report (runs on a worker)."""
    from transformers import AutoModelForCausalLM

    choice: Choice = config["choice"]
    model = AutoModelForCausalLM.from_pretrained(choice.teacher, dtype="auto", use_safetensors=True, local_files_only=True)
    model = model.to("cuda" if choice.use_gpu else "cpu").eval()
    sample = read_sample(choice.sample)
    whole = nats_per_token(model, sample)
    dropped = drop_layers(model, sample, choice.config.layers, choice.sample.parent / PROGRESS_FILE)
    report = {
        "kept": [layer for layer in range(len(dropped) + choice.config.layers) if layer not in dropped],
        "dropped": dropped,
        "nats_per_token_teacher": whole,
        "nats_per_token_cut": nats_per_token(model, sample),
    }
    with publishing(choice.out) as folder:
        model.save_pretrained(folder)
        loop.copy_text_files(choice.teacher, folder)
        write_json(folder / REPORT_FILE, report)
    return report


def drop_layers(model: Any, sample: list[list[int]], keep: int, progress: Path) -> list[int]:
    """Remove layers in place until `keep` are left; return the removed ones' original indices in the order of removal.

    After each removal the progress is written to `progress`. O(removed × layers) passes over the sample, each only through the
    layers after the one that is tried.
    """
    import torch

    layers = _layers(model)
    if keep > len(layers):
        raise LimbeckError(f"the teacher has {len(layers)} layers, fewer than the {keep} to keep; lower base.layers")
    left, dropped = list(range(len(layers))), []
    while len(left) > keep:
        losses = _losses_without(model, [layers[index] for index in left], sample)
        least = min(range(len(left)), key=losses.__getitem__)
        dropped.append(left.pop(least))
        done = {"unit": "layer", "step": len(dropped), "steps": len(layers) - keep, "loss": losses[least]}
        write_json(progress, done, replace=True)
    model.base_model.layers = torch.nn.ModuleList(layers[index] for index in left)
    for position, layer in enumerate(model.base_model.layers):
        if hasattr(layer, "self_attn"):
            layer.self_attn.layer_idx = position  # its position in the key-value cache
    settings = model.config.get_text_config()
    if getattr(settings, "layer_types", None):
        settings.layer_types = settings.layer_types[:keep]  # all of one kind, as _layers has checked
    settings.num_hidden_layers = keep
    return dropped


def _losses_without(model: Any, layers: list[Any], sample: list[list[int]]) -> list[float]:
    """For each layer, the summed loss when only it is skipped; the layers before it are computed once."""
    import torch

    body, losses = model.base_model, [0.0] * len(layers)
    with torch.inference_mode():
        for ids, labels in batches(sample, model.device):
            entering: list[Any] = []
            hooks = [layer.register_forward_pre_hook(lambda _, given, into=entering: into.append(given[0])) for layer in layers]
            body.layers = torch.nn.ModuleList(layers)
            body(input_ids=ids, use_cache=False)
            for hook in hooks:
                hook.remove()
            for skipped in range(len(layers)):
                body.layers = torch.nn.ModuleList([_replay(entering[skipped]), *layers[skipped + 1 :]])
                losses[skipped] += summed_loss(model, body(input_ids=ids, use_cache=False).last_hidden_state, labels)
    return losses


def _replay(hidden: Any) -> Any:
    """A layer that returns precomputed hidden states. [batch, tokens, width]"""
    import torch

    class Replay(torch.nn.Module):
        def forward(self, *_: Any, **__: Any) -> Any:
            return hidden

    return Replay()


def _layers(model: Any) -> list[Any]:
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise LimbeckError(
            f"{type(model).__name__} is an unsupported architecture: no `.layers` list; choose another kind of base"
        )
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if len(kinds) > 1:
        raise LimbeckError(
            f"{type(model).__name__} mixes layers of several kinds ({', '.join(sorted(kinds))}); choose another kind of base"
        )
    return list(layers)


def _healing(healing: HealingConfig) -> SftConfig:
    return SftConfig(
        learning_rate=healing.learning_rate,
        batch_size=healing.batch_size,
        micro_batch_size=max(size for size in (1, 2, 4) if healing.batch_size % size == 0),
        max_sequence_tokens=healing.sequence_tokens,
    )


def _write_tokens(config: LayersBase, teacher: Path, documents: Path, sample: Path, text: Path) -> None:
    """Write the sample's tokens, and the other train documents' tokens in sequences for healing; no document is in both."""
    tokenizer = Tokenizer.load(teacher)
    sources = read_parts(documents, SOURCES).to_pylist()
    usable = [row["document"] for row in sources if row["split"] == "train" and row["reason"] is None]
    rows = [tokenizer.backend.encode(document, add_special_tokens=False).ids for document in usable]
    rows = [row for row in rows if len(row) > 1]
    healing = config.healing
    if len(rows) < config.sample + (healing is not None):
        raise LimbeckError(
            f"choosing layers needs {config.sample} train documents for the sample and more for healing, but there are "
            f"{len(rows)}; lower base.sample or add documents"
        )
    sequences: list[list[int]] = []
    if healing is not None:
        stream = _joined(rows[config.sample :], _end_token(teacher), healing.tokens)
        sequences = [stream[start : start + healing.sequence_tokens] for start in range(0, len(stream), healing.sequence_tokens)]
    tokens = pa.schema([pa.field("input_ids", pa.list_(pa.int64()))])
    write_table(sample, pa.table({"input_ids": [row[: config.sample_tokens] for row in rows[: config.sample]]}, schema=tokens))
    write_table(text, pa.table({"input_ids": [row for row in sequences if len(row) > 1]}, schema=tokens))


def _joined(rows: list[list[int]], end: list[int], most_tokens: int) -> list[int]:
    stream: list[int] = []
    for row in rows:
        if len(stream) >= most_tokens:
            break
        stream += row + end
    return stream[:most_tokens]


def _end_token(teacher: Path) -> list[int]:
    file = teacher / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    end = settings.get("text_config", settings).get("eos_token_id")
    return [] if end is None else [end] if isinstance(end, int) else list(end[:1])
