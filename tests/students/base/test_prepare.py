import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_bases import fit_here, make_base, some_documents, write_documents
from helpers.tiny_students import make_dataset, make_model, sentence
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.students.base import prepare, text
from limbeck.students.base.config import HealingConfig, LayersBase, ModelBase, ScratchBase, TeacherBase, VocabularyConfig
from limbeck.students.base.trimming import read_record, restore_vocabulary
from limbeck.students.training.sample_loss import read_sample

HEALING = HealingConfig(tokens=6000, learning_rate=1e-2, batch_size=4, sequence_tokens=64)


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what would go to Ray workers here."""
    monkeypatch.setattr(prepare, "fit", fit_here)


def test_healing_lowers_the_loss_and_reports_both(tmp_path: Path) -> None:
    config = LayersBase(layers=2, sample=4, healing=HEALING)
    base, report = make_base(config, tmp_path, layers=4, dtype="bfloat16")
    assert report["nats_per_token_healed"] < report["nats_per_token_cut"] - 0.5
    assert report["nats_per_token_start"] == report["nats_per_token_cut"]
    assert sorted(report["kept"] + report["dropped"]) == [0, 1, 2, 3] and len(report["kept"]) == 2
    assert json.loads((base / "config.json").read_text())["num_hidden_layers"] == 2
    assert (base / "tokenizer.json").read_bytes() == (tmp_path / "teacher" / "tokenizer.json").read_bytes()
    assert report["healing"]["tokens"] <= 6000 and report["healing"]["text"]["documents"] == 35
    assert make_base(config, tmp_path) == (base, report)


def test_even_layers_need_no_importance(tmp_path: Path) -> None:
    _, report = make_base(LayersBase(layers=3, choose="evenly", sample=4, healing=None), tmp_path, layers=5)
    assert (report["kept"], report["dropped"]) == ([0, 2, 4], [3, 1])
    assert "nats_per_token_healed" not in report and not (tmp_path / "training" / "text.parquet").exists()


def test_a_new_model_learns_its_text_and_keeps_the_tokenizer(tmp_path: Path) -> None:
    config = ScratchBase.model_validate(
        {"layers": 1, "width": 16, "heads": 2, "sample": 4, "healing": {**HEALING.model_dump(), "learning_rate": 3e-2}}
    )
    base, report = make_base(config, tmp_path)
    settings = json.loads((base / "config.json").read_text())
    assert (settings["hidden_size"], settings["num_hidden_layers"], settings["intermediate_size"]) == (16, 1, 32)
    assert report["nats_per_token_start"] == pytest.approx(5.99, abs=0.2), "about the logarithm of 400 tokens"
    assert report["nats_per_token_healed"] < 4
    assert (base / "tokenizer.json").read_bytes() == (tmp_path / "teacher" / "tokenizer.json").read_bytes()
    (other := tmp_path / "other").mkdir()
    (other / "teacher").symlink_to(tmp_path / "teacher")
    (other / "dataset").symlink_to(tmp_path / "dataset")
    assert make_base(config, other)[1]["nats_per_token_start"] == report["nats_per_token_start"]
    (third := tmp_path / "third").mkdir()
    (third / "teacher").symlink_to(tmp_path / "teacher")
    (third / "dataset").symlink_to(tmp_path / "dataset")
    assert make_base(config, third, seed=8)[1]["nats_per_token_start"] != report["nats_per_token_start"]


def _logits(folder: Path, ids: list[int]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("tied", [True, False])
def test_a_trimmed_model_computes_the_same_and_can_be_restored(tmp_path: Path, tied: bool) -> None:
    import torch

    config = TeacherBase(vocabulary=VocabularyConfig(keep=0.9), sample=4)
    base, report = make_base(config, tmp_path, tie_word_embeddings=tied)
    teacher, old_ids = tmp_path / "teacher", read_record(base)["old_ids"]
    assert report["vocabulary"]["tokens"] == len(old_ids) < report["vocabulary"]["of"] == 400
    assert 0.9 <= report["vocabulary"]["occurrences_kept"] < 1
    some = [0, 1, len(old_ids) // 2, len(old_ids) - 1]
    torch.testing.assert_close(
        _logits(base, some), _logits(teacher, [old_ids[token] for token in some])[:, old_ids], rtol=0, atol=1e-5
    )
    settings = json.loads((base / "config.json").read_text())
    assert settings["vocab_size"] == len(old_ids) and old_ids[settings["eos_token_id"]] == 2
    restore_vocabulary(base, teacher, tmp_path / "restored")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "restored" / name).read_bytes() == (teacher / name).read_bytes()
    assert json.loads((tmp_path / "restored" / "config.json").read_text())["eos_token_id"] == 2
    everything = list(range(400))
    torch.testing.assert_close(_logits(tmp_path / "restored", everything), _logits(teacher, everything), rtol=0, atol=0)


def test_everything_used_is_kept_and_a_trimmed_model_can_be_cut_and_trimmed_again(tmp_path: Path) -> None:
    first, report = make_base(TeacherBase(vocabulary=VocabularyConfig(), sample=4), tmp_path, layers=3)
    assert report["vocabulary"]["occurrences_kept"] == 1
    assert report["nats_per_token_start"] < report["nats_per_token_teacher"], "the same tokens, of fewer"
    assert report["nats_per_byte_start"] < report["nats_per_byte_teacher"]
    (later := tmp_path / "later").mkdir()
    (later / "teacher").symlink_to(first)
    make_dataset(later / "dataset")
    config = LayersBase(layers=2, sample=4, healing=HEALING, vocabulary=VocabularyConfig(keep=0.8))
    second, again = make_base(config, later, write_documents(later / "sources", [sentence(row, 30) for row in range(30)]))
    ids, before = read_record(second)["old_ids"], read_record(first)["old_ids"]
    assert set(ids) < set(before) and again["vocabulary"]["of"] == len(before)
    assert read_record(second)["tokenizer"] == Tokenizer.load(tmp_path / "teacher").fingerprint
    restore_vocabulary(second, tmp_path / "teacher", tmp_path / "restored")
    assert json.loads((tmp_path / "restored" / "config.json").read_text())["vocab_size"] == 400
    with pytest.raises(LimbeckError, match="was not trimmed from the tokenizer"):
        restore_vocabulary(second, first, tmp_path / "wrong")


def test_only_what_was_trimmed_from_the_original_can_be_restored(tmp_path: Path) -> None:
    new = ScratchBase.model_validate(
        {"layers": 1, "width": 16, "heads": 2, "sample": 4, "healing": HEALING.model_dump(), "vocabulary": {"keep": 0.9}}
    )
    base, _ = make_base(new, tmp_path)
    with pytest.raises(LimbeckError, match="width of 16, and .* of 32"):
        restore_vocabulary(base, tmp_path / "teacher", tmp_path / "restored")
    with pytest.raises(LimbeckError, match="was not trimmed"):
        restore_vocabulary(tmp_path / "teacher", tmp_path / "teacher", tmp_path / "restored")


def test_the_transformers_engine_loads_a_trimmed_model(tmp_path: Path) -> None:
    from limbeck.cluster.engines.config import TransformersConfig
    from limbeck.cluster.engines.local.engine import build

    base, _ = make_base(TeacherBase(vocabulary=VocabularyConfig(), sample=4), tmp_path)
    _answers(build(TransformersConfig(model=str(base), dtype="float32", device="cpu")), base)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_loads_a_trimmed_model(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from limbeck.cluster.engines.vllm.config import VllmConfig
    from limbeck.cluster.engines.vllm.engine import build

    base, _ = make_base(TeacherBase(vocabulary=VocabularyConfig(), sample=4), tmp_path)
    engine = build(VllmConfig(model=str(base), context_tokens=256, cache_bytes=1 << 28))
    try:
        _answers(engine, base)
    finally:
        engine.close()


def _answers(engine: Any, base: Path) -> None:
    """The engine's greedy tokens are the model's own, of a prompt with characters that are not in the vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from limbeck.cluster.engines.protocol import Message, Request, Sampling

    messages = [{"role": "user", "content": "Say é 🙂 still"}]
    (answer,) = engine.complete([Request("0", (Message("user", "Say é 🙂 still"),), Sampling(8, temperature=0.0), 0)])
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    drawn = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
    ends = drawn.index(model.config.eos_token_id) if model.config.eos_token_id in drawn else 8
    assert answer.error is None and list(answer.token_ids)[:ends] == drawn[:ends]


