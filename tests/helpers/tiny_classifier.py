"""Classifiers of a few thousand random weights, made for the tests that need one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

WORDS = "the a cat dog bird sat ran on in under mat tree , . ! one two three was not and it very old new Tom Ann".split()
NAMES = ("entailment", "neutral", "contradiction")
MAX_TOKENS = 48

_KINDS: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "deberta-v2": (DebertaV2Config, DebertaV2ForSequenceClassification),
}


def make_classifier(folder: Path, kind: str = "bert", names: Sequence[str] = NAMES, seed: int = 0) -> Path:
    """Save a model of one architecture, with random weights large enough that its answers differ, and a tokenizer."""
    _tokenizer(kind).save_pretrained(folder)
    own: dict[str, Any] = {"type_vocab_size": 2 if kind == "bert" else 1}
    if kind == "deberta-v2":
        own = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
    config_class, model_class = _KINDS[kind]
    config = config_class(
        vocab_size=len(WORDS) + 4,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS + 2,
        pad_token_id=1,
        initializer_range=0.3,
        id2label=dict(enumerate(names)),
        label2id={name: place for place, name in enumerate(names)},
        **own,
    )
    torch.manual_seed(seed)
    model_class(config).save_pretrained(folder)
    return folder


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(special + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = "<s> $A </s> </s> $B </s>" if kind == "roberta" else "<s> $A </s> $B:1 </s>:1"
    ends = [("<s>", 0), ("</s>", 2)]
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=ends)
    words.enable_truncation(8)  # as in saved sentence encoders; it must not apply to the pairs
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask", *(["token_type_ids"] if kind != "roberta" else [])],
    )
