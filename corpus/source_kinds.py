"""The kinds of sources: the `sources` section of a recipe, and which input each kind opens."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from limbeck.corpus.config import MOST_ROWS, Config
from limbeck.corpus.inputs import SUFFIXES, Format
from limbeck.corpus.local_labels import WORDNET
from limbeck.corpus.local_labels import Table as LabelTable
from limbeck.corpus.readers import document_tables
from limbeck.corpus.split import NEAR_DUPLICATE_THRESHOLD, SPLITS, Split
from limbeck.corpus.tables import TABLES, Delimited, Table, open_dataset, open_tables
from limbeck.corpus.vary import Vary

DELIMITER = r'^[^\r\n"]$'
QUOTE = r"^[^\r\n]$"
RowText = Literal["document", "reference"]
"""A text that a row may have beside its prompt and output."""

ROW_TEXTS: frozenset[RowText] = frozenset(("document", "reference"))

_UNQUOTED = "set `quote: null`"


class AnySources(Config):
    """Fields of every kind of source."""

    rows_are: ClassVar[str] = "documents"
    split: Split = Split()
    vary: Vary | None = Field(
        None,
        exclude_if=lambda vary: vary is None,  # the recorded sources of older runs have no such key
        description="name: values of which each source draws one by seed, for use in prompts",
    )

    @property
    def where(self) -> str:
        """The name of the input in messages."""
        raise NotImplementedError

    @property
    def max_document_tokens(self) -> int | None:
        """The maximum length of a document; None: unlimited."""
        raise NotImplementedError

    @property
    def texts(self) -> frozenset[RowText]:
        """The texts that its rows may have."""
        return frozenset(("document",))


class Sources(AnySources):
    """Fields of every kind of source that may have documents."""

    max_documents: int | None = Field(None, ge=1, description="use at most this many, drawn by seed; null: all")
    max_source_tokens: int | None = Field(512, ge=1, description="cut at a sentence end within this many; null: never")
    min_source_tokens: int = Field(1, ge=1, description="reject a document with fewer tokens than this")
    near_duplicate_threshold: float = Field(
        NEAR_DUPLICATE_THRESHOLD,
        ge=0.1,
        le=1,
        description="documents at least this similar (Jaccard similarity of word pairs) share a split",
    )
    salient_fraction: float = Field(0.25, gt=0, le=1, description="the share of a document's words that counts as salient")

    @model_validator(mode="after")
    def _check_tokens(self) -> "Sources":
        if self.max_source_tokens is not None and self.min_source_tokens > self.max_source_tokens:
            raise ValueError(f"min_source_tokens {self.min_source_tokens} exceeds max_source_tokens {self.max_source_tokens}")
        return self

    @property
    def max_document_tokens(self) -> int | None:
        """The length at which documents are cut."""
        return self.max_source_tokens


class FileSources(Sources):
    """Sources from files."""

    path: str

    @property
    def where(self) -> str:
        """The path."""
        return self.path


class TextSources(FileSources):
    """Text files, one document each."""

    kind: Literal["text"]
    path: str = Field(description=f"a file, a folder (its {', '.join(SUFFIXES['text'])}, at any depth) or a glob")


class RowSources(FileSources):
    """Files with one document per row."""

    format: ClassVar[Format]

    document_column: str = "text"
    reference_column: str | None = None

    @property
    def texts(self) -> frozenset[RowText]:
        """Documents, and references if they have a column."""
        return _texts_of(self.document_column, self.reference_column)

    def tables(self) -> Iterator[Table]:
        """Open the files; raises LimbeckError if there are none, or one has another format."""
        return document_tables(self.path, self.format, self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(column for column in (self.document_column, self.reference_column) if column is not None)


class JsonlSources(RowSources):
    """JSON Lines files, one document per line, and JSON arrays."""

    format: ClassVar[Format] = "JSON"

    kind: Literal["jsonl"]
    path: str = Field(description=f"a file, a folder (its {', '.join(SUFFIXES['JSON'])}) or a glob")


class CsvSources(RowSources):
    """CSV and TSV files with a header, one document per row."""

    format: ClassVar[Format] = "CSV"

    kind: Literal["csv"]
    path: str = Field(description=f"a file, a folder (its {', '.join(SUFFIXES['CSV'])}) or a glob")
    delimiter: str | None = Field(None, pattern=DELIMITER, description="between cells; null: by the suffix")
    quote: str | None = Field('"', pattern=QUOTE, description="around cells; null: cells are not quoted")

    def tables(self) -> Iterator[Table]:
        """Open the files; raises LimbeckError if there are none, or one has another format."""
        return document_tables(self.path, self.format, self.columns, Delimited(self.delimiter, self.quote, _UNQUOTED))


class ParquetSources(RowSources):
    """Parquet files, one document per row."""

    format: ClassVar[Format] = "Parquet"

    kind: Literal["parquet"]
    path: str = Field(description=f"a file, a folder (its {', '.join(SUFFIXES['Parquet'])}) or a glob")


class HuggingFaceSources(Sources):
    """A Hugging Face dataset, one document per row."""

    kind: Literal["huggingface"]
    dataset: str = Field(description="an id, or a local folder")
    name: str | None = Field(None, description="the dataset's configuration, if it has several")
    dataset_split: str = "train"
    document_column: str = "text"
    reference_column: str | None = None

    def tables(self) -> Iterator[Table]:
        """Open the dataset; raises LimbeckError if it is missing."""
        columns = [column for column in (self.document_column, self.reference_column) if column is not None]
        return open_dataset(self.dataset, self.name, self.dataset_split, columns)

    @property
    def texts(self) -> frozenset[RowText]:
        """Documents, and references if they have a column."""
        return _texts_of(self.document_column, self.reference_column)

    @property
    def where(self) -> str:
        """The dataset."""
        return self.dataset


class PackagesSources(Sources):
    """The long descriptions of the installed Python distributions, with their summaries as references."""

    kind: Literal["installed-packages"]
    min_source_tokens: int = Field(40, ge=1, description="reject a document with fewer tokens than this")

    @property
    def where(self) -> str:
        """The kind, since there is only one environment."""
        return self.kind

    @property
    def texts(self) -> frozenset[RowText]:
        """Documents and references."""
        return ROW_TEXTS


class TableSources(Sources):
    """Sources from a table with all its columns: files, or a Hugging Face dataset."""

    path: str | None = Field(None, description=f"a file, a folder or a glob of {', '.join(TABLES)}")
    dataset: str | None = Field(None, description="in place of path: the id of a Hugging Face dataset, or a local folder")
    name: str | None = Field(None, description="the dataset's configuration, if it has several")
    dataset_split: str = "train"
    delimiter: str | None = Field(None, pattern=DELIMITER, description="between the cells of CSV and TSV; null: by the suffix")
    quote: str | None = Field('"', pattern=QUOTE, description="around cells of CSV and TSV; null: cells are not quoted")

    @model_validator(mode="after")
    def _check_input(self) -> "TableSources":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("the rows come from either path or dataset; set one of them")
        return self

    @property
    def where(self) -> str:
        """The path or dataset."""
        return str(self.path if self.dataset is None else self.dataset)

    def tables(self) -> Iterator[Table]:
        """Open the input; raises LimbeckError if it is missing."""
        if self.dataset is not None:
            return open_dataset(self.dataset, self.name, self.dataset_split)
        return open_tables(str(self.path), Delimited(self.delimiter, self.quote, _UNQUOTED))


class TaskSources(TableSources):
    """Texts written by users: short, so at the documents' threshold all would be near-duplicates of one another."""

    near_duplicate_threshold: float = Field(
        0.5, ge=0.1, le=1, description="texts at least this similar (Jaccard similarity of word pairs) share a split"
    )


