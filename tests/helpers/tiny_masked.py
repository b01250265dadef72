"""Tiny random masked language models (T5, BERT, RoBERTa) with tokenizers made on the spot, and the naive computation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

torch.set_num_threads(1)  # the models are so small that threads would only wait for one another
KINDS = ("t5", "bert", "roberta")
SENTENCES = [
    "Quern reads weather files and draws their curves.",
    "A fast parser of YAML that keeps comments in place.",
    "The library signs requests, retries them, and counts every failure.",
    "It never stops turning, whatever the weather is.",
]
SENTINELS = 6
LENGTHS = {"t5": 128, "bert": 96, "roberta": 96}


def save(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a random model and its tokenizer to a folder."""
    tokenizer = make_tokenizer(kind)
    torch.manual_seed(seed)
    make_model(kind, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """WordPiece with [CLS] a [SEP] b [SEP], byte-level BPE with <s> a </s></s> b </s>, or Unigram with a </s>."""
    if kind == "bert":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        backend.train_from_iterator(
            SENTENCES, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
        )
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=LENGTHS[kind], **names)
    if kind == "roberta":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
        backend.train_from_iterator(SENTENCES, trainer)
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>"}
        return PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    assert kind == "t5"
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    sentinels = [f"<extra_id_{number}>" for number in range(SENTINELS)]
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, additional_special_tokens=sentinels, model_max_length=LENGTHS[kind], **names
    )


def make_model(kind: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A model of two layers with large random weights, so that every token matters."""
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "initializer_range": 0.3}
    if kind == "bert":
        return BertForMaskedLM(BertConfig(**sizes, max_position_embeddings=LENGTHS[kind], type_vocab_size=2))
    if kind == "roberta":
        ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        return RobertaForMaskedLM(RobertaConfig(**sizes, max_position_embeddings=LENGTHS[kind] + 2, type_vocab_size=1, **ends))
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
        initializer_factor=1.3,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


class Naive:
    """One text at a time through the plain model, with the whole vocabulary at every position."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        loader = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForMaskedLM
        self.model = loader.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def logprobs(self, condition: str, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """The log-probability of each hidden token."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        hidden = [any(a < end and b > start for start, end in spans) for a, b in offsets]
        before = self.tokenizer(condition, add_special_tokens=False)["input_ids"]
        return self._infill(before, ids, hidden) if self.kind == "t5" else self._fill(before, ids, hidden)

    def _fill(self, before: list[int], ids: list[int], hidden: list[bool]) -> list[float]:
        cls, sep, mask = (self.tokenizer.convert_tokens_to_ids(token) for token in self._names())
        shown = [mask if hide else token for token, hide in zip(ids, hidden, strict=True)]
        between = [sep, sep] if self.kind == "roberta" else [sep]
        head = [cls, *before, *between] if before else [cls]
        row = torch.tensor([[*head, *shown, sep]])
        extra = {}
        if self.kind == "bert":
            extra["token_type_ids"] = torch.tensor([[0] * len(head) + [int(bool(before))] * (len(shown) + 1)])
        table = torch.log_softmax(self.model(row, **extra).logits[0], -1)
        return [float(table[len(head) + i, token]) for i, token in enumerate(ids) if hidden[i]]

    def _names(self) -> tuple[str, str, str]:
        return ("[CLS]", "[SEP]", "[MASK]") if self.kind == "bert" else ("<s>", "</s>", "<mask>")

    def _infill(self, before: list[int], ids: list[int], hidden: list[bool]) -> list[float]:
        """The labels of T5's pre-training: sentinel, run, sentinel, run, ..., last sentinel, end."""
        inputs, labels, wanted = list(before), [], []
        used = 0
        for place, token in enumerate(ids):
            if not hidden[place]:
                inputs.append(token)
                continue
            if place == 0 or not hidden[place - 1]:
                sentinel = self.tokenizer.convert_tokens_to_ids(f"<extra_id_{used}>")
                used += 1
                inputs.append(sentinel)
                labels.append(sentinel)
            wanted.append(len(labels))
            labels.append(token)
        if not labels:
            return []
        logits = self.model(input_ids=torch.tensor([[*inputs, 1]]), labels=torch.tensor([[*labels, 1]])).logits[0]
        table = torch.log_softmax(logits, -1)
        return [float(table[place, labels[place]]) for place in wanted]
