"""The engine of kind vllm on the real vLLM (here its CPU build): same answers as the engine in this process, and its faults."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

pytest.importorskip("vllm")

from limbeck.cluster.engines.chat import render
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine
from limbeck.cluster.engines.local.engine import build as build_here
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.protocol import (
    NO_CONTRAST,
    Completion,
    Contrast,
    EngineDied,
    Message,
    Pair,
    Request,
    Sampling,
    TokenRow,
    UserTurn,
)
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.cluster.engines.vllm.engine import VllmEngine, build
from limbeck.corpus.errors import LimbeckError

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "embedded:smollm2-135m-instruct"
CONFIG = VllmConfig(model=MODEL, context_tokens=1024, cache_bytes=1 << 30)
SUBJECTS = ("rain", "bread", "maps", "steam engines", "bees", "glass", "tides", "copper", "paper", "lighthouses")
DOCUMENT = "It was raining in the valley, and the miller's wheel turned faster than it had all year. " * 12
PAIRS = [
    *(Pair(f"A page about {subject} says:", " It was known to people in every land, naïve or not.") for subject in SUBJECTS),
    *(Pair(DOCUMENT.strip(), f" The {subject} came to the mill.") for subject in SUBJECTS),
    *(Pair("", "Nothing stands before this."), Pair("One", " two three four", ((5, 10),)), Pair("Empty", "")),
]
SAMPLED = Sampling(24, temperature=1.0, top_p=0.9, top_k=50)


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    built = build(CONFIG)
    yield built
    built.close()


@pytest.fixture(scope="module")
def here() -> TransformersEngine:
    return build_here(TransformersConfig(model=MODEL, device="cpu", context_tokens=1024))


def ask(subject: str, sampling: Sampling, seed: int = 0, name: str = "") -> Request:
    return Request(name or subject, (Message("user", f"Write one sentence about {subject}."),), sampling, seed)


def greedy_answers(asked: VllmEngine | TransformersEngine) -> dict[str, Completion]:
    greedy = Sampling(24, temperature=0.0)
    requests = [ask(subject, greedy) for subject in SUBJECTS]
    requests += [Request(f"plain {subject}", f"The history of {subject} begins", greedy, 0) for subject in SUBJECTS]
    return {answer.request_id: answer for answer in asked.complete(requests)}


def test_greedy_text_is_that_of_the_engine_here_or_parts_at_a_tie(engine: VllmEngine, here: TransformersEngine) -> None:
    there, expected = greedy_answers(engine), greedy_answers(here)
    assert not [answer.error for answer in there.values() if answer.error]
    equal = 0
    for name, answer in expected.items():
        assert there[name].prompt_tokens == answer.prompt_tokens
        if there[name].token_ids == answer.token_ids:
            assert there[name] == answer
            equal += 1
        else:
            assert gap_where_they_part(here, name, there[name], answer) < 0.3, name
    print(f"bfloat16: {equal} of {len(expected)} greedy texts are equal, the others part at a near tie")
    assert equal >= 8, "bfloat16 sums in another order part ways at near ties, and from there on"


def test_a_user_s_turn_begins_as_that_of_the_engine_here(engine: VllmEngine, here: TransformersEngine) -> None:
    before = (Message("user", "Name a river."), Message("assistant", "The Rhine."))
    requests = [
        Request(name, UserTurn(turns), Sampling(16, temperature=0.0, stop=("\n",)), 0)
        for name, turns in (("first", ()), ("next", before))
    ]
    there, expected = ({done.request_id: done for done in asked.complete(requests)} for asked in (engine, here))
    for name, answer in expected.items():
        assert there[name].error is None and there[name].prompt_tokens == answer.prompt_tokens
        assert there[name].text[:8] == answer.text[:8] and "\n" not in there[name].text


@functools.cache
def plain_model() -> torch.nn.Module:
    """The same weights as transformers runs them, in float32."""
    return AutoModelForCausalLM.from_pretrained(resolve(MODEL), dtype=torch.float32).eval()


def test_in_float32_both_say_the_same() -> None:
    wide = build(CONFIG.model_copy(update={"dtype": "float32"}))
    try:
        there, values = greedy_answers(wide), [wide.logprobs(PAIRS) for _ in range(2)]
    finally:
        wide.close()
    wide_here = build_here(TransformersConfig(model=MODEL, device="cpu", dtype="float32", context_tokens=1024))
    expected, scores = greedy_answers(wide_here), wide_here.logprobs(PAIRS)
    for found in values:
        for one, other in zip(found, scores, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)
    equal = sum(there[name] == answer for name, answer in expected.items())
    print(f"float32: {equal} of {len(expected)} greedy texts are equal")
    assert equal >= 18


def gap_where_they_part(here: TransformersEngine, name: str, one: Completion, other: Completion) -> float:
    """How much likelier, in nats, one of two texts' first unequal tokens is than the other, to the model here."""
    prompt = f"The history of {name[6:]} begins" if name.startswith("plain ") else ask(name, SAMPLED).prompt
    ends = [(*answer.token_ids, here.loaded.tokenizer.eos_token_id) for answer in (one, other)]
    place = next(i for i, (a, b) in enumerate(zip(*ends, strict=False)) if a != b)
    tokens = [*render(prompt, here.loaded.tokenizer).tokens, *one.token_ids[:place]]
    with torch.inference_mode():
        logits = plain_model()(torch.tensor([tokens])).logits[0, -1].float()
    return abs(float(logits[ends[0][place]] - logits[ends[1][place]]))