def test_no_document_is_both_measured_and_learned(tmp_path: Path) -> None:
    teacher = Tokenizer.load(make_model(tmp_path / "teacher"))
    documents, sample, file = some_documents(tmp_path / "sources"), tmp_path / "sample.parquet", tmp_path / "text.parquet"
    write_documents(tmp_path / "sources", [sentence(0, 40)], "dev")
    text.write_sample(LayersBase(layers=1, sample=5), teacher, documents, 7, sample)
    end = [teacher.backend.token_to_id("<|end|>")]
    found = text.write_text(HEALING, teacher, end, documents, sample, 7, file)
    learned = teacher.backend.decode([token for row in read_sample(file) for token in row], skip_special_tokens=False)
    measured = [teacher.backend.decode(row) for row in read_sample(sample)]
    assert measured == [sentence(row + 1, 40)[: len(one)] for row, one in enumerate(measured)] and len(measured) == 5
    assert learned.split("<|end|>")[0] == sentence(6, 40)
    assert found == {"documents": 34, "tokens": sum(map(len, read_sample(file))), "left_out": 5}


def test_a_text_of_its_own_is_read_whole_without_what_is_held_out(tmp_path: Path) -> None:
    teacher = Tokenizer.load(make_model(tmp_path / "teacher"))
    words = [
        " ".join(f"{name}{row}{place}" for place in range(900)) for row, name in enumerate(["still", "flask", "spirit", "water"])
    ]
    documents = write_documents(tmp_path / "sources", [words[0][:500], words[1][:600]])
    write_documents(tmp_path / "sources", [words[2][:400]], "test")
    (folder := tmp_path / "text").mkdir()
    for row, document in enumerate(words):
        (folder / f"{row}.txt").write_text(document)
    sample, file = tmp_path / "sample.parquet", tmp_path / "text.parquet"
    text.write_sample(LayersBase(layers=1, sample=1), teacher, documents, 7, sample)
    config = HealingConfig.model_validate({"text": {"kind": "text", "path": str(folder)}, "tokens": 100_000})
    found = text.write_text(config, teacher, [], documents, sample, 7, file)
    learned = teacher.backend.decode([token for row in read_sample(file) for token in row])
    assert words[1] in learned and words[3] in learned, "whole documents, in any order"
    assert "still00" not in learned and "spirit20" not in learned
    assert found["left_out"] == 2 and found["documents"] == 2


