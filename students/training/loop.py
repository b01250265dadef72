"""The training loop that runs on every worker: load, train from the last complete checkpoint, save. Heavy imports are inside."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.precision import bf16_on
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing, read_object, write_json
from limbeck.students.base.compatibility import compare, end_tokens
from limbeck.students.contract import METRICS_FILE
from limbeck.students.training.config import TrainingConfig
from limbeck.students.training.rows import Row, conversational, read_rows, rendered
from limbeck.students.training.sample_loss import nats_per_token, read_sample
from limbeck.students.training.settings import Settings

_TEXT_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.*", "merges.txt", "*.model"),
    "generation_config.json",
)
_SAMPLED_WEIGHTS = 65_536  # per tensor, to estimate how many moved without a second copy of the model


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train with `config["settings"]`, publish the student's folder, and return the metrics."""
    settings: Settings[TrainingConfig] = config["settings"]
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", WANDB_DISABLED="true")
    started = time.perf_counter()
    from transformers import AutoTokenizer

    from limbeck.students.training import trainer as training

    if settings.config.deepspeed:
        from limbeck.students.training.extensions import build_safely

        build_safely(settings.progress_file if os.environ.get("RANK", "0") == "0" else None)
    imported = time.perf_counter()
    table = read_rows(settings.files)
    warnings = compare(settings.teacher, settings.base, conversational=conversational(table))
    tokenizer = AutoTokenizer.from_pretrained(settings.base, local_files_only=True)
    every = rendered(table, tokenizer, end_tokens(settings.base))
    rows = settings.config.usable(every, settings.teacher_logprobs)
    if len(rows) < len(every):
        warnings.append(f"{len(every) - len(rows)} rows are not trained on, since the teacher gave no distributions of them")
    trainer, left_out = _build(settings, rows, tokenizer)
    checkpoints = settings.training / "checkpoints"
    if trainer.args.should_save:
        training.remove_unfinished(checkpoints)
    trainer.accelerator.wait_for_everyone()
    whole = training.whole_checkpoints(checkpoints)
    before = _sample_weights(trainer.model)
    loaded = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    metrics = {
        **settings.extra,
        "rows": len(rows),
        "rows_too_long": left_out,
        "steps": trainer.state.global_step,
        "resumed_from_step": int(whole[-1].name.removeprefix(training.CHECKPOINT)) if whole else 0,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_curve": losses,
        "tokens": _over_workers(trainer, trainer.forwarded_tokens),
        "import_seconds": imported - started,
        "load_seconds": loaded - imported,
        "train_seconds": trainer.train_seconds,
        "save_seconds": trainer.save_seconds,
        "warnings": warnings,
    }
    if settings.sample is not None:
        metrics["nats_per_token"] = nats_per_token(
            trainer.accelerator.unwrap_model(trainer.model_wrapped), read_sample(settings.sample)
        )
    return _publish(trainer, settings, before, metrics)


