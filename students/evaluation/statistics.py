"""Measures of a model's outputs on held-out documents: means with intervals, and paired differences to the first teacher.

Every measure is averaged within a document first and then over documents. Its 95 % interval comes from resampling whole documents
(Efron's percentile bootstrap, clustered by document), because samples of one document are not independent.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.text.invention.invented import invented
from limbeck.corpus.text.invisible import is_blank
from limbeck.corpus.text.rouge.words import words
from limbeck.corpus.text.words import plain_words
from limbeck.students.evaluation.measures import CONTROLS, SCALARS, EvaluationRow, Measure, Model, OutputForm, Split

Floats = npt.NDArray[np.float64]

RESAMPLES = 2_000
SEED = 20_240_601  # fixed, so that reports are reproducible
SCORES = ("compression", "faithfulness", "saliency", "pmi", "code_accuracy")  # taken from columns of these names, if present
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


@dataclass(frozen=True)
class Measured:
    """One model's measured outputs, grouped by document; `means[name]` is [documents], NaN if not measured."""

    source_ids: tuple[str, ...]
    means: Mapping[str, Floats]
    pass_means: Mapping[str, Floats]  # by filter
    bigrams: tuple[Counter[tuple[str, str]], ...]  # by document, over all its outputs
    candidates: int
    passing: int
    form: OutputForm | None  # None: there are no outputs


def evaluate(
    model: Model, split: Split, measured: Measured, teacher: Measured | None = None, only: Sequence[str] | None = None
) -> EvaluationRow:
    """Return the measures of one model, and with `teacher`, the round-0 teacher's, the paired differences to it.

    `only`: the measures to report, beside the pass rate; the others are null. Paired differences use the documents on
    which both were measured. Cost: O(resamples · documents).
    """
    reported = SCALARS if only is None else ("pass_rate", *only)
    named: dict[str, Any] = dict.fromkeys(SCALARS)
    named |= {name: interval(values) for name, values in measured.means.items() if name in reported}
    if "distinct_2" in reported:
        named["distinct_2"] = _distinct_2(measured.bigrams)
    differences = None if teacher is None else paired_differences(measured, teacher)
    return EvaluationRow(
        model=model,
        split=split,
        documents=len(measured.source_ids),
        candidates=measured.candidates,
        passing=measured.passing,
        form=measured.form,
        pass_rate_by_filter={name: interval(values) for name, values in measured.pass_means.items()},
        difference_to_round_0_teacher=differences and {name: found for name, found in differences.items() if name in reported},
        **named,
    )


def measure(outputs: pa.Table) -> Measured:
    """Measure each row of `outputs` and average within documents."""
    return measure_batches([outputs])


def measure_batches(batches: Iterable[pa.Table]) -> Measured:
    """Measure each row of a table that comes in batches, and average within documents.

    It has one row per candidate: source_id, document, reference, salient, output, kept, pass_<filter> for each filter,
    and those columns of `SCORES` that the recipe measures. ROUGE: F of rouge-score without stemming, on documents with
    a reference. An empty output scores a true zero; a score that is null or not finite is excluded from its document's mean.
    """
    source_ids: list[str] = []
    rows: dict[str, list[Floats]] = {}
    passes: dict[str, list[Floats]] = {}
    bigrams: dict[str, Counter[tuple[str, str]]] = {}
    passing, seen, lengths = 0, Counter[str](), 0
    for outputs in batches:
        ids, texts = outputs["source_id"].to_pylist(), [text or "" for text in outputs["output"].to_pylist()]
        source_ids += ids
        passing += sum(map(bool, outputs["kept"].to_pylist()))
        for name, values in _measures(outputs, texts).items():
            rows.setdefault(name, []).append(values)
        for name in (name for name in outputs.column_names if name.startswith("pass_")):
            passes.setdefault(name.removeprefix("pass_"), []).append(_numbers(outputs, name))
        for source_id, text in zip(ids, texts, strict=True):
            words = plain_words(text)
            seen[text.strip()] += 1
            lengths += len(words)
            bigrams.setdefault(source_id, Counter()).update(zip(words, words[1:], strict=False))
    documents = tuple(sorted(bigrams))
    position = {source_id: index for index, source_id in enumerate(documents)}
    owner = np.array([position[source_id] for source_id in source_ids], dtype=np.intp)  # [rows] -> document

    def by_document(values: Sequence[Floats]) -> Floats:
        return _document_means(np.concatenate(values), owner, len(documents))

    return Measured(
        source_ids=documents,
        means={name: by_document(values) for name, values in rows.items()},
        pass_means={name: by_document(values) for name, values in passes.items()},
        bigrams=tuple(bigrams[source_id] for source_id in documents),
        candidates=len(source_ids),
        passing=passing,
        form=_form(seen, lengths),
    )


