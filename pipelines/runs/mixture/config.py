"""The recipe's `mix:` section, and the file of `limbeck mix`: which datasets are mixed, and in which proportions."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from limbeck.corpus.config import MOST_ROWS, NAME, Config
from limbeck.corpus.source_kinds import DELIMITER, QUOTE
from limbeck.corpus.tables import TABLES
from limbeck.pipelines.runs.rows import ChatRows, RowsConfig


class Component(Config):
    """Fields of every component."""

    name: str = Field(pattern=f"^{NAME}$", description="unique in the mixture; rows are marked with it")
    weight: float | None = Field(None, ge=0, description="its share, relative to the other weights; null: by size")
    cap: int | None = Field(None, ge=1, le=MOST_ROWS, description="at most this many rows of it; null: no limit")

    @property
    def given(self) -> str:
        """Where its rows come from, for records and messages."""
        raise NotImplementedError


class OwnComponent(Component):
    """The dataset of the round whose student is trained."""

    kind: Literal["own"]
    name: str = Field("own", pattern=f"^{NAME}$")

    @property
    def given(self) -> str:
        """The same in every run."""
        return "the dataset of the round"


class EarlierComponent(Component):
    """The datasets of earlier rounds of the same run; left out in rounds that have none."""

    kind: Literal["earlier"]
    name: str = Field("earlier", pattern=f"^{NAME}$")
    rounds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, strict=False, min_length=1, description="only these rounds; null: all before the current one"
    )

    def before(self, number: int) -> list[int]:
        """The rounds whose rows a student of round `number` is given."""
        return [earlier for earlier in range(number) if self.rounds is None or earlier in self.rounds]

    @property
    def given(self) -> str:
        """The rounds."""
        return "earlier rounds" if self.rounds is None else f"rounds {', '.join(map(str, self.rounds))}"


class RunComponent(Component):
    """The dataset of another run, or a selection of it."""

    kind: Literal["run"]
    run: str = Field(description="a run folder")
    round: Annotated[int, Field(ge=0)] | Literal["last", "best"] = "last"
    selection: str | None = Field(None, description="the name given to `limbeck filter --apply`; null: the dataset itself")

    @property
    def given(self) -> str:
        """The run, with what is read of it."""
        chosen = "" if self.selection is None else f", selection {self.selection}"
        return f"{self.run}, round {self.round}{chosen}"


class RowsComponent(Component):
    """Existing data: prompt and completion, messages, or instruction, input and output; or a mixed dataset."""

    kind: Literal["rows"]
    path: str | None = Field(None, description=f"a file, a folder or a glob of {', '.join(TABLES)}")
    dataset: str | None = Field(None, description="in place of path: the id of a Hugging Face dataset, or a local folder")
    dataset_configuration: str | None = Field(None, description="the dataset's configuration, if it has several")
    dataset_split: str = "train"
    delimiter: str | None = Field(None, pattern=DELIMITER, description="between the cells of CSV and TSV; null: by the suffix")
    quote: str | None = Field('"', pattern=QUOTE, description="around cells of CSV and TSV; null: cells are not quoted")

    @model_validator(mode="after")
    def _check_input(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("the rows come from either path or dataset; set one of them")
        return self

    @property
    def given(self) -> str:
        """The path or dataset."""
        return str(self.path if self.dataset is None else self.dataset)


AnyComponent = Annotated[OwnComponent | EarlierComponent | RunComponent | RowsComponent, Field(discriminator="kind")]
OtherComponent = Annotated[RunComponent | RowsComponent, Field(discriminator="kind")]


class Proportions(Config):
    """How components are weighed, and how many rows the mixture has."""

    size: int | None = Field(
        None, ge=1, le=MOST_ROWS, description="rows of the mixture; null: as many as the weights allow without further repeats"
    )
    temperature: float | None = Field(
        None, gt=0, description="without weights, components weigh their size to the power 1/T; null: 1, in proportion to size"
    )
    max_repeats: int = Field(1, ge=1, le=1000, description="how many times one row may be in the mixture")

    def check(self, components: Sequence[Component]) -> None:
        """Raise ValueError if names, weights and temperature contradict each other."""
        names = [component.name for component in components]
        if double := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two components are named {double[0]!r}; rename one of them")
        stated = [component.name for component in components if component.weight is not None]
        if stated and self.temperature is not None:
            raise ValueError(f"temperature weighs components by size, but {stated[0]!r} has a weight; remove one of the two")
        if stated and len(stated) < len(names):
            missing = next(name for name in names if name not in stated)
            raise ValueError(f"{stated[0]!r} has a weight and {missing!r} has none; give every component a weight, or none")
        if stated and not any(component.weight for component in components):
            raise ValueError("the weights sum to 0; give at least one component a weight above 0")

    @property
    def tempered(self) -> float:
        """The temperature of weights by size."""
        return 1.0 if self.temperature is None else self.temperature


class MixConfig(Proportions):
    """What a run's students are trained on: the round's own dataset, and others."""

    components: tuple[AnyComponent, ...] = Field(min_length=2, strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.check(self.components)
        own = [component for component in self.components if component.kind == "own"]
        if len(own) != 1 or own[0].weight == 0:
            raise ValueError(
                "a student is trained on the dataset of its round with others; give exactly one component of kind own, with a "
                "weight above 0"
            )
        return self

    def of_round(self, number: int) -> tuple[AnyComponent, ...]:
        """The components of a round: earlier rounds only if there are any."""
        return tuple(each for each in self.components if each.kind != "earlier" or each.before(number))


class MixtureConfig(Proportions):
    """The file of `limbeck mix`: datasets of runs and existing data, mixed into a new dataset."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    rows: RowsConfig = Field(ChatRows(), description="the format of rows that are given as instruction, input and output")
    components: tuple[OtherComponent, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.check(self.components)
        return self
