"""The PMI filter for a masked language model: how much better hidden words are restored if the other text is visible.

A reconstruction in the style of InfoSumm (Jung et al., 2024), whose critics use the probabilities of T5-Large. Saliency: hide the
salient words of the document and restore them with and without the output before it. Faithfulness: hide the content words of the
output and restore them with and without the document before it. Both terms of a difference hide the same tokens. Each difference
is divided by the self-information, the most that the condition could explain, as in the causal form (`pmi.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from limbeck.cluster.engines.scoring_models.masked import Infill, MaskedConfig, MaskedModel
from limbeck.corpus.salience import STOP_WORDS
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.invisible import is_blank
from limbeck.corpus.text.words import WORD, one_line
from limbeck.filters.columns import AT_LEAST_ZERO, Range
from limbeck.filters.config import Limit, Name
from limbeck.filters.contract import Bound
from limbeck.filters.models.pmi import UNFAITHFUL, UNINFORMATIVE, PmiLimits, Sums, mismatched, scored, scores_others, with_null

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

TERMS = ("log_p_hidden_output_given_document", "log_p_hidden_output", "log_p_salient_given_output", "log_p_salient")

Spans = tuple[tuple[int, int], ...]


class MaskedPmiConfig(PmiLimits):
    """The PMI filter of a masked language model, its bounds, and how the output's content words are hidden.

    They are dealt in turn to `output_masks` masks, so that each is restored once while most of the others are visible; more
    masks leave more words visible but need as many forward passes.
    """

    reasons: ClassVar[Mapping[str, str]] = {
        "min_faithfulness": UNFAITHFUL,
        "min_saliency": UNINFORMATIVE,
        "max_brevity": "the output is hardly shorter than the document",
    }

    also: ClassVar[tuple[str, ...]] = ("pmi", *TERMS)

    kind: Literal["masked_pmi"] = "masked_pmi"
    name: Name = "masked_pmi"
    masked: MaskedConfig = MaskedConfig()
    output_masks: int = Field(default=2, ge=1)
    max_brevity: Limit = 0.5

    @property
    def ranges(self) -> Mapping[str, Range]:
        """As for every PMI, and a quotient of counts."""
        return {**super().ranges, "brevity": AT_LEAST_ZERO}

    @property
    def texts(self) -> Mapping[str, RowText]:
        """Without salient words nothing is hidden; and it is a divisor."""
        return dict.fromkeys(("faithfulness", "saliency", "brevity"), "document")

    def build(self, engines: "Engines") -> "MaskedPmiFilter":
        """Return the filter with a loaded model."""
        return MaskedPmiFilter(engines.hold(self.masked), self.name, self.bounds, self.output_masks, null=self.needs_null)


class MaskedPmiFilter:
    """Scores candidates by pointwise mutual information; log-probabilities are natural, summed over hidden tokens."""

    def __init__(
        self,
        model: MaskedModel,
        name: str = "masked_pmi",
        bounds: Sequence[Bound] = (),
        output_masks: int = 2,
        *,
        null: bool = False,
    ) -> None:
        """Score with `model`; selection applies `bounds`; `null` adds scores against another document."""
        self.name = name
        self.bounds = tuple(bounds)
        self._model = model
        self._output_masks = output_masks
        self._null = null

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return faithfulness, saliency, their mean `pmi`, the four terms [nats] and `brevity`, one row per candidate.

        `brevity` is output tokens / document tokens, in the teacher's tokens. An empty output scores 0. A document that does not
        fit beside the output is cut at a word, identically in all four terms. NaN: the output alone fills the context, or nothing
        can be hidden (no salient words in the document as cut; no words in the output). With the null, or if the table has other
        documents (`corpus.other_documents`), there are `faithfulness_null`, `saliency_null` and `brevity_null` as well. All terms
        of all candidates are sent to the model in one call, without repeats.
        """
        rows = candidates.select(["document", "output", "salient", "output_tokens", "document_tokens"]).to_pylist()
        with_others = self._null or scores_others(candidates)
        pairs = rows + (mismatched(candidates, rows) if with_others else [])
        sums = self._sums(pairs)
        own, null = sums[: len(rows)], sums[len(rows) :]
        empty = np.array([is_blank(row["output"]) for row in rows], dtype=bool)
        table = scored(candidates["candidate_id"], own, empty, TERMS)
        table = table.append_column(_BREVITY, [_brevity(rows)])
        if not with_others:
            return table
        brevity = np.where([bool(pair["output"]) for pair in pairs[len(rows) :]], _brevity(pairs[len(rows) :]), np.nan)
        return with_null(table, null).append_column(_BREVITY.with_name("brevity_null"), [brevity])

    def _sums(self, pairs: Sequence[Mapping[str, Any]]) -> Sums:
        """The four terms of each pair of a document and an output, 0 if there is nothing to restore.  # [pairs, 4]"""
        asked = [terms(pair, document, self._output_masks) for pair, document in zip(pairs, self._cut(pairs), strict=True)]
        infills = list(dict.fromkeys(infill for four in asked for term in four for infill in term))
        arrays = self._model.logprobs(infills)
        found = {infill: float(array.sum(dtype=np.float64)) for infill, array in zip(infills, arrays, strict=True)}
        return np.array([[sum(found[infill] for infill in term) for term in four] for four in asked]).reshape(len(asked), 4)

    def _cut(self, pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Yield each pair's document, truncated to fit beside its output; "" if there is no room."""
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair["document"], one_line(pair["output"]))))
        tokens = dict(zip(texts, self._model.count_tokens(texts), strict=True))
        shortened: dict[tuple[str, int], str] = {}
        for pair in pairs:
            document, room = pair["document"], self._model.room(tokens[one_line(pair["output"])])
            if tokens[document] <= room:
                yield document
                continue
            if (document, room) not in shortened:
                shortened[document, room] = self._model.shortened(document, room)
            yield shortened[document, room]


_BREVITY = pa.field("brevity", pa.float64(), metadata={"unit": "output tokens / document tokens"})


def terms(pair: Mapping[str, Any], document: str, output_masks: int) -> tuple[tuple[Infill, ...], ...]:
    """The infills that each of the four terms sums, in the order of the stored columns; empty if nothing can be compared.

    `document` is the pair's document, truncated to fit.
    """
    output, edges = one_line(pair["output"]), pair["salient"]
    if not output or not document:
        return ((), (), (), ())
    masks = hidden_words(output, output_masks)
    salient = tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end <= len(document))
    return (
        tuple(Infill(document, output, mask) for mask in masks),
        tuple(Infill("", output, mask) for mask in masks),
        (Infill(output, document, salient),) if salient else (),
        (Infill("", document, salient),) if salient else (),
    )


def hidden_words(output: str, masks: int) -> list[Spans]:
    """The character spans of the output's content words, dealt in turn to at most `masks` masks, none of them empty.

    As in `corpus.salience`, content words are all words that are not stop words. They are not ranked: in a short text all of
    them count, invented ones most. If there are only stop words, all words are used.
    """
    words = WORD.spans(output)
    content = [word for word in words if word[2].replace("’", "'") not in STOP_WORDS] or words
    dealt = [tuple((start, end) for start, end, _ in content[number::masks]) for number in range(masks)]
    return [mask for mask in dealt if mask]


def _brevity(rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Output tokens / document tokens; NaN for a document without tokens."""
    output, document = (np.array([row[name] for row in rows], np.float64) for name in ("output_tokens", "document_tokens"))
    return output / np.where(document > 0, document, np.nan)
