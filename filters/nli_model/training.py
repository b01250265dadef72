"""Fine-tuning a small sentence encoder into a three-way NLI classifier on a CPU, in minutes."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.precision import bf16_on
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require
from limbeck.corpus.parts import make_folder, publishing
from limbeck.corpus.seeds import derive_id
from limbeck.filters.nli_model import card as nli_card
from limbeck.filters.nli_model import evaluation as nli_evaluation
from limbeck.filters.nli_model.pairs import LABELS, counts, make_pairs
from limbeck.filters.nli_model.rules import NliPair
from limbeck.filters.nli_model.schemata import held_out_schemata, trained_schemata, written_pairs

_MAX_TOKENS = 256  # per row; the encoder has positions for 512, but its inputs are short
_NEW_RATE = 4  # learning-rate factor of the new layers
_CHECKPOINT_SECONDS = 20.0
_HELD_OUT = 12  # one of this many documents is held out for the accuracy on generated pairs
_WIDE = 512  # encoders with wider layers than this are trained at a lower rate, as usual
_RATES = (1e-4, 5e-5)
_HELD_OUT_WRITTEN = 1_000


@dataclass(frozen=True)
class NliTraining:
    """What is trained and for how long; `pairs` (made from the corpus) is a target, the corpus may yield fewer.

    `written` pairs come from the written schemata. `learning_rate` None: by the width of the encoder.
    """

    encoder: str = "embedded:all-minilm-l6-v2"
    pairs: int = 8_000
    written: int = 12_000
    epochs: int = 2
    batch: int = 16
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """Progress reported to a callback: pairs done and in total, the loss (mean of the last steps), and pairs per second."""

    done: int
    total: int
    loss: float
    pairs_per_second: float


Report = Callable[[Step], None]


@dataclass(frozen=True)
class Checkpoint:
    """Where an unfinished training stores its state, beside its output; `fingerprint` identifies the training."""

    path: Path
    fingerprint: str

    def save(self, state: Mapping[str, Any], step: int, loss: float, seconds: float) -> None:
        """Atomically write the state after `step` steps and `seconds` of training."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        states = {name: part.state_dict() for name, part in state.items()}
        torch.save({"fingerprint": self.fingerprint, "step": step, "loss": loss, "seconds": seconds, **states}, temporary)
        os.replace(temporary, self.path)

    def load(self, state: Mapping[str, Any]) -> tuple[int, float, float]:
        """Restore the saved state of the same training; return its steps, loss and seconds, or 0, NaN, 0."""
        import torch

        if not self.path.exists():
            return 0, float("nan"), 0.0
        saved = torch.load(self.path, weights_only=True)
        if saved["fingerprint"] != self.fingerprint:
            return 0, float("nan"), 0.0
        for name, part in state.items():
            part.load_state_dict(saved[name])
        return int(saved["step"]), float(saved["loss"]), float(saved["seconds"])


