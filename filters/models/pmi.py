"""The PMI filter: does the document make the output more likely, and does the output predict the document's content?

A reconstruction in the style of InfoSumm (Jung et al., 2024) for a causal language model. Pointwise mutual information has two
forms: log p(y|x) - log p(y) measures how much of the output y follows from the document x (faithfulness), and log p(x|y) - log
p(x), summed over the document's salient tokens, measures how much of the document the output carries (saliency). A causal model
is not a coherent joint distribution, so these are two estimates and both are stored. Each is divided by the self-information, the
most that the condition could explain: 1 means fully determined, 0 means no help, and below 0 means that the condition misleads.
The causal form can also leave the differences in nats, or apply the lengths of a secondary reading of the paper (`Normalise`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.other_documents import crossed, groups_of, other_rows
from limbeck.corpus.schemas import OTHER
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.words import one_line, plain_words
from limbeck.filters.columns import Range
from limbeck.filters.config import Cost, EngineFilterConfig, FilterConfig, Limit, Name, Nulls
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

# Both contexts of a term end in the same words, without trailing whitespace, so the target's first token is the same in both.
OUTPUT_GIVEN_DOCUMENT = "{document}\nTL;DR:"
OUTPUT_ALONE = "TL;DR:"
DOCUMENT_GIVEN_OUTPUT = "Summary: {output}\nArticle:"
DOCUMENT_ALONE = "Article:"

TERMS = ("log_p_output_given_document", "log_p_output", "log_p_salient_given_output", "log_p_salient")
SHARE = {"unit": "share of self-information"}
NATS = {"unit": "nats"}
PER_LENGTH = {"unit": "nats · document words / output words"}

Normalise = Literal["self_information", "length", "none"]
"""What the log-ratios are divided by: both by the self-information; saliency alone by output words / document words; nothing."""
UNITS: Mapping[Normalise, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "self_information": (SHARE, SHARE),
    "length": (NATS, PER_LENGTH),
    "none": (NATS, NATS),
}
"""The units of faithfulness and of saliency; `pmi`, their mean, has the second."""

Sums = npt.NDArray[np.float64]
"""The four terms of each row: output given document, output alone, document given output, document alone.  # [rows, 4]"""
Scores = npt.NDArray[np.float64]

UNFAITHFUL = "too little of the output follows from the document"
UNINFORMATIVE = "the output tells too little of what the document says"


class PmiLimits(FilterConfig):
    """The fields shared by both PMI filters: two bounds, and whether each output is also scored against another document.

    `null` adds the columns `<column>_null` for every candidate even if no bound is by false acceptance yet.
    """

    semantics: ClassVar[int] = 3
    cost: ClassVar[Cost] = Cost.MODEL
    nullable: ClassVar[bool] = True
    unrelated: ClassVar[tuple[str, ...]] = ("min_faithfulness", "min_saliency")
    reasons: ClassVar[Mapping[str, str]] = {"min_faithfulness": UNFAITHFUL, "min_saliency": UNINFORMATIVE}

    null: bool = False
    min_faithfulness: Limit = "calibrated"
    min_saliency: Limit = "calibrated"

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Shares of self-information: at most all of it, but what misleads has a share below 0."""
        return dict.fromkeys(("faithfulness", "saliency"), (-math.inf, 1.0))

    @property
    def texts(self) -> Mapping[str, RowText]:
        """Without a document there are no salient words."""
        return {"saliency": "document"}

    @property
    def needs_null(self) -> bool:
        """Whether each output is also scored against another document."""
        return self.null or bool(self.null_columns)

    @property
    def nulls(self) -> Nulls:
        """All with `null`."""
        return "all" if self.null else super().nulls

    def scoring(self) -> dict[str, Any]:
        """What the scores depend on; with the null there are more columns."""
        return {**super().scoring(), "null": self.needs_null}


class PmiConfig(PmiLimits, EngineFilterConfig):
    """The PMI filter of a causal language model, with its engine (null: the round-0 teacher) and its two bounds."""

    also: ClassVar[tuple[str, ...]] = ("pmi", *TERMS)

    kind: Literal["pmi"] = "pmi"
    name: Name = "pmi"
    normalise: Normalise = "self_information"

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Log-ratios have no upper bound."""
        unbounded = dict.fromkeys(("faithfulness", "saliency"), (-math.inf, math.inf))
        return super().ranges if self.normalise == "self_information" else unbounded

    def build(self, engines: "Engines") -> "PmiFilter":
        """Return the filter with a loaded engine; raises LimbeckError if no engine is set."""
        engine = self.loaded(engines)
        return PmiFilter(engine, self.name, self.bounds, null=self.needs_null, normalise=self.normalise)