def _form(seen: Counter[str], lengths: int) -> OutputForm | None:
    """The form of outputs from how often each was seen, and their words in total; None if there are none."""
    total = seen.total()
    if not total:
        return None
    empty = sum(count for text, count in seen.items() if is_blank(text))
    return OutputForm(
        words=lengths / total, distinct=len(seen) / total, commonest=max(seen.values()) / total, empty=empty / total
    )


def _measures(outputs: pa.Table, texts: Sequence[str]) -> dict[str, Floats]:
    """Every measure of each row."""
    rows = {"pass_rate": _numbers(outputs, "kept"), **_rouge(outputs["reference"].to_pylist(), texts)}
    rows |= {name: _numbers(outputs, name) for name in SCORES}
    documents = outputs["document"].to_pylist()
    rows["salient_recall"] = salient_recalls(documents, outputs["salient"].to_pylist(), texts)
    rows["invention"] = inventions(documents, texts)
    return rows


def paired_differences(student: Measured, teacher: Measured) -> dict[str, Measure | None]:
    """Return, for every scalar measure, the mean over shared documents of student minus teacher, with its interval."""
    teacher_at = {source_id: index for index, source_id in enumerate(teacher.source_ids)}
    ours = [index for index, source_id in enumerate(student.source_ids) if source_id in teacher_at]
    theirs = [teacher_at[student.source_ids[index]] for index in ours]
    differences = {name: interval(student.means[name][ours] - teacher.means[name][theirs]) for name in student.means}
    differences["distinct_2"] = _distinct_2([student.bigrams[i] for i in ours], [teacher.bigrams[i] for i in theirs])
    return differences


def interval(values: Floats) -> Measure | None:
    """Return mean and bootstrap interval of one value per document ([documents], NaN: excluded), or None if all are NaN."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    means = _resamples(len(values)) @ values / len(values)  # [resamples]
    low, high = np.quantile(means, [0.025, 0.975])
    return Measure(mean=float(values.mean()), low=float(low), high=float(high))


def beaten_by(rows: Sequence[EvaluationRow], split: str = "test", inputs: str = "documents") -> list[str]:
    """Return one sentence per control that has a higher mean than the student on pass rate or ROUGE-L.

    `inputs` is what the sentences call the held-out inputs. `rows` is the evaluation of one
    round; without a student's row on that split the list is empty.
    """
    by_model = {row.model: row for row in rows if row.split == split}
    student = by_model.get("student")
    if student is None:
        return []
    sentences = []
    for control in (by_model[name] for name in CONTROLS if name in by_model):
        for name, theirs, ours in (
            ("pass rate", control.pass_rate, student.pass_rate),
            ("ROUGE-L", control.rouge_l, student.rouge_l),
        ):
            if theirs is not None and ours is not None and theirs.mean > ours.mean:
                figures = f"{theirs.mean:.3f} against {ours.mean:.3f}"
                sentences.append(f"The control {control.model} beats the student on {name} ({figures} on the {split} {inputs}).")
    return sentences


def _resamples(documents: int) -> npt.NDArray[np.int64]:
    """Draws of each document in each resample: [resamples, documents]; deterministic for a given count."""
    draws = np.random.default_rng(SEED).multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    return draws.astype(np.int64, copy=False)


def _numbers(table: pa.Table, column: str) -> Floats:
    """A numeric or boolean column as float64; NaN for null and non-finite values, and for a missing column."""
    if column not in table.column_names:
        return np.full(table.num_rows, np.nan)
    values = np.array([math.nan if value is None else float(value) for value in table[column].to_pylist()], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def _document_means(values: Floats, owner: npt.NDArray[np.intp], documents: int) -> Floats:
    measured = np.isfinite(values)
    counts = np.bincount(owner[measured], minlength=documents)
    sums = np.bincount(owner[measured], weights=values[measured], minlength=documents)
    means = np.full(documents, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


class _RougeWords:
    """The tokenizer of a `RougeScorer`."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _rouge(references: Sequence[str | None], outputs: Sequence[str]) -> dict[str, Floats]:
    """ROUGE-1, -2 and -L F of each row, on the words of `corpus.text.rouge.words`; NaN if there is no reference."""
    from rouge_score.rouge_scorer import RougeScorer  # imports take a second

    scorer = RougeScorer(list(ROUGE.values()), tokenizer=_RougeWords())
    scores = {name: np.full(len(outputs), np.nan) for name in ROUGE}
    for row, (reference, output) in enumerate(zip(references, outputs, strict=True)):
        if reference and not is_blank(reference):
            found = scorer.score(reference, output)
            for name, theirs in ROUGE.items():
                scores[name][row] = found[theirs].fmeasure
    return scores


