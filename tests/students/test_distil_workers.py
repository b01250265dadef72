"""Distillation on two training workers: the student of one worker, whatever divides the weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_students import make_dataset, make_model
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.students.distil import DistilConfig
from limbeck.students.training.driver import train


@pytest.fixture(scope="module")
def ray_here(ray_address: str) -> Iterator[None]:
    with connected(ClusterConfig(address=ray_address)):
        yield


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"on_policy": {"share": 0.5, "max_new_tokens": 4}}, marks=pytest.mark.slow),
        pytest.param({"deepspeed": {"zero_optimization": {"stage": 2}}}, marks=pytest.mark.slow),
        {"deepspeed": {"zero_optimization": {"stage": 3}}, "cross_entropy": 0.2},
    ],
    ids=["on-policy", "zero-2", "zero-3"],
)
def test_two_workers_distil_one_student(tmp_path: Path, ray_here: None, more: dict[str, Any]) -> None:
    teacher = make_model(tmp_path / "teacher", initializer_range=0.2)
    student = make_model(tmp_path / "base", layers=1, hidden_size=16, num_attention_heads=2, tie_word_embeddings=False)
    dataset = make_dataset(tmp_path / "dataset")
    changes: dict[str, Any] = {
        "base": {"kind": "model", "model": str(student)},
        "batch_size": 4,
        "micro_batch_size": 1,
        "learning_rate": 1e-2,
        "loss": {"kind": "jsd"},
        "precision": "float32",
    }
    both = DistilConfig.model_validate({**changes, **more, "workers": 2})
    metrics = train(both, dataset, teacher, tmp_path / "round" / "student", 3)
    assert metrics["steps"] == 6 and metrics["weights_moved_fraction"] > 0.5
    if "on_policy" in more:  # each worker draws samples of its own
        return
    weight = {key: value for key, value in more.items() if key != "deepspeed"}
    alone = DistilConfig.model_validate({**changes, **weight})
    expected = train(alone, dataset, teacher, tmp_path / "alone" / "student", 3)
    assert metrics["loss_curve"] == pytest.approx(expected["loss_curve"], abs=0.02)