class SeedSources(TaskSources):
    """Seed tasks: `instruction`, optionally `input` and `output`, or Self-Instruct's `instances`; all columns are kept."""

    kind: Literal["seeds"]
    rows_are: ClassVar[str] = "tasks"

    @property
    def texts(self) -> frozenset[RowText]:
        """Instructions with inputs as documents, and outputs as references."""
        return ROW_TEXTS


class LabelledSources(TableSources):
    """Table rows with all their columns, with or without a document."""

    kind: Literal["labelled"]
    rows_are: ClassVar[str] = "rows"
    document_column: str | None = Field(None, description="null: the rows have no document")
    reference_column: str | None = Field(None, description="a known answer, such as the label")

    @property
    def max_document_tokens(self) -> int | None:
        """The length at which documents are cut, if there are any."""
        return self.max_source_tokens if self.document_column is not None else 0

    @property
    def texts(self) -> frozenset[RowText]:
        """Those that have a column."""
        return _texts_of(self.document_column, self.reference_column)


class LocalLabelSources(Sources):
    """Labelled tables that need no hub: generated arithmetic, classifiers of installed packages, and Debian's WordNet."""

    kind: Literal["local-labels"]
    rows_are: ClassVar[str] = "rows"
    tables: dict[LabelTable, Annotated[int, Field(ge=1, le=MOST_ROWS)]] = Field(
        min_length=1, description="table (arithmetic, packages, wordnet): at most this many of its rows"
    )
    wordnet: str = Field(WORDNET, description="the folder with WordNet's data.noun, data.verb, ...")

    @property
    def where(self) -> str:
        """The kind and its tables."""
        return f"{self.kind} ({', '.join(self.tables)})"

    @property
    def max_document_tokens(self) -> int:
        """0: there are no documents."""
        return 0

    @property
    def texts(self) -> frozenset[RowText]:
        """None: what a row's answer is depends on what is asked of it."""
        return frozenset()


