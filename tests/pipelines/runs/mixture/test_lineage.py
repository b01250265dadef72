"""The runs whose rows a student was trained on, and through them those before."""

from pathlib import Path

import pytest

from helpers.small_datasets import chat_row, chat_run, run_of
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import write_json
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.mixture.components import Wanted, opened, runs_of
from limbeck.pipelines.runs.mixture.config import MixConfig
from limbeck.pipelines.runs.mixture.mixing import planned, write_mixture
from limbeck.pipelines.runs.mixture.reading import read_mixture, refuse_changed
from limbeck.pipelines.runs.origins import origins
from limbeck.pipelines.runs.rows import ChatRows

WANTED = Wanted(ChatRows())


def write(run: Path, number: int, mix: MixConfig, out: Path | None = None) -> None:
    """The mixture of a round, where a run has it or elsewhere."""
    folder = RunFolder(run)
    components = [opened(component, WANTED, folder, number) for component in mix.of_round(number)]
    write_mixture(out or folder.mixture(number), planned("mixed", 0, mix, components))


def mix(*components: dict[str, object]) -> MixConfig:
    return MixConfig.model_validate({"components": [{"kind": "own"}, *components]})


def test_a_run_of_a_run_of_a_run_keeps_its_lineage(tmp_path: Path) -> None:
    rows = [chat_row(f"q {n}", f"a {n}") for n in range(6)]
    first = run_of(tmp_path / "first", rows)
    second = run_of(tmp_path / "second", rows, sources={"kind": "run", "run": str(first), "round": 0})
    third = run_of(tmp_path / "third", rows)
    write(third, 0, mix({"kind": "run", "name": "old", "run": str(second)}), tmp_path / "mixed")
    path = str(tmp_path / "mixed")
    fourth = run_of(tmp_path / "fourth", rows, mix={"components": [{"kind": "rows", "name": "mixed", "path": path}]})
    write(fourth, 0, mix({"kind": "rows", "name": "mixed", "path": path}))
    found = [(one.of, one.gives, Path(one.run).name, one.round) for one in origins(RunFolder(fourth))]
    assert found == [("fourth", "mixture", "second", 0), ("second", "sources", "first", 0)]
    (component,) = [one for one in read_mixture(RunFolder(fourth), 0).components if one.name == "mixed"]
    assert component.rows == 12 and component.given == path


def test_before_its_first_mixture_a_run_names_what_its_recipe_mixes(tmp_path: Path) -> None:
    section = {"components": [{"kind": "own"}, {"kind": "run", "name": "x", "run": str(tmp_path / "old"), "round": 2}]}
    run = run_of(tmp_path / "run", [chat_row("q", "a")], mix=section)
    assert [(one.gives, Path(one.run).name, one.round) for one in origins(RunFolder(run))] == [("mixture", "old", 2)]


def test_rows_inside_a_run_s_folder_come_from_that_run(tmp_path: Path) -> None:
    run = chat_run(tmp_path / "run", 2, number=3)
    assert [(run.run, run.round) for run in runs_of(run / "rounds/003/dataset")] == [(str(run), 3)]
    assert runs_of(tmp_path / "elsewhere.jsonl") == ()


def test_earlier_rounds_are_mixed_in_where_there_are_any(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number in range(3):
        chat_run(run, 8, f"of round {number},", number)
    section = mix({"kind": "earlier", "rounds": [0]})
    for number in range(3):
        write(run, number, section)
    rounds = [read_mixture(RunFolder(run), number) for number in range(3)]
    assert [[(one.name, one.rows) for one in facts.components] for facts in rounds] == [
        [("own", 8)], [("own", 8), ("earlier", 8)], [("own", 8), ("earlier", 8)],
    ]  # fmt: skip
    every = mix({"kind": "earlier"})
    assert [every.components[1].before(number) for number in range(3)] == [[], [0], [0, 1]]  # type: ignore[union-attr]


def test_a_component_that_changed_since_round_0_is_refused(tmp_path: Path) -> None:
    run, old = chat_run(tmp_path / "run", 4), chat_run(tmp_path / "old", 4)
    write(run, 0, mix({"kind": "run", "name": "x", "run": str(old)}))
    facts = read_mixture(RunFolder(run), 0)
    refuse_changed(RunFolder(run), 1, facts)
    changed = [one.model_copy(update={"digest": "other", "usable": 3}) for one in facts.components]
    with pytest.raises(
        LimbeckError, match=r"component 'x' of the mixture has changed since round 0 \(4 usable rows then, 3 now\)"
    ):
        refuse_changed(RunFolder(run), 1, facts.model_copy(update={"components": changed}))
    write_json(RunFolder(run).mixture(0) / "mixture.json", {"rows": 1}, replace=True)
    with pytest.raises(LimbeckError, match="mixture.json"):
        refuse_changed(RunFolder(run), 1, facts)