def train_nli(documents: Sequence[str], origin: str, training: NliTraining, out: Path, report: Report) -> dict[str, Any]:
    """Make pairs from documents, fine-tune, evaluate, and atomically publish the model folder; return the figures.

    `origin` describes the documents in the model card. After an interruption the same call resumes from the last checkpoint
    beside `out` (written every 20 s). Raises LimbeckError if `out` exists, the encoder is missing, or there are too few
    documents. Memory: four times the model in float32 (360 MB for MiniLM).
    """
    check_out(out)
    require("training an NLI model", "local")
    encoder = resolve(training.encoder)
    several = len(documents) >= 2 * _HELD_OUT
    held_out = documents[::_HELD_OUT] if several else []
    kept = [document for place, document in enumerate(documents) if place % _HELD_OUT or not several]
    made = make_pairs(kept, training.pairs, training.seed)
    pairs = [*made, *written_pairs(trained_schemata(), training.written, training.seed)]
    held = {
        "held_out": _held_out(held_out, pairs, training),
        "held_out_written": written_pairs(held_out_schemata(), _HELD_OUT_WRITTEN, training.seed),
    }
    model, tokenizer = _load(encoder, training.seed)
    if training.learning_rate is None:
        training = replace(training, learning_rate=_RATES[model.config.hidden_size > _WIDE])
    checkpoint = Checkpoint(out.with_name(f".{out.name}.checkpoint.pt"), derive_id(repr(training), repr(pairs)))
    loss, seconds = _fit(model, tokenizer, pairs, len(made), training, checkpoint, report)
    figures: dict[str, Any] = {
        "encoder": training.encoder,
        "corpus": origin,
        "documents": len(documents),
        "training": asdict(training),
        "pairs": counts(pairs),
        "final_loss": round(loss, 4),
        "train_seconds": round(seconds, 1),
    }
    with publishing(out, once="choose another --out") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        figures |= _measures(folder, pairs, held, training.seed)
        (folder / "README.md").write_text(nli_card.model_card(figures), encoding="utf-8")
    checkpoint.path.unlink(missing_ok=True)
    return figures


def check_out(out: Path) -> None:
    """Raise LimbeckError if `out` exists, since a finished model is never overwritten, or if its folder cannot be created."""
    if out.exists():
        raise LimbeckError(f"{out} exists already; use it as it is, delete it, or choose another --out")
    make_folder(out.parent, out)


