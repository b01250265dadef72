"""The training loop that runs on every worker: load, train from the last complete checkpoint, save. Heavy imports are inside."""

import copy
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.cluster.engines.precision import bf16_on
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing, read_object, write_json
from limbeck.students.base.compatibility import compare, end_tokens
from limbeck.students.base.text_files import copy_text_files
from limbeck.students.contract import METRICS_FILE
from limbeck.students.training import tracking
from limbeck.students.training.batches import by_length, micro_batches, training_order
from limbeck.students.training.config import TrainingConfig
from limbeck.students.training.held_out import HeldOutLoss, lowest, rise, split
from limbeck.students.training.progress import Progress
from limbeck.students.training.rows import Row, conversational, read_rows, rendered
from limbeck.students.training.sample_loss import nats_per_token, read_sample
from limbeck.students.training.settings import Settings
from limbeck.students.training.step_log import METRICS_LOG

BEST = "best"
_SAMPLED_WEIGHTS = 65_536  # per tensor, to estimate how many moved without a second copy of the model


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train with `config["settings"]`, publish the student's folder, and return the metrics."""
    settings: Settings[TrainingConfig] = config["settings"]
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    progress = Progress(settings.progress_file, first_worker=_first_worker())
    started = time.perf_counter()
    progress.words("importing the training libraries")
    _prepare_libraries(settings)
    from limbeck.students.training import trainer as training
    from limbeck.students.training.steps import Steps, over_workers

    imported = time.perf_counter()
    table = read_rows(settings.files)
    warnings = compare(settings.teacher, settings.base, conversational=conversational(table))
    trainer, counts = _build(settings, table, progress)
    checkpoints, best = settings.training / "checkpoints", settings.training / BEST
    if trainer.args.should_save:
        training.remove_unfinished(checkpoints)
    trainer.accelerator.wait_for_everyone()
    whole = training.whole_checkpoints(checkpoints)
    resumed = int(whole[-1].name.removeprefix(training.CHECKPOINT)) if whole else 0
    before = _sample_weights(trainer.model)
    steps = Steps(trainer, progress, lambda step: _save_best(trainer, settings, before, best / f"step-{step}"))
    trainer.add_callback(steps)
    loaded = time.perf_counter()
    progress.words(f"loading the checkpoint of step {resumed}" if whole else "starting the first step")
    trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    words = rise(steps.measured, best_is_kept=settings.config.keep_best) if steps.measured else None
    metrics = {
        **settings.extra,
        **counts,
        **trainer.own_metrics(),
        "steps": trainer.state.global_step,
        "resumed_from_step": resumed,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_curve": losses,
        **_held_out_metrics(steps.measured, settings.config),
        "tokens": over_workers(trainer, trainer.tokens),
        "import_seconds": imported - started,
        "load_seconds": loaded - imported,
        "train_seconds": trainer.train_seconds,
        "save_seconds": trainer.save_seconds,
        "eval_seconds": steps.eval_seconds,
        "warnings": [*warnings, *_without_teacher(counts), *([words] if words else [])],
    }
    if settings.sample is not None:
        progress.words("measuring the loss on the sample")
        metrics["nats_per_token"] = nats_per_token(
            trainer.accelerator.unwrap_model(trainer.model_wrapped), read_sample(settings.sample)
        )
    progress.words("saving the student")
    chosen = best / f"step-{lowest(steps.measured).step}" if settings.config.keep_best else None
    return _publish(trainer, settings, before, metrics, chosen)


def _first_worker() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _prepare_libraries(settings: Settings[TrainingConfig]) -> None:
    """Import what takes seconds; raises LimbeckError if the package of an experiment tracker is missing here."""
    if (words := tracking.missing(settings.config.report_to)) is not None:
        raise LimbeckError(f"student.{words}")
    tracking.prepare(settings.config.report_to, settings.out.parent / "tracking")
    import transformers  # noqa: F401

    if settings.config.deepspeed:
        from limbeck.students.training.extensions import build_safely

        build_safely(settings.progress_file if _first_worker() else None)


def _without_teacher(counts: dict[str, int]) -> list[str]:
    without = counts.get("rows_without_teacher", 0)
    return [f"{without} rows are not trained on, since the teacher gave no distributions of them"] if without else []


def _held_out_metrics(measured: list[HeldOutLoss], config: TrainingConfig) -> dict[str, Any]:
    if not measured:
        return {}
    best = lowest(measured)
    return {
        "held_out_loss_first": measured[0].mean,
        "held_out_loss_last": measured[-1].mean,
        "held_out_loss_best": best.mean,
        "held_out_best_step": best.step,
        "held_out_curve": [[one.step, one.mean] for one in measured],
        "published_step": best.step if config.keep_best else measured[-1].step,
    }


