"""What `own_generator` accepts, and what it refuses before a run starts."""

import functools
from typing import Any

import pytest

from limbeck.corpus.errors import LimbeckError
from limbeck.generators.own import own_generator
from limbeck.pipelines import recipe as recipes


def script(source: Any, draw: Any, pool: Any) -> Any:
    return []
    yield


@pytest.mark.parametrize(
    ("function", "settings", "words"),
    [
        (functools.partial(script, None), {}, "define it with def"),
        ("script", {}, "define it with def"),
        (lambda source, draw: None, {}, "has other arguments"),
        (script, {"answers": 3}, "answers of generator 'mine' is not a Sampling"),
        (script, {"sample": 3}, "sample"),
        (script, {"named_engines": {"judge": 3}}, "engine 'judge' of generator 'mine' is 3"),
        (script, {"candidates": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_a_generator_is_refused(function: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(LimbeckError, match=words) as caught:
        own_generator("mine", function, **settings)
    assert "\n" not in str(caught.value)


def recipe(**changes: Any) -> recipes.Recipe:
    data = {
        "name": "own",
        "sources": {"kind": "draws", "count": 9},
        "teacher": {"kind": "transformers", "model": "unused"},
        "generator": {"kind": "summaries"},
        "filters": [{"kind": "length"}],
        **changes,
    }
    return recipes.validate(data, "here")


def test_what_it_declares_of_its_task_is_what_a_config_declares() -> None:
    own = own_generator("mine", script, measures=["distinct_2"], controls=[], grows=True)
    assert (own.measures, own.controls, own.grows) == (("distinct_2",), (), True)
    plain = own_generator("mine", script)
    assert (plain.measures, plain.controls, plain.grows) == (None, ("mismatched",), False)


@pytest.mark.parametrize(
    ("declared", "sections", "words"),
    [
        ({"measures": ["rouge"]}, {}, "declares the measure 'rouge'; known: pass_rate, rouge_1"),
        ({"controls": ["lead-3"]}, {}, "declares the control 'lead-3'; known: first-sentence"),
        ({"grows": True}, {}, "wave_sources: W"),
        ({"grows": True}, {"target": 5}, "wave_sources: W"),
    ],
)
def test_a_generator_that_does_not_fit_the_recipe_is_refused(
    declared: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    put = recipe(**sections).model_copy(update={"generator": own_generator("mine", script, **declared)})
    with pytest.raises(LimbeckError, match=words):
        put.refuse_contradictions()


def test_a_growing_generator_with_waves_is_accepted() -> None:
    put = recipe(target={"rows": 5, "wave_sources": 3})
    put.model_copy(update={"generator": own_generator("mine", script, grows=True)}).refuse_contradictions()
