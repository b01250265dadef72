import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.tiny_students import make_model, sentence
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import write_table
from limbeck.corpus.schemas import SOURCES
from limbeck.students.base import layers
from limbeck.students.base.config import HealingConfig, LayersBase
from limbeck.students.contract import METRICS_FILE
from limbeck.students.training.sample_loss import nats_per_token, read_sample


def _documents(folder: Path, count: int = 40) -> Path:
    rows = [
        {
            "source_id": str(row), "document": sentence(row, 40), "reference": None, "origin": str(row), "group": str(row),
            "split": "dev" if row == 0 else "train", "document_tokens": 40, "cut_characters": 0, "salient": [], "reason": None,
        }
        for row in range(count)
    ]  # fmt: skip
    write_table(folder / "part-00000.parquet", pa.Table.from_pylist(rows, schema=SOURCES))
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what would go to Ray workers here."""

    def fit(work: Any, config: dict[str, Any], workers: int, placement: Any, storage: Path) -> Any:
        return work(config)

    monkeypatch.setattr(layers, "fit", fit)


def _model(folder: Path, **settings: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(make_model(folder, **settings)).eval()


SAMPLE = [[5, 9, 20, 31, 8, 77, 12], [40, 3, 9, 9, 50], [7, 8]]


def _plain_loss(model: Any, sample: list[list[int]]) -> float:
    """Each sequence alone through the whole model."""
    import torch

    with torch.inference_mode():
        losses = [model(torch.tensor([row]), labels=torch.tensor([row])).loss * (len(row) - 1) for row in sample]
    return float(sum(losses)) / sum(len(row) - 1 for row in sample)


def test_loss_on_padded_batches_equals_sequences_alone(tmp_path: Path) -> None:
    model = _model(tmp_path / "m")
    assert nats_per_token(model, SAMPLE) == pytest.approx(_plain_loss(model, SAMPLE), abs=1e-5)


def test_loss_without_each_layer_equals_the_model_without_it(tmp_path: Path) -> None:
    import torch

    model = _model(tmp_path / "m", layers=4)
    whole = list(model.base_model.layers)
    fast = layers._losses_without(model, whole, SAMPLE)
    for skipped, loss in enumerate(fast):
        model.base_model.layers = torch.nn.ModuleList(layer for index, layer in enumerate(whole) if index != skipped)
        assert loss / 11 == pytest.approx(_plain_loss(model, SAMPLE), abs=1e-5)


@pytest.mark.parametrize("planted", [0, 2, 4])
def test_a_useless_layer_goes_first(tmp_path: Path, planted: int) -> None:
    import torch

    model = _model(tmp_path / "m", layers=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that the others do something
        useless = model.base_model.layers[planted]
        useless.self_attn.o_proj.weight.zero_()
        useless.mlp.down_proj.weight.zero_()
    before = nats_per_token(model, SAMPLE)
    # on random targets other layers may hurt, so the text is the model's own
    sample = [
        model.generate(torch.tensor([row]), max_new_tokens=30, min_new_tokens=30, do_sample=False)[0].tolist() for row in SAMPLE
    ]
    assert layers.drop_layers(model, sample, 4, tmp_path / "progress.json") == [planted]
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["unit"], told["step"], told["steps"]) == ("layer", 1, 1) and told["loss"] > 0
    assert nats_per_token(model, SAMPLE) == pytest.approx(before, abs=1e-5)
    assert model.config.num_hidden_layers == 4
    assert [layer.self_attn.layer_idx for layer in model.base_model.layers] == [0, 1, 2, 3]


def test_the_cut_model_generates_with_its_cache(tmp_path: Path) -> None:
    import torch

    model = _model(tmp_path / "m", layers=4)
    layers.drop_layers(model, SAMPLE, 2, tmp_path / "progress.json")
    prompt = torch.tensor([[5, 9, 20]])
    cached, plain = (model.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False))
    assert cached.tolist() == plain.tolist()


def test_healing_lowers_the_loss_and_reports_both(tmp_path: Path, in_process: None) -> None:
    teacher = make_model(tmp_path / "teacher", layers=4, dtype="bfloat16")
    config = LayersBase(
        layers=2, sample=4, healing=HealingConfig(tokens=6000, learning_rate=1e-2, batch_size=4, sequence_tokens=64)
    )
    base, report = layers.prepare(config, teacher, _documents(tmp_path / "sources"), tmp_path / "training", 7, layers.Placement())
    assert report["nats_per_token_healed"] < report["nats_per_token_cut"] - 0.5
    assert sorted(report["kept"] + report["dropped"]) == [0, 1, 2, 3] and len(report["kept"]) == 2
    assert json.loads((base / "config.json").read_text())["num_hidden_layers"] == 2
    assert (base / "tokenizer.json").read_bytes() == (teacher / "tokenizer.json").read_bytes()
    assert report["healing"]["tokens"] <= 6000
    again = layers.prepare(config, teacher, tmp_path / "sources", tmp_path / "training", 7, layers.Placement())
    assert again == (base, report)


def test_no_document_is_both_measured_and_learned(tmp_path: Path) -> None:
    teacher = make_model(tmp_path / "teacher")
    sample, text = tmp_path / "sample.parquet", tmp_path / "text.parquet"
    layers._write_tokens(LayersBase(layers=1, sample=5), teacher, _documents(tmp_path / "sources"), sample, text)
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    learned = backend.decode([token for row in read_sample(text) for token in row], skip_special_tokens=False)
    documents = learned.split("<|end|>")
    measured = [backend.decode(row) for row in read_sample(sample)]
    assert len(measured) == 5 and all(document.strip() for document in measured)
    assert sentence(0, 40) not in measured + documents  # a dev document
    assert sentence(1, 40).startswith(measured[0][:20])
    assert documents[0] == sentence(6, 40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 9}, "4 layers, fewer than the 9"),
        ({"layers": 2, "sample": 99}, "99 train documents"),
        ({"layers": 2, "sample": 39}, "39"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, in_process: None, settings: dict[str, int], message: str) -> None:
    teacher, documents = make_model(tmp_path / "teacher", layers=4), _documents(tmp_path / "sources")
    with pytest.raises(LimbeckError, match=message):
        layers.prepare(LayersBase(**settings), teacher, documents, tmp_path / "training", 7, layers.Placement())


def test_layers_need_the_sources(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="sources"):
        layers.prepare(LayersBase(layers=1), tmp_path, None, tmp_path, 7, layers.Placement())


def test_the_report_and_the_metrics_are_different_files() -> None:
    assert layers.REPORT_FILE != METRICS_FILE
