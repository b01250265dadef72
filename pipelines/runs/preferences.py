"""The dataset of a round as preference pairs, from the stored scores of its candidates: no model, and no generator of its own."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from limbeck.corpus.config import nearest
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.text.words import words_with_apostrophes
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.card import DatasetFacts, write_dataset
from limbeck.pipelines.runs.dataset import dataset_rows, training_rows
from limbeck.pipelines.runs.preference_pairs import Contender, Pair, Tally, pairs_of
from limbeck.pipelines.runs.rows import PreferenceRows
from limbeck.pipelines.runs.scored import SOURCE_REFERENCE, Scored, quoted, text
from limbeck.pipelines.runs.select import GENERATOR, UNDECIDED, all_numbers
from limbeck.pipelines.runs.self_test import SelfTest, beside

Row = dict[str, Any]


def publish_dataset(folder: Path, scored: Scored, recipe: Recipe, decisions: Path, facts: DatasetFacts) -> DatasetFacts:
    """Write the dataset of decided candidates, one row each, or their pairs if rows are preferences; returns what its card says.

    `decisions`: a file of decisions on the rows of `scored`, in the same order. Raises LimbeckError if there is no pair, or if
    the pairs' score does not exist or is that of a judge that did not pass its self-test.
    """
    rows = recipe.preferences
    if rows is None:
        return write_dataset(folder, dataset_rows(scored, recipe, decisions), facts)
    refuse_untested(rows, recipe, facts.self_tests)
    tally = Tally(rows)
    return write_dataset(folder, preference_rows(scored, recipe, rows, decisions, tally), facts, tally.facts)


def refuse_untested(rows: PreferenceRows, recipe: Recipe, tests: Sequence[SelfTest]) -> None:
    """Raise LimbeckError if pairs are compared by a judging filter that its self-test did not find above chance."""
    found = next((filter_ for filter_ in recipe.filters if filter_.name == rows.filter), None)
    if rows.judge == "any" or found is None or found.probing is None:
        return
    test = next((one for one in tests if one.filter == found.name), None)
    if test is None or test.verdict != "above chance":
        result = "it has no self-test" if test is None else beside(test)
        raise LimbeckError(
            f"rows.by is {rows.by}, but the {found.kind} {found.name} did not pass its self-test ({result}); give it a better "
            "engine or another rubric, compare by another score, or set rows.judge: any"
        )


def no_score(rows: PreferenceRows, known: Sequence[str]) -> str | None:
    """Why the candidates cannot be compared by `rows.by`, if these are all scores, as `filter.column`; else None."""
    if rows.by in known:
        return None
    own = [column for column in known if column.startswith(f"{rows.filter}.")]
    near = nearest(rows.by, own or known)
    filters = dict.fromkeys(column.partition(".")[0] for column in known)
    hint = (
        f"did you mean {near}?"
        if near
        else f"its scores are {', '.join(own)}"
        if own
        else f"filters: {', '.join(filters) or 'none'}"
    )
    what = f"no filter scores {rows.by!r}" if own else f"there is no filter {rows.filter!r}"
    return f"rows.by is {rows.by}, but {what}; {hint}"


def preference_rows(scored: Scored, recipe: Recipe, rows: PreferenceRows, decisions: Path, tally: Tally) -> Iterator[pa.Table]:
    """Yield the pairs (or their labelled answers) by source and prompt, in batches, the first one empty; `tally` counts them.

    Candidates of a source are in memory together, but not those of all sources. Columns of pairs: source_id, prompt, chosen,
    rejected, score_chosen, score_rejected, chosen_id, rejected_id, rejected_by (why the rejected answer was not kept), document,
    chosen_scores and rejected_scores (all scores), chosen_facts and rejected_facts. Of labelled answers: source_id, candidate_id,
    prompt, completion, label, score, rejected_by, document, scores, facts. Raises LimbeckError if the score does not exist.
    """
    if (problem := no_score(rows, all_numbers(scored))) is not None:
        raise LimbeckError(problem)
    schema: pa.Schema | None = None
    for made in _by_source(_contending(scored, recipe, rows, decisions, tally)):
        if isinstance(made, pa.Schema):
            schema = _schema(rows, made)
            yield schema.empty_table()
            continue
        assert schema is not None
        found = [row for answers in _by_prompt(made) for row in _rows_of(answers, rows, recipe.seed, tally)]
        if found:
            yield pa.Table.from_pylist(found, schema=schema)


def _contending(
    scored: Scored, recipe: Recipe, rows: PreferenceRows, decisions: Path, tally: Tally
) -> Iterator[tuple[pa.Schema, list[Row]]]:
    """Yield the answers that may be in a pair, rendered, by source and sample, in batches, with the schema of their columns."""
    table, connection = scored.new_name(), scored.connection
    filters = ", ".join(map(text, scored.columns)) or "''"
    failed = f"coalesce(d.rejected_by in ({filters}), false)"
    unusable = f"coalesce(d.rejected_by in ({text(GENERATOR)}, {text(UNDECIDED)}), false)"
    wins = "d.kept" if rows.chosen == "kept" else f"not {failed} and not {unusable}"
    loses = {"scored": "true", "kept": "d.kept", "failed": failed}[rows.rejected]
    score = f"s.{quoted(rows.by)}"
    connection.execute(
        f"create table {table} as select s.position, {wins} as wins, {loses} as loses, d.rejected_by, "
        f"coalesce(isfinite({score}), false) as scored from scored s join read_parquet({text(str(decisions))}) d "
        "using (candidate_id) where s.finish_reason != 'error'"
    )
    (tally.unscored,) = connection.execute(f"select count(*) from {table} where not scored").fetchall()[0]
    connection.execute(f"delete from {table} where not scored or not (wins or loses)")
    redacting = next((filter_.name for filter_ in recipe.filters if filter_.redacts), None)
    evidence = [] if redacting is None else [f"{redacting}.redacted"]
    of_sources = {"document": "document", SOURCE_REFERENCE: "reference"}
    sides = _flat(scored.stream(f"select wins, loses, rejected_by from {table} order by position"))
    for batch in scored.fetch(table, scored.reader.candidates.names, of_sources, all_numbers(scored), evidence):
        rendered = training_rows(recipe, batch)
        scores = batch.select(all_numbers(scored)).to_pylist() if batch.num_rows else []
        found = rendered.select(["candidate_id", "source_id", "prompt", "completion", "document", "output", "facts"]).to_pylist()
        tokens = batch["output_tokens"].to_pylist()
        for row, own, count, side in zip(found, scores, tokens, (next(sides) for _ in range(batch.num_rows)), strict=True):
            row |= {"scores": own, "score": own[rows.by], "tokens": count, **side}
        kinds = [("prompt", rendered.schema.field("prompt").type), ("scores", _scores_type(all_numbers(scored)))]
        yield pa.schema(kinds), found
    connection.execute(f"drop table {table}")


def _scores_type(names: Sequence[str]) -> pa.DataType:
    return pa.struct([(name, pa.float64()) for name in names])


def _flat(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    for batch in batches:
        yield from batch.to_pylist()


def _by_source(batches: Iterable[tuple[pa.Schema, list[Row]]]) -> Iterator[pa.Schema | list[Row]]:
    """The schema once, then the answers of each source, which may be in several batches."""
    waiting: list[Row] = []
    for number, (schema, rows) in enumerate(batches):
        if not number:
            yield schema
        waiting += rows
        groups = [list(group) for _, group in groupby(waiting, key=lambda row: row["source_id"])]
        yield from groups[:-1]
        waiting = groups[-1] if groups else []
    if waiting:
        yield waiting


def _by_prompt(answers: Sequence[Row]) -> list[list[Row]]:
    """The answers of a source by their training prompts, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for answer in answers:
        found.setdefault(json.dumps(answer["prompt"]), []).append(answer)
    return list(found.values())


