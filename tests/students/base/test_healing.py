from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_bases import fit_here, make_base
from limbeck.students.base import prepare
from limbeck.students.base.config import HealingConfig, LayersBase
from limbeck.students.base.healing import too_small_gain, training_of


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what would go to Ray workers here."""
    monkeypatch.setattr(prepare, "fit", fit_here)


def _config(**healing: Any) -> LayersBase:
    given = {"tokens": 6000, "learning_rate": 1e-2, "batch_size": 2, "sequence_tokens": 64, "measure_tokens": 512, **healing}
    return LayersBase(layers=2, sample=4, healing=HealingConfig(**given))


def test_the_curve_goes_from_the_start_to_the_end(tmp_path: Path) -> None:
    _, report = make_base(_config(), tmp_path, layers=3)
    curve = report["healing"]["curve"]
    steps = report["healing"]["steps"]
    assert [point["step"] for point in curve] == [*range(0, steps, 4), steps]
    assert [point["tokens"] for point in curve] == [128 * point["step"] for point in curve]
    assert curve[0]["nats_per_token"] == pytest.approx(report["nats_per_token_start"], abs=1e-4)
    assert curve[-1]["nats_per_token"] == report["nats_per_token_healed"] < curve[0]["nats_per_token"]
    assert report["healing"]["stopped"] is None


def test_healing_stops_if_it_gains_too_little(tmp_path: Path) -> None:
    _, report = make_base(_config(min_gain=5.0), tmp_path, layers=3)
    healing = report["healing"]
    assert healing["steps"] == 8, "the first two measurements after the warm-up of 4 steps"
    assert healing["stopped"].startswith("healing stopped after 1,024 tokens: over the last 512 the held-out loss fell by ")
    assert healing["stopped"].endswith("less than min_gain 5") and healing["curve"][-1]["step"] == 8


def test_an_interrupted_healing_ends_in_the_same_bits_and_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.students.base.healing_trainer import HealingTrainer
    from limbeck.students.training.trainer import CompletionTrainer

    monkeypatch.setattr(prepare, "training_of", lambda *given: training_of(*given).model_copy(update={"checkpoint_steps": 5}))
    config = _config(min_gain=1e-3)
    whole, expected = make_base(config, tmp_path / "whole", layers=3)

    def interrupted(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return CompletionTrainer.training_step(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(HealingTrainer, "training_step", interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            make_base(config, tmp_path / "twice", layers=3)
    again, report = make_base(config, tmp_path / "twice", layers=3)
    assert report["healing"]["resumed_from_step"] == 5 and report["healing"]["curve"] == expected["healing"]["curve"]
    assert report["healing"]["stopped"] == expected["healing"]["stopped"]
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_measurements_of_the_warm_up_do_not_stop() -> None:
    curve = [
        {"step": step, "tokens": step * 100, "nats_per_token": nats} for step, nats in ((0, 5.0), (4, 5.2), (8, 4.0), (12, 3.99))
    ]
    assert [too_small_gain(curve[:count], 3, 0.1) is None for count in range(1, 5)] == [True, True, True, False]
    assert too_small_gain(curve, 3, None) is None and too_small_gain(curve, 3, 0.005) is None
    assert too_small_gain(curve[:2], 0, 0.1) is not None


def test_a_tenth_of_the_text_is_the_default_distance() -> None:
    healing = HealingConfig(batch_size=4, sequence_tokens=100)
    assert training_of(healing, 40_000).measure_steps == 10 and training_of(healing, 300).measure_steps == 1
    assert training_of(healing.model_copy(update={"measure_tokens": 1200}), 40_000).measure_steps == 3
