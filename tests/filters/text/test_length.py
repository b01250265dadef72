"""Length: two ratios of counts that others made, and the limits a recipe may set."""

import json
import math

import pyarrow as pa
import pytest
from pydantic import ValidationError

from limbeck.filters.contract import Bound, Filter
from limbeck.filters.text.length import LengthConfig


def test_length_in_tokens_and_against_the_document() -> None:
    candidates = pa.table({"candidate_id": ["a", "b", "c"], "output_tokens": [10, 0, 5], "document_tokens": [40, 40, 0]})
    filter_ = LengthConfig().build(engines=None)
    assert isinstance(filter_, Filter)
    scores = filter_.score(candidates)
    assert scores["candidate_id"].to_pylist() == ["a", "b", "c"]
    assert scores["output_tokens"].to_pylist() == [10.0, 0.0, 5.0]
    assert scores["compression"].to_pylist()[:2] == [0.25, 0.0]
    assert math.isnan(scores["compression"].to_pylist()[2])


def test_no_candidates_no_scores() -> None:
    empty = pa.table(
        {
            "candidate_id": pa.array([], pa.string()),
            "output_tokens": pa.array([], pa.int32()),
            "document_tokens": pa.array([], pa.int32()),
        }
    )
    assert LengthConfig().build(engines=None).score(empty).num_rows == 0


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0.25, (None, 0.25, None)),
        (1, (None, 1.0, None)),
        ("calibrated", (None, None, "maximum")),
    ],
)
def test_a_limit_is_a_number_or_the_word_calibrated(
    written: object, expected: tuple[float | None, float | None, str | None]
) -> None:
    config = LengthConfig.model_validate_json(
        json.dumps({"kind": "length", "min_output_tokens": None, "max_compression": written})
    )
    (bound,) = config.bounds
    assert (bound.minimum, bound.maximum, bound.calibrate) == expected
    assert bound.reason


def test_null_switches_a_limit_off() -> None:
    config = LengthConfig.model_validate_json('{"kind": "length", "min_output_tokens": 3, "max_compression": null}')
    assert config.bounds == (Bound("output_tokens", minimum=3.0, reason="the output is too short"),)


@pytest.mark.parametrize(
    "wrong", ['{"max_compression": "often"}', '{"max_compresion": 0.5}', '{"name": "../up"}', '{"max_compression": true}']
)
def test_anything_else_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        LengthConfig.model_validate_json(wrong)
