"""Training throughput: useful tokens per second of this project's loop, packed or not, against plain `transformers.Trainer`.

The prompts are those of a finished run's dataset, the completions the candidates of the same sources, so that a prompt may have
one row or several. Every way trains the same model on the same steps of rows from the same weights, one after the other in each
of several runs, in the same dtype. A row's tokens count once as useful however often padding or a shared prompt makes a model
process them. The first step of each training, which warms up, is not timed.

    limbeck run packages --out RUN --set rounds=1
    python benchmarks/training.py RUN --count
    python benchmarks/training.py RUN [--runs 3] [--rows 32] [--model embedded:smollm2-135m-instruct]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.cluster.engines.models import resolve
from limbeck.corpus.parts import read_table
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.sft import SftConfig
from limbeck.students.training import loop
from limbeck.students.training.batches import micro_batches, training_order
from limbeck.students.training.driver import dataset_files
from limbeck.students.training.packing import packed
from limbeck.students.training.progress import Progress
from limbeck.students.training.rows import Row, read_rows, rendered
from limbeck.students.training.settings import Settings

ROWS_PER_PROMPT = {"1": (1,), "1.6": (2, 2, 1, 2, 1), "4": (4,)}  # repeated over the prompts
PACKING: dict[str, Literal["none", "rows", "prompts"]] = {"Trainer": "none", "none": "none", "rows": "rows", "prompts": "prompts"}
BATCH, MICRO = 8, 4


def main() -> None:
    """Print useful tokens per second of every way, for each number of rows per prompt, and the ratio to plain `Trainer`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", action="store_true", help="only count the arithmetic of each way, which takes seconds")
    parser.add_argument("--only", choices=[*ROWS_PER_PROMPT], nargs="*", default=[*ROWS_PER_PROMPT])
    arguments = parser.parse_args()
    model = resolve(arguments.model)
    for each in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "train.parquet"
            write_rows(arguments.run, file, arguments.rows, ROWS_PER_PROMPT[each])
            if arguments.count:
                count(file, model, each)
            else:
                compare(file, model, arguments.runs, each)


def write_rows(run: Path, file: Path, count: int, pattern: Sequence[int]) -> None:
    """Write a dataset of about `count` rows with so many rows per prompt, repeated over the prompts."""
    parts = sorted((run / "rounds/000/candidates").glob("part-*.parquet"))
    drawn: dict[str, list[str]] = {}
    for row in pa.concat_tables([read_table(part).select(["source_id", "output"]) for part in parts]).to_pylist():
        if row["output"] and row["output"].strip():
            drawn.setdefault(row["source_id"], []).append(row["output"])
    first: dict[str, Any] = {}
    for row in read_table(dataset_files(run / "rounds/000/dataset")[0]).select(["source_id", "prompt"]).to_pylist():
        first.setdefault(row["source_id"], row["prompt"])
    usable = [source for source in first if len(drawn.get(source, ())) >= 4][: round(count * len(pattern) / sum(pattern))]
    rows = [
        {"source_id": source, "prompt": first[source], "completion": [{"role": "assistant", "content": output.strip()}]}
        for number, source in enumerate(usable)
        for output in drawn[source][: pattern[number % len(pattern)]]
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)