class ConversationSources(TaskSources):
    """Conversations (ShareGPT's {from, value} or {role, content}); the first user turn is the document."""

    kind: Literal["conversations"]
    rows_are: ClassVar[str] = "conversations"
    column: str | None = Field(None, description="where the turns are; null: messages, conversations or conversation")


class RunSources(Sources):
    """The dataset of an earlier run, or a selection of it."""

    kind: Literal["run"]
    rows_are: ClassVar[str] = "rows"
    run: str = Field(description="a run folder")
    round: Annotated[int, Field(ge=0)] | Literal["last", "best"] = Field(
        "last", description="last: the last one that has a dataset; best: the one whose student is the run's best on dev"
    )
    selection: str | None = Field(None, description="the name given to `limbeck filter --apply`; null: the dataset itself")

    @property
    def where(self) -> str:
        """The run."""
        return f"the run {self.run}"

    @property
    def texts(self) -> frozenset[RowText]:
        """Both, which depends on the run."""
        return ROW_TEXTS


class DrawSources(AnySources):
    """Sources without any text, for generators that invent their inputs."""

    kind: Literal["draws"]
    rows_are: ClassVar[str] = "draws"
    count: int = Field(ge=1, le=MOST_ROWS, description="number of sources")

    @model_validator(mode="after")
    def _check_count(self) -> "DrawSources":
        wanted = [name for name in SPLITS if getattr(self.split, name)]
        asked = sum(share if isinstance(share, int) else 0 for share in (self.split.train, self.split.dev, self.split.test))
        if self.count < max(asked, len(wanted)):
            short = f"the split needs {asked}" if asked else f"{', '.join(wanted)} need at least one each"
            raise ValueError(f"count is {self.count}, but {short}; raise count, or set a split to 0")
        return self

    @property
    def where(self) -> str:
        """The kind."""
        return self.kind

    @property
    def max_document_tokens(self) -> int:
        """0: there are no documents."""
        return 0

    @property
    def texts(self) -> frozenset[RowText]:
        """None."""
        return frozenset()


def _texts_of(document_column: str | None, reference_column: str | None) -> frozenset[RowText]:
    columns: dict[RowText, str | None] = {"document": document_column, "reference": reference_column}
    return frozenset(text for text, column in columns.items() if column is not None)


SourcesConfig = Annotated[
    TextSources
    | JsonlSources
    | CsvSources
    | ParquetSources
    | HuggingFaceSources
    | PackagesSources
    | SeedSources
    | DrawSources
    | LabelledSources
    | LocalLabelSources
    | ConversationSources
    | RunSources,
    Field(discriminator="kind"),
]

TextualSources = (
    TextSources
    | JsonlSources
    | CsvSources
    | ParquetSources
    | HuggingFaceSources
    | PackagesSources
    | SeedSources
    | LabelledSources
    | LocalLabelSources
    | ConversationSources
    | RunSources
)
"""All kinds except draws, which have no input."""