def _held_out(documents: Sequence[str], pairs: Sequence[NliPair], training: NliTraining) -> list[NliPair]:
    """Pairs from held-out documents, without texts that are trained on; empty if there are too few."""
    known = {text for pair in pairs for text in (pair.premise, pair.hypothesis)}
    try:
        made = make_pairs(documents, max(60, len(pairs) // 10), training.seed)
    except LimbeckError:
        return []
    return [pair for pair in made if pair.premise not in known and pair.hypothesis not in known]


def _measures(folder: Path, pairs: Sequence[NliPair], held: Mapping[str, Sequence[NliPair]], seed: int) -> dict[str, Any]:
    """Evaluate the saved model and the baseline on the test set, and the model on the sets of held-out pairs."""
    from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig

    judge = ClassifierConfig(model=str(folder), dtype="float32", device="cpu").load().probabilities
    words = nli_evaluation.bag_of_words(pairs, seed)
    found = {}
    for name in nli_evaluation.SETS:
        test = nli_evaluation.test_pairs(name)
        found[name] = nli_evaluation.measure(judge, test).as_json()
        found[f"{name}_baseline"] = nli_evaluation.measure(words, test).as_json()
    return found | {name: nli_evaluation.measure(judge, rows).as_json() for name, rows in held.items() if rows}


def _load(encoder: Path, seed: int) -> tuple[Any, Any]:
    """The encoder with a new head of three named classes, in float32, and its tokenizer without truncation or padding.

    Word embeddings are frozen and dropout is disabled: training the former, or the latter, would nearly double the time of a
    step on a CPU. Frozen embeddings also keep words that no pair contains consistent with the others.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from limbeck.cluster.engines.scoring_models.classifier import quietly

    torch.manual_seed(seed)
    names = dict(enumerate(LABELS))
    settings = {"id2label": names, "label2id": {label: number for number, label in names.items()}, "num_labels": len(names)}
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    try:
        with quietly():
            model = AutoModelForSequenceClassification.from_pretrained(
                encoder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **settings
            )
        tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise LimbeckError(f"{encoder} cannot be trained as a classifier: {first_line}") from error
    model.get_input_embeddings().requires_grad_(False)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = min(_MAX_TOKENS, model.config.max_position_embeddings)
    return model, tokenizer


def _fit(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[NliPair],
    made: int,
    training: NliTraining,
    checkpoint: Checkpoint,
    report: Report,
) -> tuple[float, float]:
    """Train with AdamW on float32 weights under bfloat16 autocast; return the last mean loss, and seconds.

    The first `made` pairs, which rules made, are trained on once before the epochs over all pairs: an encoder that never compared
    two texts learns it from easy pairs, but can stay at chance on the written ones (DECISIONS.md).
    """
    import torch

    rows = _encode(tokenizer, pairs)
    first = list(_batches(rows[:made], training, 0)) if made < len(rows) else []
    later = [batch for epoch in range(training.epochs) for batch in _batches(rows, training, 1 + epoch)]
    batches = [*first, *later][: training.max_steps]
    total = sum(map(len, batches))
    share = torch.tensor([sum(pair.label == label for pair in pairs) / len(pairs) for label in LABELS])
    loss_of = torch.nn.CrossEntropyLoss(weight=1 / (len(LABELS) * share.clamp(min=1e-3)), label_smoothing=0.05)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(_groups(model, training), fused=True)
    warmup = max(1, math.ceil(training.warmup * len(batches)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(batches) - step) / max(1, len(batches) - warmup))
    )
    bfloat16 = bf16_on("auto", use_gpu=False)
    model.train()
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    begun, smooth, earlier = checkpoint.load(state)
    before = done = sum(map(len, batches[:begun]))
    started = saved = time.perf_counter()
    for step, batch in enumerate(batches[begun:], begun + 1):
        given, labels = _tensors([rows[place] for place in batch], tokenizer)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(**given).logits
        loss = loss_of(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise LimbeckError(f"the loss is {value} after {done} pairs; use a lower --learning-rate")
        smooth = value if math.isnan(smooth) else 0.95 * smooth + 0.05 * value
        done += len(batch)
        if (now := time.perf_counter()) - saved > _CHECKPOINT_SECONDS:
            checkpoint.save(state, step, smooth, earlier + now - started)
            saved = now
        report(Step(done, total, smooth, (done - before) / (now - started)))
    model.eval()
    return smooth, earlier + time.perf_counter() - started


def _groups(model: Any, training: NliTraining) -> list[dict[str, Any]]:
    """Weight decay applies to matrices only; layers above the encoder are new and have a higher learning rate."""
    assert training.learning_rate is not None
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            new = name.startswith("classifier") or ".pooler." in name
            groups.setdefault((new, weight.dim() > 1), []).append(weight)
    return [
        {
            "params": weights,
            "lr": training.learning_rate * (_NEW_RATE if new else 1),
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for (new, decays), weights in groups.items()
    ]


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    types: list[int]
    label: int


def _encode(tokenizer: Any, pairs: Sequence[NliPair]) -> list[_Row]:
    texts = [(pair.premise, pair.hypothesis) for pair in pairs]
    encoded = tokenizer(texts, truncation="longest_first", max_length=tokenizer.model_max_length, return_token_type_ids=True)
    labels = [LABELS.index(pair.label) for pair in pairs]
    return [_Row(*row) for row in zip(encoded["input_ids"], encoded["token_type_ids"], labels, strict=True)]


def _batches(rows: Sequence[_Row], training: NliTraining, epoch: int) -> Iterator[list[int]]:
    """The rows of one epoch in batches of similar length, in a new random order."""
    draw = Random(training.seed * 1000 + epoch)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids) + 6 * draw.random())
    batches = [order[start : start + training.batch] for start in range(0, len(order), training.batch)]
    draw.shuffle(batches)
    yield from batches


def _tensors(rows: Sequence[_Row], tokenizer: Any) -> tuple[dict[str, Any], Any]:
    """What the model takes (MPNet and RoBERTa have no types), and the labels."""
    import torch

    padding = tokenizer.pad_token_id
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [padding] * (longest - len(row.ids)) for row in rows])
    types = torch.tensor([row.types + [0] * (longest - len(row.types)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    labels = torch.tensor([row.label for row in rows])
    typed = {"token_type_ids": types} if "token_type_ids" in tokenizer.model_input_names else {}
    return {"input_ids": ids, "attention_mask": mask, **typed}, labels
