import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.tiny_students import make_dataset, make_model
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.cluster.training import Placement, fit
from limbeck.corpus.errors import LimbeckError

pytestmark = pytest.mark.slow  # every test starts processes that import torch


@pytest.fixture(scope="module")
def ray_here(ray_address: str) -> Iterator[None]:
    with connected(ClusterConfig(address=ray_address)):
        yield


def _answer(config: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {"given": config, "threads": torch.get_num_threads(), "ranked": "RANK" in os.environ}


def _refuse(config: dict[str, Any]) -> dict[str, Any]:
    _count(config)
    raise LimbeckError("the dataset has no rows; add some")


def _break(config: dict[str, Any]) -> dict[str, Any]:
    _count(config)
    raise RuntimeError("a tensor of the\nwrong shape")


def _die_once(config: dict[str, Any]) -> dict[str, Any]:
    if _count(config) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"attempts": len(list(Path(config["folder"]).iterdir()))}


def _die(config: dict[str, Any]) -> dict[str, Any]:
    _count(config)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def _count(config: dict[str, Any]) -> int:
    folder = Path(config["folder"])
    (folder / str(time.time_ns())).touch()
    return len(list(folder.iterdir()))


def test_the_loop_answers_from_one_worker_with_every_core(tmp_path: Path, ray_here: None) -> None:
    answer = fit(_answer, {"a": 1}, 1, Placement(), tmp_path)
    assert answer == {"given": {"a": 1}, "threads": os.cpu_count(), "ranked": False}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("loop", "attempts", "message"),
    [
        (_refuse, 1, "^the dataset has no rows; add some$"),
        (_break, 2, "failed after 2 attempts: .*wrong shape"),
        (_die, 2, "failed after 2 attempts"),
    ],
)
def test_a_failure_is_one_sentence_after_bounded_tries(
    tmp_path: Path, ray_here: None, loop: Any, attempts: int, message: str
) -> None:
    (tmp_path / "tries").mkdir()
    with pytest.raises(LimbeckError, match=message) as failure:
        fit(loop, {"folder": str(tmp_path / "tries")}, 1, Placement(max_failures=1), tmp_path / "storage")
    assert len(list((tmp_path / "tries").iterdir())) == attempts
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 600


def test_a_killed_worker_is_started_again(tmp_path: Path, ray_here: None) -> None:
    (tmp_path / "tries").mkdir()
    assert fit(_die_once, {"folder": str(tmp_path / "tries")}, 1, Placement(max_failures=1), tmp_path / "storage") == {
        "attempts": 2
    }


def _kill_the_controller_once(config: dict[str, Any]) -> dict[str, Any]:
    if _count(config) == 1:
        raylet = psutil.Process().parent()
        controllers = [each for each in raylet.children() if "ray::TrainController" in " ".join(each.cmdline())] if raylet else []
        assert len(controllers) == 1
        controllers[0].kill()
        time.sleep(3600)  # Ray ends this worker with its controller
    return {"attempts": len(list(Path(config["folder"]).iterdir()))}


def test_a_killed_controller_is_started_again(tmp_path: Path, ray_here: None) -> None:
    (tmp_path / "tries").mkdir()
    config = {"folder": str(tmp_path / "tries")}
    assert fit(_kill_the_controller_once, config, 1, Placement(max_failures=1), tmp_path / "storage") == {"attempts": 2}


@pytest.mark.parametrize("deepspeed", [None, {"zero_optimization": {"stage": 2}}, {"zero_optimization": {"stage": 3}}])
def test_two_workers_train_one_student(tmp_path: Path, ray_here: None, deepspeed: dict[str, Any] | None) -> None:
    from safetensors.torch import load_file

    from limbeck.students.sft import SftConfig
    from limbeck.students.training.driver import train

    teacher, dataset = make_model(tmp_path / "teacher", dtype="bfloat16"), make_dataset(tmp_path / "dataset")
    changes: dict[str, Any] = {
        "batch_size": 4,
        "micro_batch_size": 1,
        "learning_rate": 1e-2,
        "checkpoint_steps": 4,
        "deepspeed": deepspeed,
    }
    metrics = train(SftConfig(workers=2, **changes), dataset, teacher, tmp_path / "round" / "student", 3)
    assert metrics["steps"] == 6 and metrics["rows"] == 24
    assert metrics["loss_last"] < metrics["loss_first"] - 0.3
    assert metrics["weights_moved_fraction"] > 0.5
    alone = train(SftConfig(**{**changes, "deepspeed": None}), dataset, teacher, tmp_path / "alone" / "student", 3)
    assert metrics["loss_curve"] == pytest.approx(alone["loss_curve"], abs=0.03)
    weights, expected = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("round", "alone"))
    assert {name: (value.shape, value.dtype) for name, value in weights.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }


def _die_after_the_first_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    """The training loop, whose rank 0 is killed once, right after a checkpoint got its name."""
    from limbeck.students.training import loop, trainer

    died, publish = config["settings"].training / "died", trainer.publish_checkpoint

    def publish_and_die(*arguments: Any) -> None:
        publish(*arguments)
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.publish_checkpoint = publish_and_die
    return loop.run(config)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_killed_deepspeed_training_goes_on(tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    from limbeck.students.sft import SftConfig
    from limbeck.students.training import loop
    from limbeck.students.training.driver import train

    teacher, dataset = make_model(tmp_path / "teacher", dtype="bfloat16"), make_dataset(tmp_path / "dataset")
    config = SftConfig(
        workers=2,
        batch_size=4,
        micro_batch_size=1,
        learning_rate=1e-2,
        checkpoint_steps=2,
        deepspeed={"zero_optimization": {"stage": stage}},
    )
    plain = train(config, dataset, teacher, tmp_path / "plain" / "student", 3)
    monkeypatch.setattr(loop, "run", _die_after_the_first_checkpoint)
    metrics = train(config, dataset, teacher, tmp_path / "killed" / "student", 3)
    assert plain["resumed_from_step"] == 0 and metrics["resumed_from_step"] == 2
    assert metrics["loss_curve"] == pytest.approx(plain["loss_curve"], abs=1e-3)
