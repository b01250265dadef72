"""A randomly initialised chat model of two layers with its own tokenizer, and datasets for it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
TEXT = "the a small red green still boils water slowly and drips clear spirit into glass flasks until morning comes"
WORDS = TEXT.split(" ")


def sentence(seed: int, length: int) -> str:
    """Words in an order that depends on the seed."""
    return " ".join(WORDS[(seed * 7 + step * (1 + seed % 5)) % len(WORDS)] for step in range(length))


def make_model(folder: Path, layers: int = 2, template: str | None = TEMPLATE, dtype: str = "float32", **settings: Any) -> Path:
    """Save a random Llama with a byte-level tokenizer and return its folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<|pad|>", "<|start|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([sentence(seed, 12) for seed in range(20)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = template
    end = tokenizer.eos_token_id
    config = LlamaConfig(
        **{
            "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None, "tie_word_embeddings": True, **settings,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_dataset(folder: Path, rows: int = 24, conversational: bool = True, longest: int = 12) -> Path:
    """Write a Hugging Face folder of prompts and completions of unequal lengths."""
    prompts: list[Any] = [f"Say {sentence(row, 3 + row % longest)}" for row in range(rows)]
    completions: list[Any] = [sentence(row + 1, 2 + row % 4) for row in range(rows)]
    if conversational:
        prompts = [[{"role": "user", "content": text}] for text in prompts]
        completions = [[{"role": "assistant", "content": text}] for text in completions]
    else:
        completions = [" " + text for text in completions]
    (folder / "data").mkdir(parents=True)
    pq.write_table(
        pa.table({"prompt": prompts, "completion": completions, "candidate_id": [str(row) for row in range(rows)]}),
        folder / "data" / "train-00000-of-00001.parquet",
    )
    return folder
