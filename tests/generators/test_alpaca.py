"""Alpaca: the item format of prompt and response, the rules, and what becomes a candidate."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.alpaca import Alpaca, AlpacaConfig, items, prompt_of
from limbeck.generators.contract import TEACHER, Task
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.rows import AlpacaRows

RESPONSE = """ Name a river in Asia.
4. Input:
<NoInput>
4. Output:
The Mekong.
###
5. Instruction: Correct the sentence.
5. Input:
He go home.
5. Output:
He goes home.
###
"""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeds") / "seeds.csv"
    rows = "".join(f"Do thing  {number}:,{'' if number % 2 else f'in {number}'},out {number}\n" for number in range(12))
    path.write_text("instruction,input,output\n" + rows)
    return path


def run(config: AlpacaConfig, text: str, reason: str = "stop") -> tuple[list[dict], ScriptedEngine]:
    engine = ScriptedEngine(lambda request: Completion(request.request_id, text, (1,), reason, 3))  # type: ignore[arg-type]
    table = pa.table({"source_id": ["s0"], "document": [""]})
    return Runner(config.build(), 1, 0).run(table, {TEACHER: engine}).to_pylist(), engine


def rules(response: str, first: int = 4, cut_off: bool = False) -> list[str | None]:
    return [item.rule for item in items(response, first, cut_off=cut_off)]


def test_the_prompt_shows_seeds_in_the_format_that_is_asked_for() -> None:
    shots = [Task("Name a\n river:", "The Mekong."), Task("Correct it.", "He goes.", "He go.")]
    assert prompt_of(shots).partition("The 20 tasks:\n")[2] == (
        "###\n1. Instruction: Name a river\n1. Input:\n<noinput>\n1. Output:\nThe Mekong.\n"
        "###\n2. Instruction: Correct it.\n2. Input:\nHe go.\n2. Output:\nHe goes.\n###\n3. Instruction:"
    )


def test_every_constant_of_the_released_code_is_the_default(seeds: Path) -> None:
    _, engine = run(AlpacaConfig(seed_tasks=str(seeds)), RESPONSE)
    (request,) = engine.requests
    assert request.sampling == Sampling(3072, temperature=1.0, top_p=1.0, stop=("\n20", "20."))
    assert str(request.prompt).count("###\n") == 4 and str(request.prompt).endswith("\n4. Instruction:")
    assert not AlpacaConfig.grows and AlpacaConfig.invents_inputs


def test_items_become_candidates_without_a_placeholder_for_the_input(seeds: Path) -> None:
    rows, _ = run(AlpacaConfig(seed_tasks=str(seeds)), RESPONSE)
    first, second = rows
    assert (first["prompt"], first["input"], first["output"], first["error"]) == (
        "Name a river in Asia.",
        None,
        "The Mekong.",
        None,
    )
    assert (second["output"], second["error"]) == ("", "the instruction has fewer than 4 words")
    assert json.loads(second["facts"])["output"] == "He goes home."
    assert json.loads(rows[1]["facts"])["rejected_text"] == "Correct the sentence."
    assert rows[0]["steps"][0]["samples"] == [0]


def test_an_item_needs_its_number_at_each_of_its_three_fields() -> None:
    assert rules(RESPONSE.replace("Correct the", "Please correct the")) == [None, None]
    assert rules(RESPONSE.replace("5. Input", "4. Input")) == [None, "unparsed"]
    assert rules(RESPONSE.replace("4. Output:", "")) == ["unparsed", "few_words"]
    assert rules(RESPONSE.replace("5. Instruction", "6. Instruction"))[1] == "unparsed"
    assert rules("no items at all") == ["unparsed"]
    assert rules(f"{RESPONSE}6. Instruction: One")[2] == "unparsed"
    assert rules(RESPONSE, first=5) == ["unparsed", "unparsed"]


def test_only_the_last_item_of_a_response_that_was_cut_off_is_dropped() -> None:
    cut = RESPONSE.rstrip("\n#").replace("Correct the", "Please correct the")
    assert rules(cut, cut_off=True) == [None, "cut_off"] and rules(cut) == [None, None]
    assert rules(" Name a", cut_off=True) == ["cut_off"]


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [("Describe the music of Bach", "forbidden_terms"), ("write a program for me", None), ("Say it", "few_words")],
)
def test_the_rules_are_alpaca_s(instruction: str, rule: str | None) -> None:
    (item,) = items(f" {instruction}\n4. Input:\n<noinput>\n4. Output:\n", 4, cut_off=False)
    assert (item.rule, item.input, item.output) == (rule, "", ""), "instances are not checked, as published"


def test_a_chat_model_may_begin_with_the_number(seeds: Path) -> None:
    config = AlpacaConfig(seed_tasks=str(seeds), style="chat")
    for text in (RESPONSE, f"4. Instruction:{RESPONSE}", f"###\n4. Instruction:{RESPONSE}"):
        rows, engine = run(config, text)
        assert [row["error"] is None for row in rows] == [True, False]
        assert isinstance(engine.requests[0].prompt[0], Message)


def test_seeds_are_drawn_by_source(seeds: Path) -> None:
    config = AlpacaConfig(seed_tasks=str(seeds))
    asked: list[Request] = []

    def answer(request: Request) -> Completion:
        asked.append(request)
        return Completion(request.request_id, "", (), "stop", 3)

    table = pa.table({"source_id": [f"s{number}" for number in range(9)], "document": [""] * 9})
    rows = Runner(config.build(), 1, 0).run(table, {TEACHER: ScriptedEngine(answer)}).to_pylist()
    assert len({request.prompt for request in asked}) == 9 and len(rows) == 9
    with pytest.raises(LimbeckError, match="has 12 tasks, but in_context is 13"):
        Alpaca(AlpacaConfig(seed_tasks=str(seeds), in_context=13))


def test_the_recipe_s_rows_are_alpaca_s() -> None:
    data = recipes.recipe_files.read(recipes.recipe_files.find("alpaca"))
    assert isinstance(recipes.validate({**data, "rows": None}, "here").renderer, AlpacaRows)