def _build(settings: Settings[TrainingConfig], table: pa.Table, progress: Progress) -> tuple[Any, dict[str, int]]:
    """The trainer with its model and its rows in batches, and the numbers of rows: all, too long, held out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = settings.config
    progress.words(f"tokenising {len(table)} rows")
    tokenizer = AutoTokenizer.from_pretrained(settings.base, local_files_only=True)
    rows = rendered(table, tokenizer, end_tokens(settings.base))
    usable = config.usable(rows, settings.teacher_logprobs)
    table, rows, without = table.take(usable), [rows[place] for place in usable], len(rows) - len(usable)
    trained, held = _split(table, rows, settings)
    order = training_order(trained, config, settings.seed)
    progress.words(f"loading the model {settings.base.name}")
    # before the arguments: they enable ZeRO 3, under which a model would be loaded in shards for a group that does not exist yet
    model = AutoModelForCausalLM.from_pretrained(settings.base, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    model.config.use_cache = False
    if config.packing != "none":
        from limbeck.students.training import packing

        packing.use(model, max(len(row.ids) for row in trained if len(row.ids) <= config.max_sequence_tokens))
    trainer = config.trainer_class()(
        model,
        _arguments(settings),
        settings=settings,
        batches=[[trained[row] for row in batch] for batch in micro_batches(order, trained, config)],
        held_out=by_length(held, config.micro_batch_size),
        processing_class=tokenizer,
        peft_config=_adapters(config),
    )
    steps = -(-len(order) // config.batch_size)
    trainer.args.warmup_steps = round(config.warmup_fraction * steps)
    too_long = sum(len(row.ids) > config.max_sequence_tokens for row in rows)
    counts = {"rows": len(rows), "rows_too_long": too_long, **({"rows_without_teacher": without} if without else {})}
    return trainer, counts if config.held_out is None else {**counts, "rows_held_out": len(held)}


def _split(table: pa.Table, rows: list[Row], settings: Settings[TrainingConfig]) -> tuple[list[Row], list[Row]]:
    """The rows to train on, those that are too long included, and the held-out rows that are not too long."""
    share, most = settings.config.held_out, settings.config.max_sequence_tokens
    trained, held = (list(range(len(rows))), []) if share is None else split(table, share, settings.seed)
    for kind, chosen in (("row", trained), ("held-out row", held)):
        shortest = min((len(rows[number].ids) for number in chosen), default=0)
        if shortest > most:
            raise LimbeckError(
                f"every {kind} of the dataset is longer than max_sequence_tokens ({most}; the shortest has {shortest}); raise "
                "it or draw shorter candidates"
            )
    return [rows[number] for number in trained], [rows[number] for number in held if len(rows[number].ids) <= most]


def _arguments(settings: Settings[TrainingConfig]) -> Any:
    from trl import SFTConfig as TrainerArguments

    config = settings.config
    accumulation = config.batch_size // (config.micro_batch_size * config.workers)
    return TrainerArguments(
        output_dir=str(settings.training / "checkpoints"),
        num_train_epochs=1,  # the batches are those of every epoch
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        per_device_train_batch_size=1,  # an item of the dataset is a micro-batch
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
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
        save_strategy="no",  # Steps requests checkpoints
        seed=settings.seed % 2**32,
        report_to=list(config.report_to),
        run_name=settings.out.parent.name,
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
        "train_batch_size": accumulation * config.workers,  # items of the dataset, which are micro-batches
        "train_micro_batch_size_per_gpu": 1,
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


def _publish(
    trainer: Any, settings: Settings[TrainingConfig], before: dict[str, Any], metrics: dict[str, Any], best: Path | None = None
) -> dict[str, Any]:
    """Publish the model with its metrics and the tokenizer files of its base; on rank 0, while all ranks wait.

    The weights are those of `best`, a folder of `_save_best`, or without it the current ones.
    """
    from limbeck.students.training.trainer import disk_errors

    started = time.perf_counter()
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if best is None else {}  # gathers the shards of ZeRO 3
    if trainer.args.should_save:
        with disk_errors(settings.out), publishing(settings.out) as folder:
            if best is None:
                folder.mkdir()
                metrics["weights_moved_fraction"] = _moved_fraction(before, _sampled(state, before))
                _save_model(trainer.accelerator.unwrap_model(trainer.model_wrapped), state, settings.base, folder)
            else:
                shutil.copytree(best, folder)
                metrics |= read_object(best / METRICS_FILE)
            metrics["save_seconds"] += time.perf_counter() - started
            log = settings.training / METRICS_LOG
            if log.exists():
                shutil.copyfile(log, folder / METRICS_LOG)
            write_json(folder / METRICS_FILE, metrics, replace=True)
    trainer.accelerator.wait_for_everyone()
    return metrics


def _save_best(trainer: Any, settings: Settings[TrainingConfig], before: dict[str, Any], out: Path) -> None:
    """Save the current weights as a student without changing the trained model, and delete saved ones that are not needed."""
    from limbeck.students.training.steps import outdated, step_of
    from limbeck.students.training.trainer import disk_errors, whole_checkpoints

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.args.should_save:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        merged = copy.deepcopy(model) if settings.config.lora is not None else model  # merging changes the weights
        shutil.rmtree(out, ignore_errors=True)  # of a training that was killed after it
        with disk_errors(out), publishing(out) as folder:
            folder.mkdir()
            write_json(folder / METRICS_FILE, {"weights_moved_fraction": _moved_fraction(before, _sampled(state, before))})
            _save_model(merged, state, settings.base, folder)
        model.config.use_cache = False
        checkpoints = whole_checkpoints(settings.training / "checkpoints")
        for old in outdated(out.parent, step_of(checkpoints[-1]) if checkpoints else 0):
            shutil.rmtree(old)
    trainer.accelerator.wait_for_everyone()


def _sampled(state: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """The same values of a state as `_sample_weights` takes."""
    return {name: state[name].flatten()[:: max(1, state[name].numel() // _SAMPLED_WEIGHTS)] for name in like}


def _save_model(model: Any, state: dict[str, Any], base: Path, folder: Path) -> None:
    """Save a model in the base's dtype with the base's tokenizer files. Adapters are merged into it."""
    import torch

    settings = read_object(base / "config.json", "choose another model, or restore its folder")
    name = settings.get("dtype") or settings.get("torch_dtype") or "float32"
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