def test_draws_are_measured_on_the_text(tmp_path: Path) -> None:
    teacher = Tokenizer.load(make_model(tmp_path / "teacher"))
    (folder := tmp_path / "text").mkdir()
    for row in range(12):
        (folder / f"{row}.txt").write_text(" ".join(f"w{row}{place}" for place in range(40)))
    healing = HealingConfig.model_validate({"text": {"kind": "text", "path": str(folder)}})
    empty = write_documents(tmp_path / "sources", [])
    sample, file = tmp_path / "sample.parquet", tmp_path / "text.parquet"
    text.write_sample(LayersBase(layers=1, sample=3, healing=healing), teacher, empty, 7, sample)
    assert text.write_text(healing, teacher, [], empty, sample, 7, file)["left_out"] == 3
    with pytest.raises(LimbeckError, match=r"set base\.healing\.text"):
        text.write_sample(LayersBase(layers=1), teacher, empty, 7, sample)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 9}, "4 layers, fewer than the 9"),
        ({"layers": 2, "sample": 99}, "needs 99 train documents, but there are 39"),
        ({"layers": 2, "sample": 39}, "no text beside"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(LimbeckError, match=message):
        make_base(LayersBase(**settings), tmp_path, layers=4)


def test_another_model_is_healed_and_trimmed_too(tmp_path: Path) -> None:
    config = ModelBase(model=str(make_model(tmp_path / "teacher")), sample=4, healing=HEALING, vocabulary=VocabularyConfig())
    make_dataset(tmp_path / "dataset")
    base, report = make_base(config, tmp_path)
    assert report["nats_per_token_healed"] < report["nats_per_token_start"] and (base / "vocabulary.json").exists()
