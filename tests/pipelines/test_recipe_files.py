"""Shipped recipes by name, override files, and the recipe text stored in a run folder."""

import json
from pathlib import Path

import pytest
import yaml

from helpers.commands import limbeck
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines import recipe_files
from limbeck.pipelines.recipe_files import SHIPPED, as_given, find, find_override, merge, read

NAMES = [recipe.name for recipe in recipe_files.shipped()]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("recipe", recipe_files.shipped(), ids=lambda recipe: recipe.name)
def test_a_shipped_recipe_has_a_name_one_line_and_a_toy(recipe: recipe_files.Shipped) -> None:
    first = recipe.path.read_text().splitlines()[0]
    assert first == f"# {recipe.description}" and len(recipe.description) > 20
    whole, toy = recipes.load(recipe.name), recipes.load(recipe.name, [], ["toy"])
    assert whole.name == toy.name == recipe.name and "toy" in recipe.overrides
    assert toy.sources.split.train < 30 and toy.generator.needs.new_tokens < whole.generator.needs.new_tokens
    assert toy.teacher == whole.teacher
    kinds = [[(filter_.kind, filter_.name, filter_.models) for filter_ in one.filters] for one in (whole, toy)]
    assert kinds[0] == kinds[1]  # the same models; bounds may be relaxed where so few rows would not survive them


def test_a_file_wins_over_a_shipped_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packages").mkdir()  # a folder does not
    assert find("quickstart") == SHIPPED / "quickstart.yaml" and find("packages") == SHIPPED / "packages.yaml"
    write(tmp_path / "quickstart", "name: mine")
    assert find("quickstart").resolve() == tmp_path / "quickstart"
    assert find(Path("quickstart")).resolve() == tmp_path / "quickstart"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quikstart", ["did you mean 'quickstart'?", ", ".join(NAMES)]),
        ("quickstart.yaml", ["did you mean 'quickstart'?", "no such file"]),
        ("recipes/zzz.yaml", ["recipes/zzz.yaml", ", ".join(NAMES)]),
        (".", ["it is a folder"]),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_nearest(name: str, words: list[str]) -> None:
    with pytest.raises(LimbeckError) as raised:
        find(name)
    assert all(word in str(raised.value) for word in words), raised.value


def test_an_override_is_a_file_or_a_name_beside_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = write(tmp_path / "recipes/mine.yaml", "name: mine")
    small = write(tmp_path / "recipes/small/mine.yaml", "rounds: 1")
    assert find_override(mine, "small") == small
    assert find_override(SHIPPED / "quickstart.yaml", "toy") == SHIPPED / "toy/quickstart.yaml"
    write(tmp_path / "small", "rounds: 3")
    assert find_override(mine, "small").resolve() == tmp_path / "small"
    with pytest.raises(LimbeckError, match="--with smal: .* did you mean 'small'.* overrides of mine.yaml: small"):
        find_override(mine, "smal")
    with pytest.raises(LimbeckError, match="alone.yaml has no named overrides"):
        find_override(write(tmp_path / "alone.yaml", "name: alone"), "toy")


BASE = {"seed": 1, "teacher": {"kind": "transformers", "model": "a", "dtype": "float32"}, "filters": [{"kind": "length"}]}


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ({"seed": 2}, "seed", 2),
        ({"seed": None}, "seed", None),
        ({"new": {"a": 1}}, "new", {"a": 1}),
        ({"teacher": {"model": "b"}}, "teacher", {"kind": "transformers", "model": "b", "dtype": "float32"}),
        (
            {"teacher": {"kind": "transformers", "model": "b"}},
            "teacher",
            {"kind": "transformers", "model": "b", "dtype": "float32"},
        ),
        ({"teacher": {"kind": "endpoint", "model": "b"}}, "teacher", {"kind": "endpoint", "model": "b"}),
        ({"teacher": None}, "teacher", None),
        ({"filters": [{"kind": "pmi"}, {"kind": "nli"}]}, "filters", [{"kind": "pmi"}, {"kind": "nli"}]),
        ({"filters": []}, "filters", []),
    ],
)
def test_mappings_are_merged_and_all_else_is_replaced(override: dict[str, object], key: str, expected: object) -> None:
    before = json.dumps(BASE)
    merged = merge(BASE, override)
    assert merged[key] == expected
    assert {**merged, key: None} == {**BASE, key: None} and json.dumps(BASE) == before


def test_a_section_without_a_kind_is_merged_with_one_that_states_it() -> None:
    assert merge({"student": {"epochs": 2}}, {"student": {"kind": "sft"}}) == {"student": {"epochs": 2, "kind": "sft"}}
    deep = {"student": {"kind": "sft", "base": {"kind": "layers", "layers": 2}}}
    changed = merge(deep, {"student": {"base": {"kind": "model", "model": "a"}}})
    assert changed == {"student": {"kind": "sft", "base": {"kind": "model", "model": "a"}}}


def test_overrides_come_in_order_then_the_environment_then_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOW_MANY", "3")
    base = write(tmp_path / "mine.yaml", (SHIPPED / "quickstart.yaml").read_text() + "\n# ${NOT_READ}\n")
    one = write(tmp_path / "one.yaml", "seed: 5\ngenerator: {samples: '${HOW_MANY}'}\nevaluation: {samples: 9}\n")
    two = write(tmp_path / "two.yaml", "seed: 6\n")
    found = recipes.load(base, ["evaluation.samples=7"], [one, two])
    assert (found.seed, found.generator.samples, found.evaluation.samples) == (6, 3, 7)
    assert found.generator.max_new_tokens == recipes.load(base).generator.max_new_tokens