def _rows_of(answers: Sequence[Row], rows: PreferenceRows, seed: int, tally: Tally) -> list[Row]:
    """The rows of one prompt."""
    contenders = [
        Contender(
            text=json.dumps(row["completion"]),
            score=row["score"],
            words=len(words_with_apostrophes(row["output"])),
            may_win=row["wins"],
            may_lose=row["loses"],
            tokens=row["tokens"],
        )
        for row in answers
    ]
    random = Random(derive_seed(seed, "preferences", answers[0]["source_id"], json.dumps(answers[0]["prompt"])))
    pairs = pairs_of(contenders, rows, random)
    made = [_pair(answers[pair.chosen], answers[pair.rejected]) for pair in pairs]
    both = 0
    if rows.form == "labelled":
        made, both = _labelled(answers, pairs)
    tally.add(contenders, pairs, len(made), both)
    return made


def _pair(chosen: Row, rejected: Row) -> Row:
    return {
        "source_id": chosen["source_id"],
        "prompt": chosen["prompt"],
        "chosen": chosen["completion"],
        "rejected": rejected["completion"],
        "score_chosen": chosen["score"],
        "score_rejected": rejected["score"],
        "chosen_id": chosen["candidate_id"],
        "rejected_id": rejected["candidate_id"],
        "rejected_by": rejected["rejected_by"],
        "document": chosen["document"],
        "chosen_scores": chosen["scores"],
        "rejected_scores": rejected["scores"],
        "chosen_facts": chosen["facts"],
        "rejected_facts": rejected["facts"],
    }


def _labelled(answers: Sequence[Row], pairs: Sequence[Pair]) -> tuple[list[Row], int]:
    """Each answer of the pairs once, by its text, in order; and how many are left out, since they are on both sides."""
    labels: dict[str, tuple[int, set[bool]]] = {}
    sides = [(pair.chosen, True) for pair in pairs] + [(pair.rejected, False) for pair in pairs]
    for place, label in sorted(sides):
        labels.setdefault(json.dumps(answers[place]["completion"]), (place, set()))[1].add(label)
    clear = [(answers[place], label.pop()) for place, label in labels.values() if len(label) == 1]
    return [_answer(row, label) for row, label in clear], len(labels) - len(clear)


def _answer(row: Row, label: bool) -> Row:
    same = ("source_id", "candidate_id", "prompt", "completion", "score", "rejected_by", "document", "scores", "facts")
    return {**{name: row[name] for name in same}, "label": label}


def _schema(rows: PreferenceRows, rendered: pa.Schema) -> pa.Schema:
    """The columns of `preference_rows`."""
    prompt, scores = rendered.field("prompt").type, rendered.field("scores").type
    texts: Mapping[str, pa.DataType] = dict.fromkeys(("prompt", "chosen", "rejected", "completion"), prompt)
    kinds = {
        **texts,
        **dict.fromkeys(("score", "score_chosen", "score_rejected"), pa.float64()),
        **dict.fromkeys(("scores", "chosen_scores", "rejected_scores"), scores),
        "label": pa.bool_(),
    }
    names = ["source_id", "prompt", "chosen", "rejected", "score_chosen", "score_rejected", "chosen_id", "rejected_id"]
    more = ["rejected_by", "document", "chosen_scores", "rejected_scores", "chosen_facts", "rejected_facts"]
    if rows.form == "labelled":
        names = ["source_id", "candidate_id", "prompt", "completion", "label", "score"]
        more = ["rejected_by", "document", "scores", "facts"]
    return pa.schema([(name, kinds.get(name, pa.string())) for name in (*names, *more)])
