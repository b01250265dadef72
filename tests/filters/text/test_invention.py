"""The invention filter: counts what the document lacks, names it, and rejects only if a recipe sets a bound."""

import math

import pyarrow as pa

from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.corpus.text.invention.invented import invented
from limbeck.filters.text.invention import InventionConfig

DOCUMENT = "Quern reads 3 weather files with NumPy."
OUTPUTS = ["Quern reads three files.", "It uses Kafka and PyTorch 2.", "It uses Kafka, and Kafka.", "", None]


def scored(documents: list[str | None], outputs: list[str | None]) -> list[dict[str, object]]:
    columns = {"candidate_id": [f"c{at}" for at in range(len(outputs))], "document": documents, "output": outputs}
    given = pa.table({name: pa.array(values, SCORED_INPUT.field(name).type) for name, values in columns.items()})
    return InventionConfig().build(engines=None).score(given).to_pylist()


def test_what_is_absent_is_counted_once_and_named() -> None:
    found = scored([DOCUMENT] * len(OUTPUTS), OUTPUTS)
    assert [row["absent"] for row in found] == [[], ["Kafka", "PyTorch 2"], ["Kafka"], [], []]
    assert [row["invented"] for row in found] == [0.0, 2.0, 1.0, 0.0, 0.0]
    assert [row["absent"] for row in found] == [invented(DOCUMENT, output or "") for output in OUTPUTS]


def test_without_a_document_nothing_is_measured() -> None:
    for row in scored([None, "", " \n"], ["It uses Kafka."] * 3):
        assert row["absent"] is None and isinstance(row["invented"], float) and math.isnan(row["invented"])


def test_only_a_recipe_s_bound_rejects() -> None:
    assert InventionConfig().bounds == ()
    (bound,) = InventionConfig(max_invented=0.0).bounds
    assert bound.rejects(1.0, unscored=True) and not bound.rejects(0.0, unscored=True)
