"""Tiny random models with a byte tokenizer, and the naive computations that the engine is compared with."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.protocol import Pair

END = "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
    "tie_word_embeddings": False,
}
torch.set_num_threads(1)  # the models are so small that threads would only wait for one another
KINDS = ("llama", "qwen2", "gpt2", "mistral")


def model(kind: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model; llama and qwen2 share key heads, mistral has a sliding window (so it cannot be packed)."""
    torch.manual_seed(seed)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES))
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SIZES, use_sliding_window=False))
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8))
    assert kind == "gpt2"
    ends = {"bos_token_id": 256, "eos_token_id": 257}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3, **ends)
    )


def tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes, `<|im_start|>` (256) and `<|im_end|>` (257)."""
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", END])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>", eos_token=END)
    if chat:
        fast.chat_template = TEMPLATE
    return fast


def save(folder: Path, kind: str, seed: int = 0, chat: bool = True) -> Path:
    """Save a random model and the tokenizer to a folder."""
    model(kind, seed).save_pretrained(folder)
    tokenizer(chat).save_pretrained(folder)
    return folder


def build_each(folders: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    """One engine of each kind, in float32; packs are small, so that groups are split over several."""
    return {
        kind: build(TransformersConfig(model=str(save(folders.mktemp(kind), kind)), dtype="float32", pack_tokens=48))
        for kind in KINDS
    }


@functools.cache
def plain_model(folder: Path) -> PreTrainedModel:
    """Load a folder's model with transformers."""
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return loaded


def naive_logprobs(engine: TransformersEngine, pair: Pair) -> npt.NDArray[np.float32]:
    """Score one pair alone: the whole sequence, full logits, log-softmax in float32."""
    encoded = engine.loaded.tokenizer(pair.context + pair.target, return_offsets_mapping=True)
    ids, offsets, begin = list(encoded["input_ids"]), list(encoded["offset_mapping"]), len(pair.context)
    if begin == 0:
        ids, offsets = [256, *ids], [(0, 0), *offsets]
    spans = [(0, len(pair.target))] if pair.spans is None else pair.spans
    wanted = [i for i, (a, b) in enumerate(offsets) if b > begin and any(a < begin + e and b > begin + s for s, e in spans)]
    if not wanted:
        return np.zeros(0, np.float32)
    with torch.no_grad():
        table = torch.log_softmax(plain_model(engine.loaded.folder)(torch.tensor([ids])).logits[0].float(), -1)
    return table[[i - 1 for i in wanted], [ids[i] for i in wanted]].numpy()