def salient_recalls(documents: Sequence[str], spans: Sequence[Sequence[int]], outputs: Sequence[str]) -> Floats:
    """Share of each document's distinct salient words that occur in the output; NaN if it has none."""
    recalls = np.full(len(outputs), np.nan)
    for row, (document, flat, output) in enumerate(zip(documents, spans, outputs, strict=True)):
        pairs = zip(flat[::2], flat[1::2], strict=True) if flat else ()
        salient = {word for start, end in pairs for word in plain_words(document[start:end])}
        if salient:
            recalls[row] = len(salient & set(plain_words(output))) / len(salient)
    return recalls


def inventions(documents: Sequence[str | None], outputs: Sequence[str]) -> Floats:
    """1 for each output with a name or number that its document lacks, otherwise 0; NaN if there is no document."""
    given = [None if document is None or is_blank(document) else document for document in documents]
    pairs = zip(given, outputs, strict=True)
    return np.array([math.nan if document is None else float(bool(invented(document, output))) for document, output in pairs])


def _distinct_2(
    bigrams: Sequence[Counter[tuple[str, str]]], minus: Sequence[Counter[tuple[str, str]]] | None = None
) -> Measure | None:
    """Distinct word bigrams over all word bigrams (Li et al. 2016), or the excess over that of `minus`.

    Drawing a document twice would lower this share by construction and dominate the interval. So its resamples are random halves
    of the documents without repeats, shifted to have the observed value as their mean: the mean of a half has the same variance
    as the mean of a bootstrap resample (half-samples, McCarthy 1969).
    """
    documents = len(bigrams)
    half = documents // 2
    ranks = np.random.default_rng(SEED).random((RESAMPLES if half else 0, documents)).argsort(axis=1)
    draws = np.concatenate([np.ones((1, documents), dtype=np.bool_), ranks < half])  # [1 + resamples, documents]
    values = _distinct_share(bigrams, draws)  # the first is the observed one
    if minus is not None:
        values = values - _distinct_share(minus, draws)
    observed, halves = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not math.isfinite(observed):
        return None
    if not len(halves):
        return Measure(mean=observed, low=observed, high=observed)
    deviations = (halves - halves.mean()) * math.sqrt(half / (documents - half))  # 1 if the count is even
    low, high = np.quantile(observed + deviations, [0.025, 0.975])
    floor = 0.0 if minus is None else -1.0
    return Measure(mean=observed, low=max(floor, float(low)), high=min(1.0, float(high)))


def _distinct_share(bigrams: Sequence[Counter[tuple[str, str]]], draws: npt.NDArray[np.bool_]) -> Floats:
    """Distinct / all bigrams of each set of documents ([draws, documents]); NaN if a set has no bigram."""
    holders: dict[tuple[str, str], list[int]] = {}
    for index, counter in enumerate(bigrams):
        for bigram in counter:
            holders.setdefault(bigram, []).append(index)
    shared = [documents for documents in holders.values() if len(documents) > 1]
    alone = np.zeros(len(bigrams), dtype=np.int64)  # most bigrams occur in one document: counting those needs no matrix
    for documents in holders.values():
        if len(documents) == 1:
            alone[documents[0]] += 1
    drawn = draws.astype(np.float32)
    distinct = draws @ alone
    for start in range(0, len(shared), 4_096):  # bounds the memory of [draws, bigrams]
        block = shared[start : start + 4_096]
        present = np.zeros((len(bigrams), len(block)), dtype=np.float32)
        for column, documents in enumerate(block):
            present[documents, column] = 1
        distinct = distinct + np.count_nonzero(drawn @ present, axis=1)
    total = draws @ np.array([counter.total() for counter in bigrams], dtype=np.int64)
    shares = np.full(len(draws), np.nan)
    np.divide(distinct, total, out=shares, where=total > 0)
    return shares