def _build(settings: Settings[TrainingConfig], rows: list[Row], tokenizer: Any) -> tuple[Any, int]:
    """The trainer with its model and ordered data, and the number of rows that were too long."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    from limbeck.students.training.trainer import StepEnd

    config = settings.config
    lengths = [len(row.ids) for row in rows]
    order = training_order(lengths, config, settings.seed)
    if not order:
        raise LimbeckError(
            f"every row of the dataset is longer than max_sequence_tokens ({config.max_sequence_tokens}; the shortest has "
            f"{min(lengths)}); raise it or draw shorter candidates"
        )
    # before the arguments: they enable ZeRO 3, under which a model would be loaded in shards for a group that does not exist yet
    model = AutoModelForCausalLM.from_pretrained(settings.base, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    model.config.use_cache = False
    trainer = config.trainer_class()(
        model,
        _arguments(settings),
        train_dataset=Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}),
        processing_class=tokenizer,
        peft_config=_adapters(config),
        settings=settings,
    )
    trainer.train_dataset = trainer.train_dataset.select(order)
    trainer.add_callback(StepEnd(trainer))
    steps = -(-len(order) // config.batch_size)
    trainer.args.warmup_steps = round(config.warmup_fraction * steps)
    return trainer, sum(length > config.max_sequence_tokens for length in lengths)


def training_order(lengths: list[int], config: TrainingConfig, seed: int) -> list[int]:
    """The rows in training order, all epochs in one list; rows that are too long are skipped.

    Each batch is a random draw, and rows are sorted by length only within it: micro-batches then need little padding, and the
    gradient is that of the random batch.
    """
    import numpy as np

    usable = [row for row, length in enumerate(lengths) if length <= config.max_sequence_tokens]
    generator = np.random.default_rng(seed)
    order = [int(row) for _ in range(config.epochs) for row in generator.permutation(usable)]
    batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    return [row for batch in batches for row in sorted(batch, key=lambda row: (-lengths[row], row))]


def _arguments(settings: Settings[TrainingConfig]) -> Any:
    from trl import SFTConfig as TrainerArguments

    config = settings.config
    accumulation = config.batch_size // (config.micro_batch_size * config.workers)
    return TrainerArguments(
        output_dir=str(settings.training / "checkpoints"),
        num_train_epochs=1,  # training_order contains every epoch
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_gradient_norm,
        lr_scheduler_type=config.scheduler,
        optim="adamw_torch" if config.deepspeed else "adamw_torch_fused",
        bf16=bf16_on(config.precision, settings.use_gpu),
        use_cpu=not settings.use_gpu,
        ddp_backend="gloo" if config.workers > 1 and not settings.use_gpu else None,
        ddp_find_unused_parameters=False,
        deepspeed=_deepspeed(config, accumulation, bf16=bf16_on(config.precision, settings.use_gpu)),
        gradient_checkpointing=False,
        max_length=None,  # rows that are too long are skipped, never truncated: a truncated row has no end token
        logging_steps=1,
        save_strategy="no",  # StepEnd requests checkpoints
        seed=settings.seed % 2**32,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=settings.use_gpu,
    )


def _deepspeed(config: TrainingConfig, accumulation: int, *, bf16: bool) -> dict[str, Any] | None:
    """The user's DeepSpeed configuration with the keys that must match our other settings."""
    if config.deepspeed is None:
        return None
    merged = {
        **config.deepspeed,
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.max_gradient_norm,
        "bf16": {"enabled": bf16},
    }
    zero = dict(merged.get("zero_optimization", {}))
    if zero.get("stage") == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # otherwise there is no model to save
    return {**merged, "zero_optimization": zero}


def _adapters(config: TrainingConfig) -> Any:
    if config.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.target_modules),
        task_type="CAUSAL_LM",
    )


def _sample_weights(model: Any) -> dict[str, Any]:
    """Up to 65,536 evenly spaced values of every trainable tensor."""
    return {
        name: parameter.detach().flatten()[:: max(1, parameter.numel() // _SAMPLED_WEIGHTS)].clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _moved_fraction(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Share of the sampled weights that differ, compared in the coarser of the two types (so rounding alone changes none)."""
    moved = total = 0
    for name, old in before.items():
        new = after[name]
        coarser = old.dtype if old.dtype.itemsize <= new.dtype.itemsize else new.dtype
        moved += int((old.to(coarser) != new.to(coarser).to(old.device)).sum())
        total += old.numel()
    return moved / max(1, total)


def _over_workers(trainer: Any, value: int) -> int:
    import torch

    return int(trainer.accelerator.gather(torch.tensor([value], device=trainer.accelerator.device)).sum())


def _publish(trainer: Any, settings: Settings[TrainingConfig], before: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Save the model in the base's dtype with the base's tokenizer files; on rank 0, while all ranks wait."""
    from limbeck.students.training.trainer import disk_errors

    started = time.perf_counter()
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers the ZeRO 3 shards of all workers
    if trainer.args.should_save:
        after = {name: state[name].flatten()[:: max(1, state[name].numel() // _SAMPLED_WEIGHTS)] for name in before}
        metrics["weights_moved_fraction"] = _moved_fraction(before, after)
        with disk_errors(settings.out), publishing(settings.out) as folder:
            folder.mkdir()
            _save_model(trainer, state, settings.base, folder)
            metrics["save_seconds"] += time.perf_counter() - started
            write_json(folder / METRICS_FILE, metrics)
    trainer.accelerator.wait_for_everyone()
    return metrics


def _save_model(trainer: Any, state: dict[str, Any], base: Path, folder: Path) -> None:
    import torch

    settings = read_object(base / "config.json", "choose another model, or restore its folder")
    name = settings.get("dtype") or settings.get("torch_dtype") or "float32"
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
        state = model.state_dict()
    if model.config.tie_word_embeddings:
        for tied in getattr(model, "_tied_weights_keys", None) or ():
            state.pop(tied, None)
    model.config.use_cache = settings.get("use_cache", True)
    model.save_pretrained(folder, state_dict={key: value.to(getattr(torch, name)).contiguous() for key, value in state.items()})
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**saved, "dtype": name}, indent=2) + "\n")
    copy_text_files(base, folder)


def copy_text_files(base: Path, folder: Path) -> None:
    """Copy tokenizer, chat template and generation settings byte for byte: training does not change how a student tokenises."""
    for pattern in _TEXT_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)