def test_log_probabilities_are_those_of_the_engine_here(engine: VllmEngine, here: TransformersEngine) -> None:
    for round_number in range(2):  # the second time the cache holds every pair whole, targets and all
        for there, expected in zip(engine.logprobs(PAIRS), here.logprobs(PAIRS), strict=True):
            assert there.shape == expected.shape, round_number
            np.testing.assert_allclose(there, expected, atol=0.3, rtol=0.05)
            if len(there) >= 5:  # a single token of an improbable one moves by more in bfloat16
                assert abs(float(there.mean() - expected.mean())) < 0.1


def test_distributions_are_those_of_the_engine_here(engine: VllmEngine, here: TransformersEngine) -> None:
    ids = tuple(here.loaded.tokenizer(DOCUMENT)["input_ids"])
    rows = [TokenRow(ids[:40], 30), TokenRow((*ids[:30], 5, 6, 7), 30), TokenRow(ids[:25], 1), TokenRow(ids * 10, 3)]
    for round_number in range(2):  # the second time from the prefix cache, as far as it may be used
        found, expected = engine.top_logprobs(rows, 30), here.top_logprobs(rows, 30)
        assert found[-1] is expected[-1] is None, round_number
        for one, other in zip(found[:-1], expected[:-1], strict=True):
            assert one is not None and other is not None and one.ids.shape == other.ids.shape
            assert np.mean([len(set(a) & set(b)) for a, b in zip(one.ids.tolist(), other.ids.tolist(), strict=True)]) > 26
            np.testing.assert_allclose(one.logprobs[:, 0], other.logprobs[:, 0], atol=0.3, rtol=0.05)
            np.testing.assert_allclose(np.exp(one.logprobs).sum(-1) + np.exp(one.tail), 1.0, atol=1e-4)
            np.testing.assert_allclose(np.exp(one.tail), np.exp(other.tail), atol=0.05)


def test_candidates_of_a_document_share_its_tokens(engine: VllmEngine) -> None:
    document = "The harbour master wrote down every ship that came in from the north, and what it carried. " * 20
    pairs = [Pair(document.strip(), f" A note on {subject}.") for subject in SUBJECTS]
    before, whole = engine.usage.forwarded_tokens, engine.count_tokens([document])[0] * len(pairs)
    engine.logprobs(pairs)
    assert engine.usage.forwarded_tokens - before < whole / 2


def test_seeds_repeat_and_differ(engine: VllmEngine) -> None:
    requests = [ask("foxes", SAMPLED, seed, str(seed)) for seed in range(16)]
    first, again = ({a.request_id: a.text for a in engine.complete(requests)} for _ in range(2))
    assert sum(first[name] == again[name] for name in first) >= 14 and len(set(first.values())) > 8


