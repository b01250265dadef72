"""Fluency as in Referee (Sclar et al., 2022): is the output as likely as its document under a language model?

The score is the output's negative log-likelihood per token divided by the document's, each text scored on its own with the end
token appended: below 1 the output is the likelier text. A text that stops in the middle of a sentence has an unlikely end token.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.invisible import stripped
from limbeck.corpus.text.words import one_line
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.columns import AT_LEAST_ZERO, Range
from limbeck.filters.config import EngineFilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string()),
        pa.field("fluency", pa.float64(), metadata={"unit": "nats a token / nats a token"}),
        pa.field("output_nats_per_token", pa.float64(), metadata={"unit": "nats / token"}),
        pa.field("document_nats_per_token", pa.float64(), metadata={"unit": "nats / token"}),
    ]
)


class FluencyConfig(EngineFilterConfig):
    """The fluency filter with its engine (null: the round-0 teacher) and its bound.

    The paper's bound is 1.0, for single sentences and GPT2-large; few outputs reach it for documents of many sentences.
    """

    semantics: ClassVar[int] = 2
    reasons: ClassVar[Mapping[str, str]] = {"max_fluency": "the output reads worse than its document"}

    also: ClassVar[tuple[str, ...]] = ("output_nats_per_token", "document_nats_per_token")

    kind: Literal["fluency"] = "fluency"
    name: Name = "fluency"
    max_fluency: Limit = "calibrated"

    @property
    def ranges(self) -> Mapping[str, Range]:
        """A quotient of two averages that are not negative."""
        return {"fluency": AT_LEAST_ZERO}

    @property
    def texts(self) -> Mapping[str, RowText]:
        """It is the divisor."""
        return {"fluency": "document"}

    def build(self, engines: "Engines") -> "FluencyFilter":
        """Return the filter with a loaded engine.

        Raises LimbeckError if no engine is set, or its model has no end token.
        """
        tokenizer = Tokenizer.load(self.named_engine().folder())
        return FluencyFilter(self.loaded(engines), tokenizer, end_token(tokenizer), self.name, self.bounds)


class FluencyFilter:
    """Scores candidates by the likelihood of the output and of the document under a language model, each on its own."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, end: str, name: str = "fluency", bounds: Sequence[Bound] = ()
    ) -> None:
        """Score with `engine`, its `tokenizer`, and the end token `end`."""
        self.name = name
        self.bounds = tuple(bounds)
        self._engine = engine
        self._tokenizer = tokenizer
        self._end = end

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `fluency` and the two negative log-likelihoods per token whose ratio it is, one row per candidate.

        The mean is over all tokens except the first, including the end token, as in the loss that transformers computes. What
        precedes the first token depends on the model (nothing, or a beginning-of-text token), so that token is read but not
        scored. NaN for an empty text or one that does not fit the engine's context. Each distinct text is scored once.
        """
        outputs = [one_line(text) for text in candidates["output"].to_pylist()]
        documents = [stripped(text) for text in candidates["document"].to_pylist()]
        texts = [text for text in dict.fromkeys(outputs + documents) if text]
        arrays = self._engine.logprobs([self._pair(text) for text in texts]) if texts else []
        nats = {text: -float(array.mean(dtype=np.float64)) for text, array in zip(texts, arrays, strict=True)}
        output, document = (_column(nats, chosen) for chosen in (outputs, documents))
        fluency = output / np.where(document > 0, document, np.nan)
        return pa.table([candidates["candidate_id"], fluency, output, document], schema=_SCHEMA)

    def _pair(self, text: str) -> Pair:
        """The first token, and the rest of the text with the end token."""
        first = next((end for start, end in self._tokenizer.encode_with_offsets(text)[1] if end > start), 0)
        return Pair(text[:first], text[first:] + self._end)


def end_token(tokenizer: Tokenizer) -> str:
    """Return the end-of-text token from the tokenizer's or model's config; raises LimbeckError if there is none."""
    named = _json(tokenizer.folder / "tokenizer_config.json").get("eos_token")
    if isinstance(named, dict):
        named = named.get("content")
    if named is None:
        number = _json(tokenizer.folder / "config.json").get("eos_token_id")
        number = number[0] if isinstance(number, list) and number else number
        named = tokenizer.backend.id_to_token(number) if isinstance(number, int) else None
    if not isinstance(named, str) or tokenizer.backend.token_to_id(named) is None:
        raise LimbeckError(f"{tokenizer.folder} names no end token (eos_token in tokenizer_config.json); use another model")
    return named


def _json(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except ValueError as error:
        raise LimbeckError(f"{path} is not valid JSON ({error}); copy or download the model again") from error


def _column(nats: Mapping[str, float], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array([nats.get(text, np.nan) for text in texts], dtype=np.float64)