def test_an_override_can_spare_a_variable_that_is_not_set(tmp_path: Path) -> None:
    base = write(tmp_path / "mine.yaml", (SHIPPED / "quickstart.yaml").read_text().replace("seed: 0", "seed: ${NOT_SET_HERE}"))
    assert recipes.load(base, [], [write(tmp_path / "seed.yaml", "seed: 4")]).seed == 4
    with pytest.raises(LimbeckError, match="NOT_SET_HERE"):
        recipes.load(base)


def test_what_a_run_keeps_is_the_text_as_given_and_gives_the_same_recipe(tmp_path: Path) -> None:
    base = SHIPPED / "quickstart.yaml"
    assert as_given(base) == base.read_text()
    override = write(tmp_path / "mine.yaml", "# mine\nseed: 8\nteacher: {kind: endpoint, model: m}")
    text = as_given(base, [SHIPPED / "toy/quickstart.yaml", override], ["rounds=3"])
    assert text.startswith(base.read_text().rstrip()) and "# mine\n" in text and text.endswith("# --set rounds=3\n")
    kept = write(tmp_path / "recipe.yaml", text)
    assert recipes.load(kept) == recipes.load(base, [], ["toy", override])
    assert read(kept)["teacher"] == {"kind": "endpoint", "model": "m"}


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: 1\n---\n- b\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LimbeckError, match="is not a recipe"):
        read(write(tmp_path / "broken.yaml", text))


ALIASES = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"name: {'[' * 3000}x{']' * 3000}\n", "is nested too deeply"),
        ("name: &n [*n]\n", "an alias stands for what it is part of"),
        ("sources: &s {kind: jsonl, more: *s}\n", "an alias stands for what it is part of"),
        (f"a0: &a0 [x]\n{ALIASES}", "its aliases stand for more than 100,000 values"),
    ],
    ids=["levels", "circle", "circle of mappings", "aliases of aliases"],
)
def test_a_text_that_would_never_end_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LimbeckError, match=words):
        read(write(tmp_path / "recipe.yaml", text))
    with pytest.raises(LimbeckError, match=words):
        recipe_files.parse(text, "--set x")


def test_aliases_and_merge_keys_are_read(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, x: 2}\n"
    assert read(write(tmp_path / "recipe.yaml", text)) == {
        "a": {"x": 1, "y": [1, 2]},
        "b": {"x": 1, "y": [1, 2]},
        "c": {"x": 2, "y": [1, 2]},
    }


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="is empty"):
        read(write(tmp_path / "empty.yaml", "# nothing\n"))


def test_the_command_lists_and_copies(tmp_path: Path) -> None:
    lines = limbeck("recipes").stdout.splitlines()
    listed = json.loads(limbeck("recipes", "--json").stdout)
    assert {"alpaca", "packages", "quickstart", "self-instruct"} <= set(NAMES)
    assert [line.split()[0] for line in lines] == [recipe["name"] for recipe in listed] == NAMES
    assert all(Path(recipe["path"]).is_file() and "toy" in recipe["overrides"] for recipe in listed)
    done = limbeck("recipes", "--copy", "quickstart", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    copied = tmp_path / "mine/quickstart.yaml"
    assert copied.read_text() == (SHIPPED / "quickstart.yaml").read_text()
    assert recipes.load(copied, [], ["toy"]) == recipes.load("quickstart", [], ["toy"])
    again = limbeck("recipes", "--copy", "quickstart", tmp_path / "mine")
    assert again.returncode == 1 and "exists" in again.stderr
    unknown = limbeck("recipes", "--copy", "quikstart", tmp_path)
    assert unknown.returncode == 1 and "did you mean 'quickstart'" in unknown.stderr


def test_null_takes_a_filter_out_and_nothing_else() -> None:
    whole = recipes.load("documents-qa")
    without = recipes.load("documents-qa", ["filters.nli=null", "select.duplicates=null"])
    assert [filter_.name for filter_ in whole.filters] == ["heuristics", "question_pmi", "pmi", "nli"]
    assert [filter_.name for filter_ in without.filters] == ["heuristics", "question_pmi", "pmi"] and without.select == ()
    assert without.filters == whole.filters[:3]
    with pytest.raises(LimbeckError, match="no filter is named 'nil'"):
        recipes.load("documents-qa", ["filters.nil=null"])


def test_overrides_are_valid_yaml_of_known_keys() -> None:
    for path in SHIPPED.glob("*/*.yaml"):
        override = yaml.safe_load(path.read_text())
        assert set(override) <= set(recipes.Recipe.model_fields), path


@pytest.mark.parametrize("shipped", recipe_files.shipped(), ids=lambda shipped: shipped.name)
def test_a_recorded_recipe_is_read_again(shipped: recipe_files.Shipped) -> None:
    """As `limbeck filter` and `limbeck export` read it from lock.json: with the defaults of all keys."""
    recipe = recipes.load(shipped.path)
    assert recipes.validate(recipe.model_dump(mode="json", serialize_as_any=True), "recorded") == recipe
