import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from helpers.tiny_students import sentence
from limbeck.corpus.errors import LimbeckError
from limbeck.students.base.vocabulary import (
    kept_tokens,
    read_trimmable,
    renumbered,
    special_ids,
    trimmed_content,
    write_text_files,
)

TEXTS = [
    *(sentence(seed, 12) for seed in range(20)),
    "Die Brühe läuft über den Kühler, naïve café — “quoted” 3.14159",
    "дистиллят стекает в колбу медленно, пока не наступит утро",
    "蒸馏器里的水慢慢沸腾，直到早晨",
    "🙂🙂 👩‍👩‍👧‍👦 🇫🇷 done\r\n\tindented",
]
SCRIPTS = [*"aZ \néßжΩاשกあ語한🙂", "👩‍👩‍👧‍👦", "🇫🇷", "\u200d", "𝔘", "the", " still", "<|end|>"]
texts = st.lists(st.one_of(st.sampled_from(SCRIPTS), st.text(max_size=6)), max_size=12).map("".join)


def _byte_level(**settings: Any) -> Backend:
    backend = Backend(models.BPE(**settings))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|start|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens(["<|late|>"])  # numbered behind the words
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|late|>", special_tokens=[("<|late|>", backend.token_to_id("<|late|>"))]
    )
    return backend


def _byte_fallback() -> Backend:
    """As converted from sentencepiece: spaces are marks, and characters without a token are bytes."""
    trained = Backend(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    trained.train_from_iterator(TEXTS, trainer)
    content = json.loads(trained.to_str())
    content["model"] |= {"byte_fallback": True, "fuse_unk": True}
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are ordinary tokens
    backend = Backend.from_str(json.dumps(content))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


KINDS = {"byte level": _byte_level(), "whole words first": _byte_level(ignore_merges=True), "byte fallback": _byte_fallback()}


def _counts(backend: Backend, texts: list[str]) -> Any:
    ids = [token for text in texts for token in backend.encode(text, add_special_tokens=False).ids]
    return np.bincount(ids, minlength=backend.get_vocab_size())


def _trimmed(backend: Backend, used: list[str], keep: Any = None) -> tuple[Backend, list[int]]:
    content = json.loads(backend.to_str())
    kept = kept_tokens(content, _counts(backend, used), keep)
    return Backend.from_str(json.dumps(trimmed_content(content, kept))), kept


@pytest.mark.parametrize("kind", KINDS)
@given(used=st.lists(st.sampled_from(TEXTS) | texts, min_size=1, max_size=4), other=texts)
def test_used_texts_keep_their_tokens_and_every_text_its_bytes(kind: str, used: list[str], other: str) -> None:
    backend = KINDS[kind]
    trimmed, kept = _trimmed(backend, used)
    for text in used:
        assert [kept[new] for new in trimmed.encode(text).ids] == backend.encode(text).ids
    for text in (other, *TEXTS):
        before, after = backend.encode(text).ids, trimmed.encode(text).ids
        for skipped in (True, False):
            assert trimmed.decode(after, skip_special_tokens=skipped) == backend.decode(before, skip_special_tokens=skipped)


@pytest.mark.parametrize("kind", KINDS)
@given(keep=st.integers(300, 500) | st.floats(0.01, 1.0), other=texts)
def test_any_size_of_the_vocabulary_is_consistent(kind: str, keep: Any, other: str) -> None:
    backend = KINDS[kind]
    trimmed, kept = _trimmed(backend, TEXTS, keep)
    assert trimmed.get_vocab_size() == len(kept) and sorted(trimmed.get_vocab().values()) == list(range(len(kept)))
    if isinstance(keep, int):
        assert len(kept) <= keep
    else:
        counts = _counts(backend, TEXTS)
        assert counts[kept].sum() >= keep * counts.sum() - 1e-6
    for text in (other, *TEXTS):
        assert trimmed.decode(trimmed.encode(text).ids) == backend.decode(backend.encode(text).ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_vocabulary_contains_the_smaller_and_all_tokens_change_nothing(kind: str) -> None:
    backend = KINDS[kind]
    sizes = [len(_trimmed(backend, TEXTS, share)[1]) for share in (0.2, 0.6, 0.9, 1.0)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    whole = json.loads(backend.to_str())
    everything = list(range(backend.get_vocab_size()))
    assert trimmed_content(whole, everything) == whole


def test_no_merge_leads_to_a_removed_token() -> None:
    content = json.loads(KINDS["byte level"].to_str())
    kept = kept_tokens(content, _counts(KINDS["byte level"], ["the small still"]), None)
    model = trimmed_content(content, kept)["model"]
    assert model["merges"] and len(model["merges"]) < len(content["model"]["merges"]) / 4
    assert all({first, second, first + second} <= model["vocab"].keys() for first, second in model["merges"])
    assert {"s", "Ġs", "Ġstill"} <= model["vocab"].keys() and "slowly" not in "".join(model["vocab"])


def test_a_vocabulary_below_what_is_always_kept_is_refused() -> None:
    content = json.loads(KINDS["byte level"].to_str())
    with pytest.raises(LimbeckError, match=r"keep is 100, but 2\d\d tokens are always kept"):
        kept_tokens(content, _counts(KINDS["byte level"], TEXTS), 100)


def _folder(folder: Path, **files: Any) -> Path:
    folder.mkdir()
    KINDS["byte level"].save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_every_id_in_the_text_files_is_renumbered(tmp_path: Path) -> None:
    late = KINDS["byte level"].token_to_id("<|late|>")
    source = _folder(
        tmp_path / "source",
        config={"eos_token_id": [2, late], "text_config": {"pad_token_id": 0, "bos_token_id": None}, "unk_token_id": 9_999},
        generation_config={"eos_token_id": late, "pad_token_id": 0, "suppress_tokens": [1, 400]},
        tokenizer_config={
            "eos_token": "<|late|>",
            "added_tokens_decoder": {"0": {"content": "<|pad|>"}, str(late): {"content": "<|late|>"}},
        },
        added_tokens={"<|late|>": late},
        vocab={"left": "out"},
    )
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (out := tmp_path / "out").mkdir()
    content = read_trimmable(source)
    kept = kept_tokens(content, _counts(KINDS["byte level"], ["the"]), None, special_ids(source))
    write_text_files(source, out, content, kept)
    new = kept.index(late)
    assert new < late and Backend.from_file(str(out / "tokenizer.json")).encode("the").ids[-1] == new  # the post-processor's
    written = {path.name: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert written["generation_config.json"] == {"eos_token_id": new, "pad_token_id": 0, "suppress_tokens": [1]}
    assert written["tokenizer_config.json"]["added_tokens_decoder"] == {
        "0": {"content": "<|pad|>"},
        str(new): {"content": "<|late|>"},
    }
    assert written["added_tokens.json"] == {"<|late|>": new} and "vocab.json" not in written
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    config = renumbered(json.loads((source / "config.json").read_text()), {old: place for place, old in enumerate(kept)})
    assert config == {"eos_token_id": [2, new], "text_config": {"pad_token_id": 0, "bos_token_id": None}, "unk_token_id": None}


@pytest.mark.parametrize(
    ("content", "generation", "message"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, {}, "type Unigram"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}}, {}, "end_of_word_suffix"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, {"bad_words_ids": [[3]]}, "bad_words_ids"),
    ],
)
def test_what_cannot_be_trimmed_is_refused(tmp_path: Path, content: Any, generation: Any, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    with pytest.raises(LimbeckError, match=message):
        read_trimmable(tmp_path)


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match=r"no tokenizer\.json"):
        read_trimmable(tmp_path)
