"""Magpie with the embedded model: what it draws from its bare chat template is mostly a complete sentence."""

import pytest

from benchmarks import magpie as benchmark
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Message, Request
from limbeck.corpus.sentences import ends_like_a_sentence
from limbeck.generators.magpie import MagpieConfig
from limbeck.pipelines import recipe as recipes

DRAWS = 200


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_most_draws_have_four_words_and_half_of_them_end_a_sentence() -> None:
    config = recipes.load("magpie").generator
    assert isinstance(config, MagpieConfig)
    engine = Engines().get(TransformersConfig(model="embedded:smollm2-135m-instruct"))
    found = benchmark.draws(engine, DRAWS, config.instruction.sampling)
    assert len(found) == DRAWS and not any(answer.error for answer in found)
    texts = [answer.strip() for answer in found if answer.completion.finish_reason == "stop"]
    words = [text for text in texts if len(text.split()) >= 4]
    assert len(words) >= 0.8 * DRAWS
    assert sum(map(ends_like_a_sentence, words)) >= 0.5 * DRAWS
    assert not any("<|im_" in text or "\n" in text for text in texts) and len(set(texts)) > 0.8 * DRAWS
    (whole,) = engine.complete([Request("0", (Message("user", "Hello"),), config.response.sampling, 0)])
    assert found[0].completion.prompt_tokens < whole.prompt_tokens, "the prompt ends before the user's text"
