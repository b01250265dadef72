"""What is recorded of a mixture: the file mixture.json in its folder, and the same in report.json."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from limbeck.corpus.config import Config

FACTS = "mixture.json"
"""File with the facts of a mixture, in its folder."""


class RunOfRows(Config):
    """A run whose dataset rows were mixed in; `run` is its folder."""

    run: str
    round: int | None = None
    selection: str | None = None


class MixedComponent(Config):
    """One component of a mixture: what was read, and what of it is used."""

    name: str
    kind: Literal["own", "earlier", "run", "rows"]
    given: str = Field(description="where its rows come from: a folder, a path, or a dataset")
    rows_read: int = Field(ge=0)
    usable: int = Field(ge=0)
    unusable: dict[str, int] = Field(description="reason → rows")
    weight: float | None = Field(description="as stated; null: by size")
    cap: int | None
    share: float = Field(ge=0, le=1, description="of the mixture, as asked")
    rows: int = Field(ge=0, description="rows of the mixture")
    distinct_rows: int = Field(ge=0, description="how many different rows those are")
    digest: str = Field(description="of all its usable rows, in any order")


class MixtureFacts(Config):
    """mixture.json."""

    name: str
    seed: int
    rows: int = Field(ge=0)
    temperature: float | None = Field(description="null: weights are stated")
    components: list[MixedComponent]
    runs: list[RunOfRows] = Field(description="the runs that rows come from, those of mixed-in mixtures included")


def mixture_file(folder: Path) -> Path:
    """Where a mixture's facts are stored."""
    return folder / FACTS
