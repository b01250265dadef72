"""Critics of the text alone: every score column states its unit, no rows have the same columns, and a row stands alone."""

import pyarrow as pa
import pytest

from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.filters.config import FilterConfig
from limbeck.filters.text.answer import AnswerConfig
from limbeck.filters.text.attributes import AttributesConfig
from limbeck.filters.text.heuristics import HeuristicsConfig
from limbeck.filters.text.instructions import InstructionsConfig
from limbeck.filters.text.invention import InventionConfig
from limbeck.filters.text.language import LanguageConfig
from limbeck.filters.text.privacy import PrivacyConfig
from limbeck.filters.text.repetition import RepetitionConfig
from limbeck.filters.text.toxicity import ToxicityConfig

OUTPUTS = ["It reads METAR reports, write to ada@analytical.org.", "", "Ein Satz auf Deutsch.", None, "darn it " * 30]


@pytest.fixture(
    params=[
        AnswerConfig,
        AttributesConfig,
        HeuristicsConfig,
        InstructionsConfig,
        InventionConfig,
        LanguageConfig,
        PrivacyConfig,
        RepetitionConfig,
        ToxicityConfig,
    ]
)
def config(request: pytest.FixtureRequest, tmp_path) -> FilterConfig:
    (tmp_path / "words.txt").write_text("darn\n")
    given = {"words": str(tmp_path / "words.txt")} if request.param is ToxicityConfig else {}
    made: FilterConfig = request.param(**given)
    return made


def inputs() -> pa.Table:
    rows = len(OUTPUTS)
    columns = {
        "candidate_id": [f"c{at}" for at in range(rows)],
        "source_id": ["s"] * rows,
        "prompt": ["Summarize the text."] * rows,
        "output": OUTPUTS,
        "finish_reason": ["stop"] * rows,
        "document": ["Quern reads METAR and SYNOP reports."] * rows,
        "salient": [[0, 5]] * rows,
        "reference": ["42", None, "A sentence", "7", "darn it"],
    }
    return pa.table({name: pa.array(values, SCORED_INPUT.field(name).type) for name, values in columns.items()})


def test_numbers_have_units_and_evidence_has_none(config: FilterConfig) -> None:
    scores = config.build(engines=None).score(inputs())
    assert scores.column_names[0] == "candidate_id"
    assert scores["candidate_id"].to_pylist() == inputs()["candidate_id"].to_pylist()
    for field in list(scores.schema)[1:]:
        assert (field.type == pa.float64()) == bool((field.metadata or {}).get(b"unit")), field


def test_no_rows_have_the_same_columns(config: FilterConfig) -> None:
    filter_ = config.build(engines=None)
    assert filter_.score(inputs().slice(0, 0)).schema.equals(filter_.score(inputs()).schema, check_metadata=True)


def test_a_row_scores_the_same_alone_and_in_any_order(config: FilterConfig) -> None:
    filter_ = config.build(engines=None)
    together = [repr(row) for row in filter_.score(inputs()).to_pylist()]
    apart = [repr(filter_.score(inputs().slice(at, 1)).to_pylist()[0]) for at in range(len(OUTPUTS))]
    backwards = [repr(row) for row in filter_.score(inputs().take(list(range(len(OUTPUTS)))[::-1])).to_pylist()[::-1]]
    assert together == apart == backwards