def test_callers_in_threads_share_one_batch(engine: VllmEngine) -> None:
    found: dict[str, str] = {}

    def part(number: int) -> None:
        for answer in engine.complete([ask(subject, SAMPLED, number, f"{number} {subject}") for subject in SUBJECTS]):
            found[answer.request_id] = answer.text

    threads = [threading.Thread(target=part, args=(number,)) for number in range(6)]
    before = engine.usage.model_seconds
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60 and all(found.values())
    assert 0 < engine.usage.model_seconds - before <= time.perf_counter() - began + 0.1


def test_what_cannot_run_costs_one_row(engine: VllmEngine) -> None:
    requests = [
        Request("long", "word " * 2000, Sampling(8), 0),
        Request("empty", "", Sampling(8), 0),
        Request("broken", "\udc80", Sampling(8), 0),
        ask("rain", Sampling(8, regex="[0-9"), name="grammar"),
        ask("rain", Sampling(8, contrast=Contrast(0.1, 3.5, "TL;DR:")), name="contrast"),
        ask("rain", Sampling(8), name="good"),
    ]
    answers = {answer.request_id: answer for answer in engine.complete(requests)}
    assert {name for name, answer in answers.items() if answer.error} == {"long", "empty", "broken", "grammar", "contrast"}
    assert answers["contrast"].error == NO_CONTRAST
    assert "the context holds 1024" in (answers["long"].error or "") and "Unicode" in (answers["broken"].error or "")
    assert answers["good"].text


def test_a_whole_context_can_be_scored_and_no_more(engine: VllmEngine) -> None:
    fits, beyond = engine.logprobs([Pair("word", " word" * 1023), Pair("word", " word" * 1024)])
    assert fits.shape == (1023,) and np.isfinite(fits).all()
    assert np.isnan(beyond).tolist() == [True]


def test_structured_output_keeps_to_its_structure(engine: VllmEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    asked = Sampling(64, temperature=1.0, json_schema=json.dumps(schema))
    people = list(engine.complete([ask("a person", asked, n, str(n)) for n in range(8)]))
    whole = [json.loads(answer.text) for answer in people if answer.finish_reason == "stop"]
    assert whole and all(set(person) == {"name", "age"} and 0 <= person["age"] <= 99 for person in whole)
    dates = list(engine.complete([ask("a date", Sampling(24, regex=r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), n, str(n)) for n in range(4)]))
    assert all(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", answer.text) for answer in dates)


def test_stop_strings_end_a_text(engine: VllmEngine) -> None:
    request = Request("count", "One, two, three, four,", Sampling(24, temperature=0.0, stop=(",",)), 0)
    (answer,) = engine.complete([request])
    assert "," not in answer.text and answer.finish_reason == "stop"


def test_a_model_or_setting_that_vllm_does_not_take_is_one_sentence() -> None:
    with pytest.raises(LimbeckError, match="does not accept|does not exist"):
        build(VllmConfig(model="/nowhere/model"))
    with pytest.raises(LimbeckError, match="no adapter_config.json"):
        build(CONFIG.model_copy(update={"lora": "/nowhere"}))


def test_its_process_killed_is_told_to_every_caller_and_leaves_nothing_behind() -> None:
    others = set(psutil.Process().children(recursive=True))
    engine = build(CONFIG)
    children = [child for child in psutil.Process().children(recursive=True) if child not in others]
    cores = [child for child in children if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline())]
    told: list[BaseException] = []

    def part() -> None:
        try:
            list(engine.complete([ask(subject, Sampling(400, temperature=1.0)) for subject in SUBJECTS]))
        except EngineDied as death:
            told.append(death)

    threads = [threading.Thread(target=part) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    assert cores
    os.kill(cores[0].pid, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    assert len(told) == 3 and "exited with code -9" in str(told[0])
    with pytest.raises(EngineDied):
        engine.logprobs([Pair("a", " b")])
    engine.close()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_processes_end_with_the_one_that_started_them() -> None:
    program = (
        "import os, time\nfrom limbeck.cluster.engines.vllm.engine import build\n"
        "from limbeck.cluster.engines.vllm.config import VllmConfig\n"
        f"if __name__ == '__main__':\n    engine = build(VllmConfig.model_validate({CONFIG.model_dump()!r}))\n"
        "    print('it is running', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        while b"it is running" not in started.stdout.readline():
            assert started.poll() is None
        children = psutil.Process(started.pid).children(recursive=True)
        assert len(children) >= 2
        started.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
