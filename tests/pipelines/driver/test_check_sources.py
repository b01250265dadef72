"""`limbeck check` on sources without documents, and on prompts that use what sources draw."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import recipe
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.console.check import show
from limbeck.pipelines.driver.check import check, find_problems


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check")


def tiny(home: Path, prompt: str, **changes: Any) -> recipes.Recipe:
    (home / "p.jinja").write_text(prompt)
    generator = {"kind": "summaries", "samples": 2, "prompt": str(home / "p.jinja")}
    return recipes.validate(
        recipe(
            home, filters=[{"kind": "length", "max_compression": None}], student=None, rounds=1, generator=generator, **changes
        ),
        "x",
    )


def test_draws_are_counted_and_cost_no_document_tokens(home: Path, tmp_path: Path) -> None:
    found = check(tiny(home, "Ask something.", sources={"kind": "draws", "count": 40}), tmp_path)
    assert found["problems"] == []
    expected = {"train": 32, "dev": 4, "test": 4, "rejected": 0, "used": 40, "document_tokens": 0}
    assert found["documents"] == expected and found["rejected_sources"] == {}
    assert found["estimate"]["completions"] == 32 * 2 + 4 + 4 * 2


def test_sources_without_documents_need_no_context_for_them(home: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{n},{n}\n" for n in range(20)))
    sources = {"kind": "labelled", "path": str(tmp_path / "rows.csv"), "max_source_tokens": 5000}
    assert find_problems(tiny(home, "Ask something.", sources=sources), tmp_path) == []
    (problem,) = find_problems(tiny(home, "Ask.", sources={**sources, "document_column": "a"}), tmp_path)
    assert "documents of 5000" in problem


def test_a_prompt_may_use_what_sources_draw_and_nothing_else(home: Path, tmp_path: Path) -> None:
    varied = {"kind": "draws", "count": 40, "vary": {"persona": ["a nurse"], "words": {"range": [3, 9]}}}
    assert find_problems(tiny(home, "As {{ persona }}, in {{ words }} words.", sources=varied), tmp_path) == []
    (problem,) = find_problems(tiny(home, "As {{ person }}.", sources=varied), tmp_path)
    assert problem.endswith("does not render: 'person' is undefined; it may use document, persona, words")
    assert problem.startswith("generator: ")


def test_a_file_of_values_that_is_not_there_is_said_once(home: Path, tmp_path: Path) -> None:
    varied = {"kind": "draws", "count": 40, "vary": {"persona": {"file": "absent.txt"}}}
    (problem,) = check(tiny(home, "As {{ persona }}.", sources=varied), tmp_path)["problems"]
    assert problem == "sources: vary.persona: cannot read absent.txt: No such file or directory; correct the path"


def test_rows_with_control_codes_need_the_filter_that_measures_them(home: Path, tmp_path: Path) -> None:
    rows = {"kind": "control_codes", "attributes": ["length"], "filter": "codes"}
    wanted = tiny(home, "Shorten {{ document }}.", rows=rows)
    (problem,) = find_problems(wanted, tmp_path)
    assert (
        problem == "rows: no filter scores 'codes.length_bucket', which control_codes requires; add {kind: attributes} to filters"
    )
    codes = recipes.validate(
        recipe(home, filters=[{"kind": "attributes", "name": "codes"}], rows=rows, student=None, rounds=1), "x"
    )
    assert "control_codes" not in "; ".join(find_problems(codes, tmp_path))


def test_faults_of_sources_and_rows_are_named_by_the_recipe_s_own_keys(home: Path) -> None:
    with pytest.raises(LimbeckError, match="x: sources.count: "):
        tiny(home, "Ask.", sources={"kind": "draws", "count": 0})
    with pytest.raises(LimbeckError, match="x: rows.attributes: "):
        tiny(home, "Ask.", rows={"kind": "control_codes", "attributes": []})


def test_unusable_sources_are_counted_by_reason(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = '{"text": "A document of some words."}'
    lines = [document, "no json", document, '{"text": "Another one."}']
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    sources = {"kind": "jsonl", "path": str(tmp_path / "d.jsonl"), "split": {"train": 1, "dev": 0, "test": 1}}
    found = check(tiny(home, "Ask.", sources=sources), tmp_path)
    assert sum(found["rejected_sources"].values()) == found["documents"]["rejected"] == 2
    assert {"not JSON": 1}.items() <= found["rejected_sources"].items()
    show(found)
    assert "2 not used\n  not used: 1: not JSON\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["d.csv", "d.tsv.gz", "d.md.txt"])
def test_a_table_is_read_by_the_kind_of_its_format(home: Path, tmp_path: Path, name: str) -> None:
    delimiter = "\t" if "tsv" in name else ","
    rows = [f"{number}{delimiter}About the number {number} there is nothing else to say." for number in range(12)]
    content = "\n".join([f"id{delimiter}body", *rows, f"99{delimiter}"]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    sources = {"kind": "csv", "path": str(tmp_path / name), "document_column": "body", "near_duplicate_threshold": 1.0}
    found = check(tiny(home, "Ask {{ document }}.", sources=sources), tmp_path / "out")
    assert found["problems"] == [] and found["documents"]["used"] == 12 and found["rejected_sources"] == {"empty": 1}
    (problem,) = check(tiny(home, "Ask.", sources={**sources, "document_column": "bdy"}), tmp_path / "out")["problems"]
    assert problem.endswith("has no column 'bdy'; did you mean 'body'? It has body, id")