class PmiFilter:
    """Scores candidates by pointwise mutual information; log-probabilities are natural, summed over tokens."""

    def __init__(
        self,
        engine: Engine,
        name: str = "pmi",
        bounds: Sequence[Bound] = (),
        *,
        null: bool = False,
        normalise: Normalise = "self_information",
    ) -> None:
        """Score with `engine`; selection applies `bounds`; `null` adds scores against another document."""
        self.name = name
        self.bounds = tuple(bounds)
        self._engine = engine
        self._null = null
        self._normalise = normalise

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return faithfulness, saliency, their mean `pmi`, and the four summed log-probabilities, one row per candidate.

        An empty output scores 0. The score is NaN if a candidate does not fit the engine's context, its document has no salient
        words, or its target is tokenised differently in the two contexts. The terms of all candidates are sent to the engine in
        one call, each distinct pair once, so work on a shared document or prefix is done once. With the null, or if the table
        has other documents (`corpus.other_documents`), there are `faithfulness_null` and `saliency_null` as well, for two more
        terms per candidate; NaN for an empty output or without another document.
        """
        rows = candidates.select(["document", "output", "salient"]).to_pylist()
        number = len(rows)
        null = self._null or scores_others(candidates)
        pairs = rows + (mismatched(candidates, rows) if null else [])
        asked = [terms(pair) for pair in pairs]
        sums, ratios = self._sums(asked), length_ratios(pairs) if self._normalise == "length" else None
        empty = np.array([not four for four in asked[:number]], dtype=bool)
        own, other = (None, None) if ratios is None else (ratios[:number], ratios[number:])
        table = scored(candidates["candidate_id"], sums[:number], empty, TERMS, self._normalise, own)
        return with_null(table, sums[number:], self._normalise, other) if null else table

    def _sums(self, asked: Sequence[tuple[Pair, ...]]) -> Sums:
        """The four summed log-probabilities of each row, 0 if it has no terms.  # [rows, terms]"""
        pairs = list(dict.fromkeys(pair for pairs in asked for pair in pairs))
        arrays = self._engine.logprobs(pairs) if pairs else []
        logprobs = dict(zip(pairs, arrays, strict=True))
        sums = np.zeros((len(asked), 4))
        for row, four in zip(sums, asked, strict=True):
            if four:
                given_document, output, given_output, salient = (logprobs[pair] for pair in four)
                row[:2] = comparable_sums(given_document, output)
                row[2:] = comparable_sums(given_output, salient)
        return sums


def terms(row: Mapping[str, Any]) -> tuple[Pair, ...]:
    """The four pairs of a candidate, in the order of the stored columns; empty if the output is empty."""
    output = one_line(row["output"])  # a context must not end in whitespace, nor a target start with two spaces
    if not output:
        return ()
    document, edges = row["document"], row["salient"]
    spans = tuple((start + 1, end + 1) for start, end in zip(edges[::2], edges[1::2], strict=True))  # + 1: the leading space
    return (
        Pair(OUTPUT_GIVEN_DOCUMENT.format(document=document), f" {output}"),
        Pair(OUTPUT_ALONE, f" {output}"),
        Pair(DOCUMENT_GIVEN_OUTPUT.format(output=output), f" {document}", spans),
        Pair(DOCUMENT_ALONE, f" {document}", spans),
    )


