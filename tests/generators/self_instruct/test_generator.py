"""The script of Self-Instruct on an engine without weights: prompts, decoding, every step in both forms, and what is kept."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rouge_score.rouge_scorer import RougeScorer

from helpers.instructing_engine import InstructingEngine
from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.contract import TEACHER, Question, Task
from limbeck.generators.instruction_tasks import REASONS
from limbeck.generators.runner import Runner
from limbeck.generators.self_instruct.decoding import ClassificationStep
from limbeck.generators.self_instruct.generator import SelfInstructConfig
from limbeck.generators.self_instruct.prompts import examples_of, is_classification, task_list
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.rows import WITH_INPUT, WITHOUT_INPUT, Answered, SelfInstructRows

SERIES, GENERATION, CLASSIFICATION = "A series of", "Write examples for each task", "Write examples for each classification"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tasks, four of them classification."""
    path = tmp_path_factory.mktemp("seeds") / "seeds.jsonl"
    rows = [
        {
            "instruction": f"{verb} {thing} number {number}:",
            "instances": [{"input": f"in {number}" if number % 2 else "", "output": f"out {number}"}],
            "is_classification": number % 3 == 0,
        }
        for number, (verb, thing) in enumerate(zip("ABCDEFGHIJKL", "abcdefghijkl", strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plain(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content


def engine(
    first: str, third: str | Callable[[Request], str] = "Example 1\nInput: a\nOutput: b", labels: float = -2.0, **reasons: str
) -> ScriptedEngine:
    """Answers by step; `reasons`: the finish reason of a step; a task has the log-probability -1 among the others."""

    def answer(request: Request) -> Completion:
        step = "series" if plain(request).startswith(SERIES) else "instances"
        text = first if step == "series" else third if isinstance(third, str) else third(request)
        reason: Any = reasons.get(step, "stop")
        return Completion(request.request_id, text, (1, 2), reason, 3, "no room" if reason == "error" else None)

    return ScriptedEngine(answer, lambda pair: [labels if pair.context == task_list(True) else -1.0])


def run(
    config: SelfInstructConfig, asked: Any, accepted: Sequence[Task] = (), count: int = 1, across: bool = False
) -> list[dict]:
    table = pa.table({"source_id": [f"s{number}" for number in range(count)], "document": [""] * count})
    runner = Runner(config.build(), 1, 0, across_callers=across, accepted=accepted)
    return runner.run(table, {TEACHER: asked}).to_pylist()


def facts(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["facts"] or "{}")


def test_every_constant_of_the_paper_is_the_default() -> None:
    config = SelfInstructConfig()
    assert config.instructions.sampling == Sampling(
        1024, temperature=0.7, top_p=0.5, stop=("\n\n", "\n16", "16.", "16 ."), presence_penalty=2.0
    )
    assert config.instances.sampling_of(False) == Sampling(
        350, temperature=0.0, stop=("Example 6", "Task:"), presence_penalty=1.5
    )
    assert config.instances.sampling_of(True).max_new_tokens == 300
    assert config.classification.sampling == Sampling(3, temperature=0.0, stop=("\n", "Task"))
    assert (config.in_context, config.from_pool, config.max_instances, config.max_rouge_l) == (8, 2, 5, 0.7)


def test_the_few_shot_prompt_of_step_2_has_12_classification_tasks_and_19_others() -> None:
    prompt = is_classification("Sort words.\n")
    assert prompt.count("Is it classification? Yes\n") == 12 and prompt.count("Is it classification? No\n") == 19
    assert prompt.endswith("\n\nTask: Sort words.\nIs it classification?")
    assert all(examples_of("Sort words.", kind).endswith("\n\nTask: Sort words.\n") for kind in (True, False))


def test_the_prompt_of_step_1_is_a_numbered_list_of_eight_seeds(seeds: Path) -> None:
    asked = engine(" Name a river in Asia.")
    run(SelfInstructConfig(seed_tasks=str(seeds)), asked, count=5)
    prompts = [plain(request) for request in asked.requests if plain(request).startswith(SERIES)]
    assert len(set(prompts)) == 5, "drawn by source"
    for prompt in prompts:
        _, *tasks, last = prompt.split("\n")
        assert len({task.partition(". ")[2] for task in tasks}) == 8 and last == "9."
        assert [task.partition(".")[0] for task in tasks] == [str(number) for number in range(1, 9)]
        assert not any(task.endswith(":") for task in tasks)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_up_to_two_tasks_in_context_were_accepted_earlier(seeds: Path, count: int) -> None:
    accepted = [Task(f"Accepted task of number {number // 2}", "x") for number in range(2 * count)]  # two instances each
    asked = engine(" Name a river in Asia.")
    run(SelfInstructConfig(seed_tasks=str(seeds)), asked, accepted, count=20)
    prompts = [plain(request) for request in asked.requests if plain(request).startswith(SERIES)]
    shown = [[line.partition(". ")[2] for line in prompt.split("\n") if "Accepted" in line] for prompt in prompts]
    assert all(len(set(tasks)) == len(tasks) == min(2, count) for tasks in shown)
    if count == 9:
        places = {prompt.split("\n").index(line) for prompt in prompts for line in prompt.split("\n") if "Accepted" in line}
        assert len(places) > 4, "shuffled"


def test_classification_tasks_alone(seeds: Path) -> None:
    config = SelfInstructConfig(seed_tasks=str(seeds), tasks="classification", in_context=4)
    asked = engine(" Name a river in Asia.")
    run(config, asked)
    prompt = plain(asked.requests[0])
    assert "classification tasks" in prompt and all(f"{letter} {letter.lower()} number" in prompt for letter in "ADGJ")
    with pytest.raises(LimbeckError, match="has 4 classification tasks, but in_context is 5; add tasks or lower it"):
        SelfInstructConfig(seed_tasks=str(seeds), tasks="classification", in_context=5).build()


def test_a_response_that_was_cut_off_is_dropped_whole(seeds: Path) -> None:
    asked = engine(" Name a river in Asia.\n10. Name a town in Asia.", series="length")
    (row,) = run(SelfInstructConfig(seed_tasks=str(seeds)), asked)
    assert row["error"] == REASONS["cut_off"] and facts(row)["rule"] == "cut_off" and len(asked.requests) == 1


def test_each_refused_instruction_is_a_row_with_its_rule_and_costs_no_further_step(seeds: Path) -> None:
    texts = [
        ("Say it", "few_words"),
        ("word " * 151, "many_words"),
        ("Draw the town of the river", "forbidden_terms"),
        ("Write a program about the river", "write_a_program"),
        ("(Name) a river in Asia", "starts_with_punctuation"),
        ("Çay is what in English", "starts_non_ascii"),
        ("B b number 1", "rouge_l"),
        ("B b number 1 please", "rouge_l"),
        ("Name a long river in Asia", None),
        ("Name a long river of Asia", "rouge_l"),
    ]
    response = "".join(f" {text}\n{number}." for number, (text, _) in enumerate(texts, 10)).rpartition("\n")[0]
    asked = engine(response)
    rows = run(SelfInstructConfig(seed_tasks=str(seeds)), asked)
    assert [facts(row).get("rule") for row in rows] == [rule for _, rule in texts]
    assert all(row["error"].startswith(REASONS[facts(row)["rule"]]) for row in rows if row["error"])
    assert rows[-1]["error"].endswith("ROUGE-L 0.8333333333333334 with 'Name a long river in asia'")
    assert len(asked.requests) == 2 and len(asked.pairs) == 2


def test_nothing_readable_is_a_row_too(seeds: Path) -> None:
    (row,) = run(SelfInstructConfig(seed_tasks=str(seeds)), engine(" \n10. "))
    assert facts(row) == {"rule": "unparsed", "rejected_text": " \n10. "}
    (row,) = run(SelfInstructConfig(seed_tasks=str(seeds)), engine(" Name a river in Asia.", "no such words"))
    assert facts(row)["rule"] == "no_instance" and row["prompt"] == "Name a river in asia."


def test_the_lists_of_step_2_have_the_tasks_of_its_text_form() -> None:
    labels, others = task_list(True).split("\n"), task_list(False).split("\n")
    assert labels[-1] == "13." and others[-1] == "20." and labels[0] != others[0]
    prompt = is_classification("Sort words.")
    for lines, answer in (labels, "Yes"), (others, "No"):
        tasks = [line.partition(". ")[2] for line in lines[1:-1]]
        assert all(f"Task: {task}\nIs it classification? {answer}\n" in prompt for task in tasks)


@pytest.mark.parametrize(
    ("labels", "threshold", "expected"), [(-0.5, 0.0, True), (-2.0, 0.0, False), (-2.0, -1.5, True), (-0.5, 3.5, False)]
)
def test_step_2_compares_the_two_lists(seeds: Path, labels: float, threshold: float, expected: bool) -> None:
    step = ClassificationStep(threshold=threshold)
    text = "Example 1\nOutput: Class label: A\nText: a"
    asked = engine(" Name a river in Asia.", text, labels)
    (row,) = run(SelfInstructConfig(seed_tasks=str(seeds), classification=step), asked)
    assert facts(row) == {"classification": expected, "classification_nats": labels + 1}
    assert plain(asked.requests[1]).startswith(CLASSIFICATION if expected else GENERATION)
    assert (row["output"], row["input"]) == (("A", "Text: a") if expected else ("Class label: A\nText: a", None))
    assert [(pair.context, pair.target) for pair in asked.pairs] == [
        (task_list(True), " Name a river in asia."),
        (task_list(False), " Name a river in asia."),
    ]


def test_a_task_that_cannot_be_scored_costs_that_task(seeds: Path) -> None:
    (row,) = run(SelfInstructConfig(seed_tasks=str(seeds)), engine(" Name a river in Asia.", labels=math.nan))
    assert "could not score the task" in row["error"] and row["prompt"] == "Name a river in asia."


@pytest.mark.parametrize(("said", "expected"), [(" Yes", True), ("YES\n", True), (" No", False), ("Yes.", False)])
def test_step_2_in_text_form(seeds: Path, said: str, expected: bool) -> None:
    def answer(request: Request) -> str:
        return said if plain(request).endswith("Is it classification?") else "Class label: A\nExample 1\nOutput: b"

    asked = engine(" Name a river in Asia.", answer)
    rows = run(SelfInstructConfig(seed_tasks=str(seeds), classification=ClassificationStep(by="text")), asked)
    assert [request.sampling.max_new_tokens for request in asked.requests] == [1024, 3, 300 if expected else 350]
    assert asked.pairs == [] and {facts(row)["classification"] for row in rows} == {expected}


def test_instances_become_candidates_and_the_refused_ones_keep_their_rule(seeds: Path) -> None:
    text = "".join(f"Example {number}\nInput: {pair[0]}\nOutput: {pair[1]}\n" for number, pair in enumerate(
        [("a", "b"), ("a", "b"), ("c", "c"), ("d", ""), ("e", "f:"), ("g", "cut"), ("h", "cut")], 1))  # fmt: skip
    rows = run(SelfInstructConfig(seed_tasks=str(seeds)), engine(" Name a river in Asia.", text, instances="length"))
    rules = [None, "duplicate", "input_is_output", "empty_output", "ends_with_colon", None, "cut_off"]
    assert [facts(row).get("rule") for row in rows] == rules
    kept = [row for row in rows if not row["error"]]
    assert [(row["prompt"], row["input"], row["output"]) for row in kept] == [
        ("Name a river in asia.", "a", "b"),
        ("Name a river in asia.", "g", "cut"),
    ]
    assert {row["finish_reason"] for row in kept} == {"stop"}, "an instance before the last is complete"
    steps = [step for row in rows for step in row["steps"]]
    assert [step["finish_reason"] for step in steps if step["step"] == "instances"] == ["length"]
    assert [step["samples"] for step in steps if step["step"] == "instances"] == [[0, 5]]


def test_an_engine_error_costs_one_task(seeds: Path) -> None:
    rows = run(
        SelfInstructConfig(seed_tasks=str(seeds)), engine(" Name a river in Asia.\n10. Say why bread rises.", instances="error")
    )
    assert [(row["prompt"], row["error"]) for row in rows] == [
        ("Name a river in asia.", "no room"),
        ("Say why bread rises.", "no room"),
    ]


def test_more_tasks_than_steps_are_refused(seeds: Path) -> None:
    texts = [f"Zeta {'x' * number} eta theta {'y' * number} iota {'z' * number}" for number in range(1, 40)]
    response = "".join(f" {text}\n{number}." for number, text in enumerate(texts, 10)).rpartition("\n")[0]
    rows = run(SelfInstructConfig(seed_tasks=str(seeds)), engine(response))
    assert Counter(facts(row).get("rule") for row in rows) == {None: 21, "too_many_tasks": 18}


def test_a_chat_model_gets_the_same_texts_as_turns(seeds: Path) -> None:
    config = SelfInstructConfig(seed_tasks=str(seeds), style="chat", classification=ClassificationStep(by="text"))
    asked = engine("Of course!\n9. Name a river in Asia.\n10. Say why bread rises.")
    rows = run(config, asked)
    assert [row["prompt"] for row in rows] == ["Name a river in asia.", "Say why bread rises."]
    assert all(isinstance(request.prompt, tuple) and isinstance(request.prompt[0], Message) for request in asked.requests)
    first, second, third = (plain(request) for request in asked.requests[:3])
    assert first.endswith("numbers 9 to 16: one new task in each line, unlike those above.")
    assert second.endswith("Yes or No only.") and "Is it classification?" in second
    assert third.startswith(GENERATION) and "of the last task only" in third
    assert config.needs.chat and not SelfInstructConfig(seed_tasks=str(seeds)).needs.chat
    assert all("\n\n" not in request.sampling.stop for request in asked.requests), "chat models write blank lines"


def test_seed_tasks_that_cannot_be_used(tmp_path: Path, seeds: Path) -> None:
    for text, message in [
        ("", "has no task"),
        ('{"instruction": ""}\n', "empty instruction; fix or delete the line"),
        ('{"text": "a"}\n', "instruction"),
        ("".join(json.dumps({"instruction": f"Task {n}", "output": "x"}) + "\n" for n in range(7)), "has 7 tasks"),
    ]:  # fmt: skip
        path = tmp_path / "bad.jsonl"
        path.write_text(text)
        (problem,) = SelfInstructConfig(seed_tasks=str(path)).problems({})
        assert message in problem
    (problem,) = SelfInstructConfig(seed_tasks=str(tmp_path / "none.jsonl")).problems({})
    assert "no such file of seed tasks" in problem
    assert SelfInstructConfig(seed_tasks=str(seeds), in_context=4, from_pool=5).problems({}) == [
        "from_pool 5 exceeds in_context 4; lower it"
    ]
    assert SelfInstructConfig(seed_tasks=str(seeds)).problems({}) == []


@pytest.mark.parametrize("across", [False, True])
def test_every_accepted_instruction_is_at_most_07_from_all_others_of_its_response_and_the_pool(seeds: Path, across: bool) -> None:
    accepted = [Task("Describe the careful harbour without a bridge", "x"), Task("Sort the letters of the market", "y")]
    rows = run(SelfInstructConfig(seed_tasks=str(seeds)), InstructingEngine(), accepted, count=60, across=across)
    rules = Counter(facts(row).get("rule") for row in rows)
    assert {"rouge_l", "few_words", "forbidden_terms", "write_a_program", "cut_off", "duplicate", "contradicted"} <= rules.keys()
    assert rules[None] > 100
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    known = [json.loads(line)["instruction"] for line in seeds.read_text().splitlines()] + [task.prompt for task in accepted]
    for source in {row["source_id"] for row in rows}:
        new = list(dict.fromkeys(row["prompt"] for row in rows if row["source_id"] == source and not row["error"]))
        for place, text in enumerate(new):
            assert max(scorer.score(other, text)["rougeL"].fmeasure for other in [*known, *new[:place], "-"]) <= 0.7
    refused = [facts(row) for row in rows if facts(row).get("rule") == "rouge_l"]
    for fact in refused:
        assert scorer.score(fact["nearest"], fact["rejected_text"])["rougeL"].fmeasure == fact["rouge_l"] > 0.7


def test_all_13_templates_are_drawn_and_are_the_recipe_s_default(seeds: Path) -> None:
    data = recipes.recipe_files.read(recipes.recipe_files.find("self-instruct"))
    recipe = recipes.validate({**data, "rows": None}, "here")
    assert isinstance(recipe.renderer, SelfInstructRows) and recipe.rows is None
    rows = [row for row in run(SelfInstructConfig(seed_tasks=str(seeds)), InstructingEngine(), count=120) if not row["error"]]
    found = set()
    for row in rows:
        question = Question(row["source_id"], row["prompt"], input=row["input"])
        prompt = recipe.renderer.row(Answered(question, row["output"])).prompt
        for template in WITH_INPUT if row["input"] else WITHOUT_INPUT:
            if prompt == template.format(instruction=row["prompt"], input=row["input"]):
                found.add(template)
    assert found == {*WITH_INPUT, *WITHOUT_INPUT}
