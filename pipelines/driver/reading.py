"""Read a run's sources and write them as parts, a table at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from limbeck.corpus.parts import done, part_bounds, write_part
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.sources import Prepared, prepared
from limbeck.corpus.split import SPLITS
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.funnel import rejected_sources


def read_documents(context: Context) -> None:
    """Read, truncate and split the sources and write them as parts, once per run."""
    place = context.folder.sources("train").parent
    found = done(place)
    if found is None:
        recipe = context.recipe
        with prepared(recipe.sources, Tokenizer.load(context.teacher_folder), recipe.seed, place) as sources:
            counts: dict[str, Any] = {split: sources.count(split) for split in (*SPLITS, "rejected")}
            for split in SPLITS:
                _write(context, split, _split_parts(recipe, sources, split))
            rejected = _write(context, "rejected", sources.tables("rejected", rows=recipe.cluster.rows_per_part))
        used = sum(counts[split] for split in SPLITS)
        rows_in = used + counts["rejected"]
        counts = {"used": used, **counts, "rejected": rejected, "rows_are": recipe.sources.rows_are}
        context.finish(place, "sources", rows_in=rows_in, rows_out=used, **counts)
        found = done(place) or {}
    words = {key: found[key] for key in ("used", "train", "dev", "test")}
    words["rows_are"] = found.get("rows_are", "documents")  # as recorded by older versions
    context.events.emit("sources_read", **words, rejected=sum(found["rejected"].values()), reasons=found["rejected"])


def counted(recipe: Recipe) -> tuple[dict[str, int], dict[str, int]]:
    """Counts of the sources by split, and of the unusable ones by reason; nothing is written."""
    with prepared(recipe.sources, Tokenizer.load(recipe.teacher.folder()), recipe.seed) as sources:
        counts = {split: sources.count(split) for split in (*SPLITS, "rejected")}
        used = {"used": sources.count(*SPLITS), "document_tokens": sources.document_tokens}
        return {**counts, **used}, _reasons(sources.tables("rejected"))


def _split_parts(recipe: Recipe, sources: Prepared, split: str) -> Iterator[pa.Table]:
    """The tables of a split; with a target, train parts also end with each wave."""
    wave = recipe.target.wave_sources if recipe.target and split == "train" else None
    return sources.sliced([split], part_bounds(sources.count(split), recipe.cluster.rows_per_part, wave))


def _write(context: Context, split: str, tables: Iterable[pa.Table]) -> dict[str, int]:
    """Write one part per table, and return how many rows are unusable, by reason."""

    def written() -> Iterator[pa.Table]:
        for number, table in enumerate(tables):
            write_part(context.folder.sources(split), f"part-{number:05d}", table, SOURCES)
            yield table

    return _reasons(written())


def _reasons(tables: Iterable[pa.Table]) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for table in tables:
        reasons.update(rejected_sources(table))
    return {reason: reasons[reason] for reason in sorted(reasons)}
