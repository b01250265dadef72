"""At most so many rows per value of a fact, against counting by hand."""

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.sets.cap import CAP, CapConfig

TASKS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40).filter(any)


def survivors(facts: list[dict[str, Any] | None]) -> pa.Table:
    columns = {"candidate_id": [f"c{place}" for place in range(len(facts))], "source_id": ["s"] * len(facts)}
    return pa.table({**columns, "sample": [0] * len(facts), "facts": [None if one is None else json.dumps(one) for one in facts]})


def kept(table: pa.Table, config: CapConfig) -> list[str]:
    dropped = config.build().select(table)
    assert dropped.schema.equals(CAP)
    gone = dropped["candidate_id"].to_pylist()
    assert len(set(gone)) == len(gone)
    return [one for one in table["candidate_id"].to_pylist() if one not in gone]


@given(TASKS, st.integers(1, 9), st.integers(0, 3))
def test_every_value_keeps_its_rows_up_to_the_cap(tasks: list[str | None], most: int, of_a: int) -> None:
    table = survivors([None if task is None else {"task": task} for task in tasks])
    found = Counter(tasks[int(one[1:])] for one in kept(table, CapConfig(most=most, most_of={"a": of_a})))
    caps = {"a": of_a}
    assert found == Counter({task: n for task, count in Counter(tasks).items() if (n := min(count, caps.get(str(task), most)))})


def test_which_rows_are_kept_depends_on_the_seed_and_not_on_their_order() -> None:
    table = survivors([{"task": "a"}] * 30)
    one = set(kept(table, CapConfig(most=10)))
    assert one == set(kept(table.take(list(range(29, -1, -1))), CapConfig(most=10)))
    assert one != set(kept(table, CapConfig(most=10, seed=1)))


def test_reasons_name_the_value_and_its_cap() -> None:
    dropped = CapConfig(by="number", most=1).build().select(survivors([{"number": 3}, {"number": 3}, None, {}]))
    assert sorted(dropped["reason"].to_pylist()) == ["1 row with number (none) is kept", "1 row with number 3 is kept"]


def test_a_fact_that_no_row_has_is_refused() -> None:
    with pytest.raises(LimbeckError, match="by the fact 'taks', which no candidate has; choose one of task"):
        CapConfig(by="taks", most=1).build().select(survivors([{"task": "a"}]))
    with pytest.raises(LimbeckError, match="records none: remove the filter"):
        CapConfig(most=1).build().select(survivors([None]))
    assert CapConfig(most=1).build().select(survivors([])).num_rows == 0
    assert CapConfig(most=1, most_of={"a": -1}).problems() == ["most_of.a is -1, but rows are counted from 0; raise it"]
