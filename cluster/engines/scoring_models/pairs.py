"""Convert pairs of texts to rows of tokens: each text is tokenised once, pairs are joined as ids, rows are batched by length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.scoring_models.batching import Batch, Lengths, by_length
from limbeck.corpus.errors import LimbeckError

Ids = npt.NDArray[np.int64]

_PROBE = ("a cat", "the dog")


@dataclass(frozen=True)
class Rows:
    """Concatenated rows of tokens, longest row first.  # ids, types: [sum of lengths]; lengths: [rows]"""

    ids: Ids
    types: Ids
    lengths: Ids


@dataclass(frozen=True)
class Template:
    """The tokens that a tokenizer puts before, between and after two texts, and their token types."""

    before: Ids
    between: Ids
    behind: Ids
    types: tuple[Ids, int, Ids, int, Ids]  # of `before`, the premise, `between`, the hypothesis, `behind`

    @property
    def tokens(self) -> int:
        """Number of tokens it adds to a pair."""
        return len(self.before) + len(self.between) + len(self.behind)


@dataclass(frozen=True)
class Joined:
    """Pairs as ids: premise (its first `kept` tokens) and hypothesis of each pair; `lengths` 0: does not fit."""

    template: Template
    premises: list[Ids]
    hypotheses: list[Ids]
    kept: Ids  # [pairs]
    lengths: Ids  # [pairs], tokens of the whole row
    cut_tokens: npt.NDArray[np.int32]  # [pairs]

    def rows(self, places: Ids) -> Rows:
        """Return the rows of some pairs, in the order given."""
        template = self.template
        ids: list[Ids] = []
        for place in places.tolist():
            premise = self.premises[place][: self.kept[place]]
            ids += (template.before, premise, template.between, self.hypotheses[place], template.behind)
        return Rows(np.concatenate(ids), self._types(places), self.lengths[places])

    def _types(self, places: Ids) -> Ids:
        before, premise, between, hypothesis, behind = self.template.types
        types: list[Ids] = []
        for place in places.tolist():
            own = len(self.hypotheses[place])
            types += (before, np.full(self.kept[place], premise), between, np.full(own, hypothesis), behind)
        return np.concatenate(types)


class Joiner:
    """Joins pairs for one model with at most `max_tokens` per row."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        """Take a fast tokenizer of transformers; raises LimbeckError if it joins two texts in an unknown way."""
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._template = _template(self._backend, tokenizer)
        self._max_tokens = max_tokens

    def join(self, pairs: Sequence[tuple[str, str]]) -> Joined:
        """Tokenise each distinct text once (in parallel) and join; the end of a premise is cut if a row would be too long."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        ids = dict(zip(texts, self._encode(texts), strict=True))
        premises = [ids[premise] for premise, _ in pairs]
        hypotheses = [ids[hypothesis] for _, hypothesis in pairs]
        whole = np.array([len(premise) for premise in premises], dtype=np.int64)
        fixed = np.array([len(hypothesis) for hypothesis in hypotheses], dtype=np.int64) + self._template.tokens
        kept = np.minimum(whole, np.maximum(self._max_tokens - fixed, 0))
        fits = (fixed <= self._max_tokens) & ((kept > 0) | (whole == 0))
        lengths = np.where(fits, fixed + kept, 0)
        return Joined(self._template, premises, hypotheses, kept, lengths, (whole - kept).astype(np.int32))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        return [len(ids) for ids in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        sound = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # unpaired surrogates are not valid text
        encoded = self._backend.encode_batch_fast(sound, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encoded]


def batches(lengths: Ids, batch_tokens: int) -> Iterator[Ids]:
    """Yield the indices of rows that are processed together: longest first, at most `batch_tokens` in total, or one row.

    Rows of length 0 are skipped. Equal lengths are adjacent, in the given order.
    """
    rows = np.flatnonzero(lengths > 0)

    def full(batch: Batch, row: Lengths) -> bool:
        return batch.tokens + sum(row) > batch_tokens

    for batch in by_length([(length,) for length in lengths[rows].tolist()], full):
        yield rows[batch]


def _template(backend: Any, tokenizer: Any) -> Template:
    """Find the template by joining two texts whose own tokens are known."""
    premise, hypothesis = (backend.encode(text, add_special_tokens=False).ids for text in _PROBE)
    whole = backend.encode(*_PROBE)
    ids, types = np.array(whole.ids, dtype=np.int64), np.array(whole.type_ids, dtype=np.int64)
    start = _find(whole.ids, premise, 0)
    end = start + len(premise)
    second = _find(whole.ids, hypothesis, end)
    last = second + len(hypothesis)
    if not premise or not hypothesis or start < 0 or second < 0:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise LimbeckError(f"the tokenizer {name} changes texts when joining them; use a model of the BERT family or DeBERTa")
    if "token_type_ids" not in tokenizer.model_input_names:
        types[:] = 0
    parts = (types[:start], int(types[start]), types[end:second], int(types[second]), types[last:])
    return Template(ids[:start], ids[end:second], ids[last:], parts)


def _find(row: list[int], part: list[int], start: int) -> int:
    """The index of `part` in `row` at or after `start`, -1 if it is absent."""
    places = range(start, len(row) - len(part) + 1)
    return next((place for place in places if row[place : place + len(part)] == part), -1)
