"""The endpoint engine against the real vLLM server on loopback: same answers as the engine in this process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("vllm")

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.engine import EndpointEngine, build
from limbeck.cluster.engines.endpoint.server import problems
from limbeck.cluster.engines.local.engine import TransformersEngine
from limbeck.cluster.engines.local.engine import build as build_here
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.protocol import Message, Pair, Request, Sampling

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

MODEL = "embedded:smollm2-135m-instruct"
SUBJECTS = ("rain", "bread", "maps", "steam engines", "bees", "glass", "tides", "copper", "paper", "lighthouses")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointEngine]:
    """An engine on a server of its own, which takes about a minute to come up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # by its module: the command `vllm` asks for a distribution of that name, and the CPU build has another
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(MODEL))]
    command += ["--served-model-name", "teacher", "--enforce-eager"]  # compiling takes two minutes
    # a prompt that is spread over steps, with a seed, ends the CPU build
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "1024", "--gpu-memory-utilization", "0.3"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    config = EndpointConfig(model=MODEL, base_url=f"http://127.0.0.1:{port}/v1", max_concurrency=16)
    try:
        while problems(config):
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(1.0)
        built = build(config)
        yield built
        built.close()
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def here() -> TransformersEngine:
    return build_here(TransformersConfig(model=MODEL, device="cpu"))


def test_what_it_serves(engine: EndpointEngine) -> None:
    assert (engine.served.name, engine.context_tokens) == ("teacher", 1024)


def test_greedy_text_is_mostly_that_of_the_engine_here(engine: EndpointEngine, here: TransformersEngine) -> None:
    greedy = Sampling(24, temperature=0.0)
    requests = [Request(subject, (Message("user", f"Write one sentence about {subject}."),), greedy, 0) for subject in SUBJECTS]
    requests += [Request(f"plain {subject}", f"The history of {subject} begins", greedy, 0) for subject in SUBJECTS]
    there, expected = ({answer.request_id: answer for answer in asked.complete(requests)} for asked in (engine, here))
    assert not [answer.error for answer in there.values() if answer.error]
    assert {name: answer.prompt_tokens for name, answer in there.items()} == {n: a.prompt_tokens for n, a in expected.items()}
    equal = sum(there[request.request_id].text == expected[request.request_id].text for request in requests)
    print(f"{equal} of {len(requests)} greedy texts are equal")
    assert equal >= len(requests) // 2, "bfloat16 sums in another order part ways at near ties, and from there on"


def test_log_probabilities_are_those_of_the_engine_here(engine: EndpointEngine, here: TransformersEngine) -> None:
    pairs = [
        Pair(f"A page about {subject} says:", " It was known to people in every land, naïve or not.") for subject in SUBJECTS
    ]
    pairs += [Pair("", "Nothing stands before this."), Pair("One", " two three four", ((5, 10),)), Pair("Empty", "")]
    for there, expected in zip(engine.logprobs(pairs), here.logprobs(pairs), strict=True):
        assert there.shape == expected.shape
        np.testing.assert_allclose(there, expected, atol=0.3, rtol=0.05)
        if len(there) >= 5:  # a single token of an improbable one moves by more in bfloat16
            assert abs(float(there.mean() - expected.mean())) < 0.1


def test_samples_of_one_prompt_with_seeds(engine: EndpointEngine) -> None:
    prompt = (Message("user", "Name an animal."),)
    requests = [Request(str(n), prompt, Sampling(16, temperature=1.0, top_p=0.9, top_k=50, stop=("\n",)), n) for n in range(32)]
    answers = list(engine.complete(requests))
    assert sorted(int(answer.request_id) for answer in answers) == list(range(32))
    assert not any(answer.error for answer in answers) and len({answer.text for answer in answers}) > 8
    assert engine.usage.extra["usage_not_believed"] == 0


def test_a_prompt_that_only_the_server_finds_too_long(engine: EndpointEngine) -> None:
    (answer,) = engine.complete([Request("long", "word " * 1023, Sampling(1), 0)])
    assert answer.finish_reason in ("error", "length")
    (values,) = engine.logprobs([Pair("word", " word" * 1100)])
    assert np.isnan(values).tolist() == [True]
