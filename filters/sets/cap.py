"""At most so many rows per value of a fact, such as the task of a templated row (FLAN's and T5's cap per data set)."""

import json
from collections import Counter
from typing import Literal

import pyarrow as pa
from pydantic import Field

from limbeck.corpus.config import MOST_ROWS
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.seeds import derive_seed
from limbeck.filters.config import Name, SetFilterConfig

CAP = pa.schema([pa.field("candidate_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])


class CapConfig(SetFilterConfig):
    """The fact whose values are counted, and how many rows of each value are kept."""

    kind: Literal["cap"] = "cap"
    name: Name = "cap"
    by: str = Field("task", min_length=1, description="a fact of the candidates, such as task, template, language or operator")
    most: int = Field(ge=1, le=MOST_ROWS, description="rows kept of each value")
    most_of: dict[str, int] = Field(default_factory=dict, description="value: the rows kept of it, in place of `most`; 0: none")
    seed: int = Field(0, ge=0, description="which rows are kept")

    @property
    def needs(self) -> frozenset[str]:
        """The facts."""
        return frozenset(("facts",))

    def problems(self) -> list[str]:
        """A number of rows that is negative."""
        return [
            f"most_of.{value} is {most}, but rows are counted from 0; raise it"
            for value, most in self.most_of.items()
            if most < 0
        ]

    def build(self) -> "CapFilter":
        """Return the filter."""
        return CapFilter(self)


class CapFilter:
    """Keeps the rows of each value that come first in an order drawn by the seed."""

    def __init__(self, config: CapConfig) -> None:
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each row beyond the cap of its value; rows without the fact are one more value.

        The order is drawn by the seed from the candidates' ids. Raises LimbeckError if no row has the fact. O(n log n).
        """
        config = self._config
        facts = [json.loads(text) if text else {} for text in survivors["facts"].to_pylist()]
        if facts and not any(config.by in own for own in facts):
            known = sorted({name for own in facts for name in own})
            raise LimbeckError(
                f"filter {self.name} caps rows by the fact {config.by!r}, which no candidate has; "
                f"{'choose one of ' + ', '.join(known) if known else 'this generator records none: remove the filter'}"
            )
        ids = survivors["candidate_id"].to_pylist()
        taken, rows = Counter[str](), list[dict[str, str]]()
        for place in sorted(range(len(ids)), key=lambda place: (derive_seed(config.seed, "cap", ids[place]), ids[place])):
            value = _shown(facts[place].get(config.by))
            most = config.most_of.get(value, config.most)
            if taken[value] >= most:
                kept = f"row with {config.by} {value} is" if most == 1 else f"rows with {config.by} {value} are"
                rows.append({"candidate_id": ids[place], "reason": f"{most} {kept} kept"})
            taken[value] += 1
        return pa.Table.from_pylist(rows, schema=CAP)


def _shown(value: object) -> str:
    """A value as reasons and `most_of` name it."""
    return "(none)" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
