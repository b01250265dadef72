"""Runs of the last commit before the packages moved under one import name: they are resumed, with the same results.

The slow tests unpack that commit and run its code. The fast one compares a run with digests recorded with the earlier code: its
teacher is a server whose answers are computed from the prompt, so that no float of a model, whose last digits depend on the
processor, can change a row. A change that is meant to alter rows or a stage's data records new digests and moves `EARLIER` on.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.commands import limbeck
from helpers.earlier_code import BEFORE_THE_MOVE as EARLIER
from helpers.earlier_code import run_earlier, unpack
from helpers.fault_server import FaultServer, byte_tokenizer
from helpers.run_tables import changed_columns, distant_scores, run_columns, run_digests
from helpers.tiny_run import recipe
from helpers.tiny_students import make_model
from limbeck.cluster.engines.config import EndpointConfig, TransformersConfig
from limbeck.students.sft import SftConfig

RECORDED = Path(__file__).with_name("earlier_run.json")
OPERATIONAL = frozenset[str]().union(*(kind.operational_keys() for kind in (TransformersConfig, EndpointConfig, SftConfig)))
AFTER_THE_LAST_SCORES = [{"rename": "evaluation/test.json$", "when": "after", "victim": "driver"}]  # everything except the report


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier code."""
    return unpack(EARLIER, tmp_path_factory.mktemp("earlier"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of one round, a model and documents. Without a student: later versions train on other labels."""
    home = tmp_path_factory.mktemp("plain")
    content = yaml.safe_dump(recipe(home, rounds=1, student=None))
    (home / "recipe.yaml").write_text(content.replace(f"{home}/", ""))  # relative to the folder that commands run in
    return home


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with only those filters whose results are as they were."""
    home = tmp_path_factory.mktemp("lasting")
    content = yaml.safe_dump(
        recipe(home, rounds=1, student=None, filters=[{"kind": "length", "min_output_tokens": 1, "max_compression": 5.0}])
    )
    (home / "recipe.yaml").write_text(content.replace(f"{home}/", ""))
    return home


@pytest.fixture(scope="module")
def lasting_reference(earlier: Path, lasting: Path) -> Path:
    """Run that recipe with the earlier code, without the report."""
    return killed(earlier, lasting, "reference", AFTER_THE_LAST_SCORES)


@pytest.fixture(scope="module")
def reference(earlier: Path, plain: Path) -> Path:
    """Run the recipe with the earlier code, without the report."""
    return killed(earlier, plain, "reference", AFTER_THE_LAST_SCORES)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Path]:
    """A folder with a recipe of two rounds, with a teacher on a server and other filters that need no model."""
    model = make_model(tmp_path / "model", max_position_embeddings=1024)  # never loaded: the server responds instead
    config = (model / "config.json").read_text()
    byte_tokenizer(model)  # the server's tokens are bytes
    (model / "config.json").write_text(config)
    with FaultServer(models=({"id": "tiny", "max_model_len": 1024},)) as server:
        changes = {
            "generator": {"kind": "summaries", "samples": 3, "max_new_tokens": 80, "stop": ["@"]},
            "teacher": {"kind": "endpoint", "model": str(model), "base_url": server.url},
            "filters": [
                {"kind": "heuristics", "max_cut_off": None, "max_copied": None, "max_echo_of_prompt": None},
                {"kind": "length", "min_output_tokens": 10, "max_compression": 0.45},
                {"kind": "repetition", "min_alphabetic_words": 0.7},
                {"kind": "privacy"},
                {"kind": "pmi"},
            ],
            "select": [{"kind": "duplicates"}, {"kind": "novelty"}],
            "calibration": {"pass_rate": 0.5},
        }
        content = recipe(tmp_path, student=None, next_teacher="teacher", **changes)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        yield tmp_path


def killed(earlier: Path, home: Path, out: str, faults: list[dict[str, str]]) -> Path:
    """A run of the recipe by the earlier code, with its driver killed at a fault."""
    plan = home / f"{out}.faults"
    plan.write_text(json.dumps(faults))
    done = run_earlier(earlier, home, "run", "recipe.yaml", "--out", out, faults=plan)
    assert done.returncode == -9, f"not killed: {done.stderr[-3000:]}"
    return home / out


def stages(run: Path) -> dict[str, Any]:
    """The data that determine whether a run is resumed, without the folder and the server's port."""
    text = (run / "lock.json").read_text().replace(f"{run.parent}/", "")
    url = json.loads(text)["stages"]["candidates"]["teacher"].get("base_url", "none")
    return dict(json.loads(text.replace(url, "http://server/v1"))["stages"])


def changed_keys(found: Any, expected: Any, where: str = "") -> list[str]:
    """The expected keys that are missing or differ, except keys that change no row: neither these nor newer keys refuse a run."""
    if isinstance(expected, dict) and isinstance(found, dict):
        compared = {key: value for key, value in expected.items() if key in found or key not in OPERATIONAL}
        return [change for key, value in compared.items() for change in changed_keys(found.get(key), value, f"{where}.{key}")]
    return [] if found == expected else [f"{where}: {expected!r} before, {found!r} now"]


def without_newer_bounds(found: Any, recorded: Any) -> Any:
    """Stage data without the bounds on columns that the earlier code did not measure, and with its reasons.

    A filter whose results changed has other semantics, which refuse an unfinished run before its bounds are compared.
    """
    for name, bounds in found["decisions"]["bounds"].items():
        known = {bound["column"]: bound["reason"] for bound in recorded["decisions"]["bounds"][name]}
        bounds[:] = [{**bound, "reason": known[bound["column"]]} for bound in bounds if bound["column"] in known]
    return found


def recordable(run: Path) -> dict[str, Any]:
    data = stages(run)
    del data["candidates"]["model"]  # a digest of tokenizer.json, which each version of its library writes in its own way
    return {"rows": run_digests(run), "stages": data}


def published(run: Path) -> dict[str, tuple[int, int]]:
    """Every finished file of the run's rounds and evaluations, with its inode and modification time."""
    files = [file for part in ("rounds", "evaluation") for file in (run / part).rglob("*") if file.is_file()]
    finished = [file for file in files if not any(step.startswith(".") for step in file.relative_to(run).parts)]
    return {str(file.relative_to(run)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in finished}


def test_rows_and_stage_data_are_those_of_the_earlier_code(asked: Path, ray_address: str) -> None:
    done = limbeck("run", "recipe.yaml", "--out", "run", folder=asked, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    found, recorded = recordable(asked / "run"), json.loads(RECORDED.read_text())
    assert changed_columns(found["rows"], recorded["rows"]) == []
    assert changed_keys(without_newer_bounds(found["stages"], recorded["stages"]), recorded["stages"]) == []


@pytest.mark.slow
def test_what_is_recorded_is_what_the_earlier_code_gives(asked: Path, earlier: Path) -> None:
    found = recordable(killed(earlier, asked, "run", AFTER_THE_LAST_SCORES))
    assert found == json.loads(RECORDED.read_text()), json.dumps(found, indent=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_equals_the_earlier_code_s_bit_for_bit(plain: Path, reference: Path) -> None:
    done = limbeck("run", "recipe.yaml", "--out", "new", folder=plain)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(plain / "new", reference, scored_by_model="pmi")
    assert distant_scores(plain / "new", reference, "pmi") == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("moment", ["rounds/000/candidates/part-00001", "rounds/000/scores/length/part-00001"])
def test_a_run_that_the_earlier_code_began_is_resumed(lasting: Path, lasting_reference: Path, earlier: Path, moment: str) -> None:
    out = moment.replace("/", "-").strip("$")
    run = killed(earlier, lasting, out, [{"rename": moment, "when": "after", "victim": "driver"}])
    finished, before = published(run), stages(run)
    assert finished and len(finished) < len(published(lasting_reference))
    done = limbeck("run", "recipe.yaml", "--out", out, folder=lasting)
    assert done.returncode == 0, done.stderr
    assert changed_keys(stages(run), before) == []
    after = published(run)
    assert [name for name in finished if after.get(name) != finished[name]] == [], "written again, or deleted"
    assert_equal_runs(run, lasting_reference)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_the_earlier_code_began_with_other_semantics_is_refused(plain: Path, earlier: Path) -> None:
    killed(earlier, plain, "begun", [{"rename": "rounds/000/scores/pmi/part-00001", "when": "after", "victim": "driver"}])
    done = limbeck("run", "recipe.yaml", "--out", "begun", folder=plain)
    assert done.returncode == 1 and "was started when filter heuristics had semantics 1, and this version has 2" in done.stderr


def assert_equal_runs(run: Path, reference: Path, scored_by_model: str = "a filter that is not there") -> None:
    """Candidates, scores, decisions and datasets are equal bit for bit, except for the scores of a filter that calls a model.

    This version also scores mismatched pairs, so batches have other shapes, and on some processors the last digit of a sum of
    floats depends on the shape.
    """
    expected = run_columns(reference)
    assert {
        "rounds/000/sources/train",
        "rounds/000/candidates",
        "rounds/000/decisions",
    } <= expected.keys()
    changed = changed_columns(run_columns(run), expected)
    assert [place for place in changed if not re.search(rf"/scores/{scored_by_model}: | {scored_by_model}\.", place)] == []
