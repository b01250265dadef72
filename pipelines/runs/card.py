"""A round's dataset as a folder that `datasets.load_dataset` opens: one Parquet file and a card that documents its origin."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field

from limbeck.corpus.config import Config
from limbeck.corpus.parts import publishing, write_json
from limbeck.pipelines.runs import preference_pairs
from limbeck.pipelines.runs.preference_pairs import Preferences, Quantiles
from limbeck.pipelines.runs.report_model import Bounds, Rows, Sources
from limbeck.pipelines.runs.self_test import SelfTest, beside

ROWS_PER_GROUP = 16_384
DATA = "data/train-00000-of-00001.parquet"
PREFERENCES = "preferences.json"


class DatasetFacts(Config):
    """What the card reports beside the rows; `licence` None: unknown, which the card states."""

    name: str
    round: int
    rows: Rows
    teacher: str
    seed: int
    bounds: Bounds | None = None
    sources: Sources | None = None
    self_tests: list[SelfTest] = Field(default_factory=list)
    licence: str | None = None
    preferences: Preferences | None = None


OPTIONAL = ("instruction", "input", "messages", "facts", "chosen_facts", "rejected_facts")
"""Columns that a dataset has only if a row has them."""


def write_dataset(
    folder: Path, batches: Iterable[pa.Table], facts: DatasetFacts, preferences: Callable[[], Preferences] | None = None
) -> DatasetFacts:
    """Publish the kept candidates and their card as one folder, atomically; returns what the card says.

    `batches`, at least one, have candidate_id, source_id, prompt and completion (lists of {role, content}), document, output,
    reference and the score columns. Of `OPTIONAL`, columns that are null in every row are left out, as is an instruction that
    equals the prompt. With `preferences` the rows are pairs or labelled answers; it is called after the last batch, for what
    `PREFERENCES` in the folder and the card say of them. An existing folder is left unchanged. Raises LimbeckError if it cannot
    be written.
    """
    with publishing(folder) as temporary:
        (temporary / "data").mkdir(parents=True)
        every = temporary / "every-column.parquet"
        rows, used = _write_every_column(every, batches)
        if preferences is not None:
            facts = facts.model_copy(update={"preferences": (found := preferences())})
            write_json(temporary / PREFERENCES, found.model_dump(mode="json"))
        expected = facts.rows.kept if facts.preferences is None else facts.preferences.rows
        assert rows == expected, f"{rows} rows to write, {expected} counted"
        with pq.ParquetFile(every) as file:
            names = [name for name in file.schema_arrow.names if name not in OPTIONAL or name in used]
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            with pq.ParquetWriter(temporary / DATA, schema) as writer:
                for batch in file.iter_batches(ROWS_PER_GROUP, columns=names):
                    writer.write_batch(batch.select(names))
        every.unlink()
        (temporary / "README.md").write_text(card(schema, facts), encoding="utf-8")
    return facts


def _write_every_column(file: Path, batches: Iterable[pa.Table]) -> tuple[int, set[str]]:
    """Write rows with all columns; returns their number, and the optional columns that some row needs."""
    rows, used, writer = 0, set[str](), None
    for batch in batches:
        writer = writer or pq.ParquetWriter(file, batch.schema, compression="lz4")
        writer.write_table(batch)
        rows += batch.num_rows
        optional = [name for name in OPTIONAL if name in batch.column_names and name not in used]
        used.update(name for name in optional if batch[name].null_count < batch.num_rows and not _repeats_prompt(name, batch))
    assert writer is not None
    writer.close()
    return rows, used


def _repeats_prompt(name: str, batch: pa.Table) -> bool:
    return bool(name == "instruction" and batch[name].equals(batch["prompt"]))


def card(schema: pa.Schema, facts: DatasetFacts) -> str:
    """The dataset card: YAML front matter for the Hugging Face loaders, then Markdown."""
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA}]}],
        "license": facts.licence or "unknown",
        "pretty_name": f"{facts.name}, round {facts.round}",
        "tags": ["synthetic", "distillation"],
    }
    kept, candidates = facts.rows.kept, facts.rows.candidates
    share = f" ({kept / candidates:.1%})" if candidates else ""
    rows_are = facts.sources.rows_are if facts.sources else "documents"
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {facts.name}, round {facts.round}",
        f"Synthetic data made by Limbeck: **{facts.teacher}** generated {candidates} candidates for "
        f"{facts.rows.sources} {rows_are} (run seed {facts.seed}), {_rows_are(kept, share, facts.preferences)}",
        *_preferences(facts.preferences),
        "## What the filters rejected",
        table(["filter", "rejected"], [[name, count] for name, count in facts.rows.rejected_by.items()]) or "Nothing.",
        "A candidate is counted with the first filter that rejected it.",
        *_bounds(facts.bounds),
        *_self_tests(facts.self_tests),
        *_sources(facts.sources),
        "## Columns",
        table(["column", "type"], [[f"`{field.name}`", f"`{field.type}`"] for field in schema]),
        "## Licence",
        f"{facts.licence}."
        if facts.licence
        else f"Unknown: neither the licence of the {rows_are} nor that of the teacher is recorded here. "
        "Check both before you share this data.",
        "## Limits",
        "Every output was written by a language model and checked by automatic filters, not by a person; expect factual errors.",
    ]
    return "\n\n".join(parts) + "\n"


def _rows_are(kept: int, share: str, preferences: Preferences | None) -> str:
    if preferences is None:
        return f"and the {kept} that passed every filter{share} are its rows."
    what = "pairs of answers to one prompt" if preferences.form == "pairs" else "answers with a label, from pairs with one prompt"
    return f"and {kept} passed every filter{share}. The {preferences.rows} rows are {what}."


def _preferences(found: Preferences | None) -> list[str]:
    """Margins and lengths of pairs, and a sentence if lengths tell the sides apart."""
    if found is None:
        return []
    figures = {
        "margin": found.margins,
        "words of the chosen answer": found.words.chosen,
        "words of the rejected answer": found.words.rejected,
        "tokens of the chosen answer": found.tokens.chosen,
        "tokens of the rejected answer": found.tokens.rejected,
    }
    header = ["", *(f"{int(name[1:])} %" if name.startswith("q") else name for name in Quantiles.model_fields)]
    rows = [[name, *map(_limit, quantiles.model_dump().values())] for name, quantiles in figures.items()]
    warned = preference_pairs.warning(found)
    return ["## Preference pairs", preference_pairs.summary(found), *([warned] if warned else []), table(header, rows)]


def _bounds(bounds: Bounds | None) -> list[str]:
    if bounds is None:
        return []
    limits = [
        [name, f"`{column}`", _limit(limit.minimum), _limit(limit.maximum)]
        for name, columns in bounds.bounds.items()
        for column, limit in columns.items()
    ]
    return [
        "## Bounds, frozen at round 0",
        table(["filter", "column", "minimum", "maximum"], limits),
        *([bounds.note] if bounds.note else []),
    ]


def _self_tests(tests: list[SelfTest]) -> list[str]:
    """What the self-tests of judging filters found: the sentences that stand beside their scores."""
    if not tests:
        return []
    rows = [[one.filter, one.kind, beside(one)] for one in tests]
    return ["## Self-tests of the judging filters, on corrupted outputs", table(["filter", "kind", "result"], rows)]


def _sources(sources: Sources | None) -> list[str]:
    if sources is None:
        return []
    counts: Mapping[str, Any] = {"train": sources.train, "dev": sources.dev, "test": sources.test}
    rejected = [[f"not used: {reason}", count] for reason, count in sources.rejected.items()]
    kind = sources.rows_are
    text = f"All rows come from train {kind}; near-duplicates are in the same split."
    return [f"## {kind.capitalize()}", text, table([kind, "number"], [*map(list, counts.items()), *rejected])]


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; "" if it has no rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:z.4g}"