def mismatched(candidates: pa.Table, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each output with its other document; with an empty output if there is none."""
    others = crossed(candidates, lambda: drawn_others(candidates))
    others = others.rename_columns([name.removeprefix("other_") for name in others.column_names])
    return [
        {**row, "output": ""} if other["document"] is None else {**row, **other}
        for row, other in zip(rows, others.to_pylist(), strict=True)
    ]


def scores_others(candidates: pa.Table) -> bool:
    """Whether the run gave the candidates other documents."""
    return OTHER.names[0] in candidates.column_names


def drawn_others(candidates: pa.Table) -> npt.NDArray[np.int64]:
    """For each candidate of a table of its own, a row with a document that is no near-duplicate.  # [candidates]"""
    ids, sources = (candidates[name].to_pylist() for name in ("candidate_id", "source_id"))
    return other_rows(sources, groups_of(candidates), drawn_by=ids)


def scored(
    candidate_ids: pa.ChunkedArray,
    sums: Sums,
    empty: npt.NDArray[np.bool_],
    names: Sequence[str],
    normalise: Normalise = "self_information",
    ratios: Scores | None = None,
) -> pa.Table:
    """The scores computed from the four terms of each row, 0 if `empty`, and the terms as the columns `names`.

    `ratios`: output words / document words of each row, for `normalise` length.
    """
    faithfulness, saliency = (np.where(empty, 0.0, score) for score in log_ratios(sums, normalise, ratios))
    columns = {"faithfulness": faithfulness, "saliency": saliency, "pmi": (faithfulness + saliency) / 2}
    first, second = UNITS[normalise]
    units = {"faithfulness": first, "saliency": second, "pmi": second}
    fields = [pa.field(name, pa.float64(), metadata=dict(units[name])) for name in columns]
    fields += [pa.field(name, pa.float64(), metadata=NATS) for name in names]
    ids = pa.field("candidate_id", pa.string())
    return pa.table([candidate_ids, *columns.values(), *sums.T], schema=pa.schema([ids, *fields]))


def with_null(table: pa.Table, sums: Sums, normalise: Normalise = "self_information", ratios: Scores | None = None) -> pa.Table:
    """Add the scores computed from the four terms of each mismatched pair; `ratios` as in `scored`."""
    for name, values in zip(("faithfulness", "saliency"), log_ratios(sums, normalise, ratios), strict=True):
        table = table.append_column(table.schema.field(name).with_name(f"{name}_null"), [values])
    return table


def log_ratios(sums: Sums, normalise: Normalise, ratios: Scores | None = None) -> tuple[Scores, Scores]:
    """Faithfulness and saliency of each row; NaN if there is nothing to explain: a term `alone` is 0.

    self_information: the share of the self-information -`alone` that the condition explains. none: the log-ratio. length: the
    same, with saliency divided by `ratios`, so that a bound τ on it is one of τ · output words / document words on the log-ratio.
    """
    output_given, output, salient_given, salient = sums.T
    if normalise == "self_information":
        return _share(output_given, output), _share(salient_given, salient)
    faithfulness, saliency = (
        np.where(alone < 0, given - alone, np.nan) for given, alone in ((output_given, output), (salient_given, salient))
    )
    if normalise == "length":
        assert ratios is not None
        saliency = saliency / ratios
    return faithfulness, saliency


def length_ratios(pairs: Sequence[Mapping[str, Any]]) -> Scores:
    """Output words / document words of each pair; NaN if one of them has no words."""
    counts = np.array([[len(plain_words(pair[name] or "")) for name in ("output", "document")] for pair in pairs], np.float64)
    counts = np.where(counts > 0, counts, np.nan).reshape(len(pairs), 2)
    ratios: Scores = counts[:, 0] / counts[:, 1]
    return ratios


def _share(given: Scores, alone: Scores) -> Scores:
    share: Scores = (given - alone) / np.where(alone < 0, -alone, np.nan)
    return share


def comparable_sums(given: npt.NDArray[np.float32], alone: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Sum both in float64; NaN if they cover different tokens, because their difference would be meaningless."""
    if len(given) != len(alone):
        return float("nan"), float("nan")
    return float(given.sum(dtype=np.float64)), float(alone.sum(dtype=np.float64))
