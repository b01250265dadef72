"""The language of an output, by py3langid (naive Bayes over byte n-grams; Lui and Baldwin, 2012), which includes its model."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.config import nearest
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.columns import WITHIN_ONE, Range, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_LOOKED_AT_CHARACTERS = 4000  # more does not change the result, and a row may have 100,000


class LanguageConfig(FilterConfig):
    """The accepted languages, as ISO 639-1 codes, and their minimum total probability.

    `among`: the languages that an output can be in; null: all that the library knows. Naming the few languages that a teacher
    can write makes short texts much more certain.
    """

    reasons: ClassVar[Mapping[str, str]] = {"min_probability": "the output is in another language"}

    also: ClassVar[tuple[str, ...]] = ("language",)

    kind: Literal["language"] = "language"
    name: Name = "language"
    languages: list[str] = Field(default=["en"], min_length=1)
    among: list[str] | None = Field(default=None, min_length=2)
    min_probability: Limit = 0.03

    @model_validator(mode="after")
    def _wants_what_it_looks_for(self) -> "LanguageConfig":
        missing = [] if self.among is None else [language for language in self.languages if language not in self.among]
        if missing:
            raise ValueError(f"language {missing[0]!r} is wanted but not `among` {', '.join(self.among or [])}; add it there")
        return self

    def problems(self) -> list[str]:
        """Reports a missing library or a language that it does not know."""
        if find_spec("py3langid") is None:
            return [f"filter {self.name}: py3langid is not installed; run: pip install py3langid"]
        try:
            identifier(self._considered())
        except LimbeckError as error:
            return [f"filter {self.name}: {error}"]
        unknown = [language for language in self.languages if language not in identifier(None).labels]
        return [f"filter {self.name}: {_unknown(language)}" for language in unknown]

    @property
    def ranges(self) -> Mapping[str, Range]:
        """A probability."""
        return {"probability": WITHIN_ONE}

    def build(self, engines: "Engines") -> "LanguageFilter":
        """Return the filter; raises LimbeckError for a language that the library does not know."""
        return LanguageFilter(self.languages, identifier(self._considered()), self.name, self.bounds)

    def _considered(self) -> tuple[str, ...] | None:
        return None if self.among is None else tuple(sorted(set(self.among)))


class LanguageFilter:
    """Scores the probability that an output is in an accepted language; the model is a table, without a network."""

    def __init__(self, languages: Sequence[str], identifier: Any, name: str = "language", bounds: Sequence[Bound] = ()) -> None:
        """Score with a loaded py3langid identifier with normalised probabilities."""
        unknown = [language for language in languages if language not in identifier.labels]
        if unknown:
            raise LimbeckError(f"filter {name}: {_unknown(unknown[0])}")
        self.name = name
        self.bounds = tuple(bounds)
        self._languages = frozenset(languages)
        self._identifier = identifier

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return the total `probability` of the accepted languages, and as evidence the most probable `language`.

        Only the first 4000 characters are read. An output without letters has no language: NaN and null. About 40 µs per row.
        """
        found = [self._judge((output or "")[:_LOOKED_AT_CHARACTERS]) for output in candidates["output"].to_pylist()]
        return score_table(
            candidates,
            {
                "probability": pa.array([probability for probability, _ in found], pa.float64()),
                "language": pa.array([language for _, language in found], pa.string()),
            },
            {"probability": "probability"},
        )

    def _judge(self, text: str) -> tuple[float, str | None]:
        if not any(map(str.isalpha, text)):
            return float("nan"), None
        ranked = self._identifier.rank(text)
        return min(1.0, float(sum(share for language, share in ranked if language in self._languages))), str(ranked[0][0])


@lru_cache(maxsize=4)
def identifier(among: tuple[str, ...] | None) -> Any:
    """py3langid's identifier for these languages (None: all), loaded once per process in half a second; 40 MB.

    Raises LimbeckError for an unknown language or a missing library.
    """
    try:
        from py3langid import langid  # type: ignore[import-untyped]
    except ImportError as error:
        raise LimbeckError("py3langid is not installed; run: pip install py3langid") from error
    loaded = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    unknown = [language for language in among or () if language not in loaded.labels]
    if unknown:
        raise LimbeckError(_unknown(unknown[0], loaded.labels))
    loaded.set_languages(among)
    return loaded


def _unknown(language: str, known: Sequence[str] | None = None) -> str:
    known = identifier(None).labels if known is None else known
    near = nearest(language, known)
    hint = f"did you mean {near!r}?" if near else f"known languages: {', '.join(known)}"
    return f"py3langid does not know the language {language!r}; {hint}"
