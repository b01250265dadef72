import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_students import make_model
from limbeck.students.base import layers
from limbeck.students.training.sample_loss import nats_per_token


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
    fast = layers.losses_without(layers.Stack(model), range(4), SAMPLE)
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


@pytest.mark.parametrize(
    ("count", "keep", "kept"),
    [(30, 24, None), (5, 5, [0, 1, 2, 3, 4]), (6, 2, [0, 5]), (7, 3, [0, 3, 6]), (4, 1, [0]), (30, 29, None)],
)
def test_even_layers_are_equally_spaced_with_both_ends(count: int, keep: int, kept: list[int] | None) -> None:
    found = layers.evenly_spaced(count, keep)
    assert found == (kept or found) and len(set(found)) == keep and found[0] == 0 and (keep == 1 or found[-1] == count - 1)
    steps = [later - before for before, later in zip(found, found[1:], strict=False)]
    assert max(steps, default=1) - min(steps, default=1) <= 1


def test_even_layers_are_those_of_the_model(tmp_path: Path) -> None:
    model = _model(tmp_path / "m", layers=5)
    whole = list(model.base_model.layers)
    assert layers.keep_evenly(model, 3) == [3, 1]
    assert [whole.index(layer) for layer in model.base_model.layers] == [0, 2, 4] and model.config.num_hidden_layers == 3