def count(file: Path, model: Path, each: str) -> None:
    """Print the ratio of useful tokens per floating-point operation to plain `Trainer`: the bound without any overhead.

    Operations: those of the weights per token, of all attention scores in a sequence or segment (causal kernels may skip half of
    them), and of the output layer per position that reaches it.
    """
    from transformers import AutoConfig, AutoTokenizer

    rows = rendered(read_rows([file]), AutoTokenizer.from_pretrained(model), end_tokens(model))
    shape = AutoConfig.from_pretrained(model)
    width, heads = shape.hidden_size, shape.num_attention_heads
    weights = width * (2 * width + 2 * width * shape.num_key_value_heads // heads + 3 * shape.intermediate_size)

    def operations(tokens: int, scores: int, positions: int) -> int:
        layers = shape.num_hidden_layers * (2 * weights * tokens + 4 * width * scores)
        return int(layers + 2 * width * shape.vocab_size * positions)

    drawn = [rows[row] for row in np.random.default_rng(0).permutation(len(rows))]
    groups = [drawn[start : start + MICRO] for start in range(0, len(drawn), MICRO)]
    areas = [(len(group), max(len(row.ids) for row in group)) for group in groups]
    padded = sum(many * longest for many, longest in areas)
    plain = operations(padded, sum(many * longest**2 for many, longest in areas), padded)
    for way in ("none", "rows", "prompts"):
        config = SftConfig(batch_size=BATCH, micro_batch_size=MICRO, packing=PACKING[way])
        total = 0
        for batch in micro_batches(training_order(rows, config, 0), rows, config):
            chosen = [rows[row] for row in batch]
            if way == "none":
                longest = max(len(row.ids) for row in chosen)
                kept = {place for row in chosen for place in range(row.prompt_length - 1, len(row.ids) - 1)}
                total += operations(len(chosen) * longest, len(chosen) * longest**2, len(chosen) * len(kept))
                continue
            segments = packed(chosen, share_prompts=way == "prompts")["segments"]
            scores = sum((one.fork - one.start) ** 2 + (one.stop - one.fork) * (one.stop - one.start) for one in segments)
            learned = sum(len(row.ids) - row.prompt_length for row in chosen)
            total += operations(segments[-1].stop, scores, learned)
        tokens = sum(len(row.ids) for row in rows) / len(rows)
        print(
            f"{each:>4} rows per prompt ({len(rows)} rows of {tokens:.0f} tokens)  {way:>8}  counted {plain / total:.2f}",
            flush=True,
        )


def compare(file: Path, model: Path, runs: int, each: str) -> None:
    """Alternate between plain `Trainer` and the ways to pack, and print the medians."""
    rates: dict[str, list[float]] = {}
    for _ in range(runs):
        for way in (name for name in PACKING if each != "1" or name != "prompts"):
            with tempfile.TemporaryDirectory() as folder:
                config = SftConfig(batch_size=BATCH, micro_batch_size=MICRO, precision="float32", packing=PACKING[way])
                out, training = Path(folder) / "student", Path(folder) / "training"
                settings = Settings(config, (file,), model, model, out, training, 0, use_gpu=False)
                tokens, seconds = train_plain(settings) if way == "Trainer" else train_ours(settings)
            rates.setdefault(way, []).append(tokens / seconds)
            print(f"  {each} rows per prompt, {way}: {tokens} useful tokens in {seconds:.1f} s", flush=True)
    plain = statistics.median(rates["Trainer"])
    for way, found in rates.items():
        middle, spread = statistics.median(found), f"{min(found):.0f} to {max(found):.0f}"
        print(f"{each:>4} rows per prompt  {way:>8}  {middle:7.1f} ({spread}) useful tokens/s  {middle / plain:.2f}")


def train_ours(settings: Settings[SftConfig]) -> tuple[int, float]:
    """Train by this project's loop; returns the useful tokens and seconds of all steps but the first."""
    from limbeck.students.training.steps import Steps

    progress = Progress(settings.progress_file, first_worker=True)
    trainer, _ = loop._build(settings, read_rows(settings.files), progress)
    trainer.add_callback(Steps(trainer, progress, lambda step: None))
    per_step = BATCH // MICRO
    sizes = [sum(len(row.ids) for row in one) for one in trainer.batches]
    return sum(sizes[per_step:]), timed(trainer)


def train_plain(settings: Settings[SftConfig]) -> tuple[int, float]:
    """The same with `transformers.Trainer`: rows in the order drawn, padded to the longest of four, and the model's own loss."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(settings.base)
    rows = rendered(read_rows(settings.files), tokenizer, end_tokens(settings.base))
    order = [int(row) for row in np.random.default_rng(settings.seed).permutation(len(rows))]
    drawn: list[Row] = [rows[row] for row in order]
    model = AutoModelForCausalLM.from_pretrained(settings.base, dtype=torch.float32)
    model.config.use_cache = False
    arguments = TrainingArguments(
        output_dir=str(settings.training),
        num_train_epochs=1,
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO,
        learning_rate=settings.config.learning_rate,
        train_sampling_strategy="sequential",
        optim="adamw_torch_fused",
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    columns = {"input_ids": [row.ids.tolist() for row in drawn], "labels": [row.labels for row in drawn]}
    trainer = Trainer(
        model, arguments, train_dataset=Dataset.from_dict(columns), data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True)
    )
    return sum(len(row.ids) for row in drawn[BATCH:]), timed(trainer)


def timed(trainer: Any) -> float:
    """Train, and return the seconds from the end of the first step to that of the last."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer.add_callback(Clock())
    trainer.train()
    return ends[-1] - ends[0]


if __name__ == "__main__":
    main()
