"""The judge: a language model decides which of two answers meets a rubric better.

The answers A and B are few, so by default nothing is sampled: their log-probabilities as continuations of the prompt give the
preference exactly. Each answer comes first once, because models have a position bias (Zheng et al., 2023).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from limbeck.cluster.engines.protocol import Engine
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.sentences import split_sentences
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.invisible import stripped
from limbeck.filters.columns import PROBABILITY, Range, ranges_of, score_table
from limbeck.filters.config import Cost, EngineFilterConfig, Limit, Name, Probing
from limbeck.filters.contract import PROBED
from limbeck.filters.models.closed_questions import Asker, Floats, SamplingConfig
from limbeck.filters.models.rubrics import RUBRICS, Question, prompt_text, read_rows

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

PLACES = ("A", "B")
UNITS = dict.fromkeys(["preference", "position_bias", "answered", "preference_first", "preference_second"], PROBABILITY)
SELF_TEST_PAIRS = 50

SELF_TEST = Field(
    SELF_TEST_PAIRS, ge=0, description="pairs of true and corrupted output, per corruption, on which a run tests it; 0: none"
)


class JudgeConfig(EngineFilterConfig):
    """The judge's engine (null: the round-0 teacher), its criteria, and what the output is compared with.

    With `compare: reference` the output is compared with the row's reference, with `lead` with the first sentences of its
    document. `of` says what both are: answers about the document, or responses to the prompt. `rubric` null is the built-in one
    for that. `prompt` is the name of a built-in Jinja template or the path of one (null: `judge_output` or `judge_response`); its
    variables are `document`, `instruction`, `input`, `rubric`, `first` and `second`. With `sampling`, answers are sampled and
    parsed; without, their probabilities are computed.
    """

    semantics: ClassVar[int] = 3
    operational: ClassVar[frozenset[str]] = frozenset({"self_test"})
    cost: ClassVar[Cost] = Cost.GENERATION
    reasons: ClassVar[Mapping[str, str]] = {
        "min_answered": "the judge hardly answers with A or B",
        "min_preference": "the judge prefers the other answer",
        "max_position_bias": "the judge prefers a place, whatever stands there",
    }
    also: ClassVar[tuple[str, ...]] = tuple(UNITS)

    kind: Literal["judge"] = "judge"
    name: Name = "judge"
    compare: Literal["reference", "lead"]
    of: Literal["output", "response"] = "output"
    rubric: str | None = None
    prompt: str | None = None
    sampling: SamplingConfig | None = None
    self_test: int = SELF_TEST
    min_answered: Limit = None
    min_preference: Limit = None
    max_position_bias: Limit = None

    @property
    def probing(self) -> Probing:
        """Its self-test, of both orders of each pair."""
        return Probing(self.self_test, "answers", 2, None if self.self_test else "its self_test is 0")

    @property
    def template(self) -> str:
        """The name or path of the template."""
        return self.prompt or f"judge_{self.of}"

    def question(self) -> Question:
        """The question; raises LimbeckError if the template is missing or does not render."""
        rubric = self.rubric or RUBRICS["summary" if self.of == "output" else "quality"][1]
        return Question(self.template, rubric, "judge*", ("first", "second"))

    def problems(self) -> list[str]:
        """Reports a template that is missing or does not render."""
        try:
            self.question()
        except LimbeckError as error:
            return [str(error)]
        return []

    def scoring(self) -> dict[str, Any]:
        """As for every filter, plus the text of the template."""
        return super().scoring() | {"prompt_text": prompt_text(self.template)}

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Probabilities."""
        return ranges_of(UNITS)

    @property
    def texts(self) -> Mapping[str, RowText]:
        """What the output is compared with."""
        return dict.fromkeys(UNITS, "reference" if self.compare == "reference" else "document")

    def build(self, engines: "Engines") -> "JudgeFilter":
        """Return the filter with a loaded engine; raises LimbeckError if no engine is set or the template fails."""
        return JudgeFilter(self, self.loaded(engines))


class JudgeFilter:
    """Compares outputs with other answers by a language model."""

    def __init__(self, config: JudgeConfig, engine: Engine) -> None:
        """Judge with `engine`; raises LimbeckError if the template is missing or does not render."""
        self.name = config.name
        self.bounds = config.bounds
        self._config = config
        self._question = config.question()
        self._asker = Asker(engine, config.sampling, "judge")

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return the columns of `UNITS`, one row per candidate.

        `preference`: the probability that the output is the better answer, averaged over both orders. `preference_first` and
        `preference_second` are the same with the output in that position, `position_bias` is their difference, `answered` the
        total probability of both answers, averaged. An empty output is never preferred, without asking the model. NaN: the
        prompt does not fit the engine's context, no answer could be parsed, or there is nothing to compare with.
        """
        rows = read_rows(candidates)
        if self._config.compare == "reference":
            others = [row["reference"] for row in rows]
        else:
            others = [lead(row["document"], row["output"]) for row in rows]
        return score_table(candidates, self.compared(rows, others), UNITS)

    def probe(self, pairs: pa.Table) -> pa.Table:
        """Compare each output with its corrupted version, in both orders: the columns `contract.PROBED`."""
        found = self.compared(read_rows(pairs), [stripped(text or "") for text in pairs["corrupted"].to_pylist()])
        preference = found["preference"]
        columns = {name: found[name] for name in ("preference_first", "preference_second")}
        columns |= {"score_true": preference, "score_corrupted": 1.0 - preference}
        return pa.table(columns).select(PROBED.names).cast(PROBED)

    def compared(self, rows: Sequence[Mapping[str, Any]], others: Sequence[str]) -> dict[str, Floats]:
        """The score columns of rows of `read_rows`, each compared with the text in `others`; "": nothing to compare with."""
        places = [place for place, row in enumerate(rows) if row["output"] and others[place]]
        questions = []
        for place in places:
            output, other, seed = rows[place]["output"], others[place], rows[place]["seed"]
            questions.append((self._question.render(rows[place], first=output, second=other), seed, 0))
            questions.append((self._question.render(rows[place], first=other, second=output), seed, 1))
        answers = self._asker.ask(questions, PLACES)
        unasked = np.array([np.nan if row["output"] else 0.0 for row in rows])  # an empty output always loses
        first, second, answered = unasked.copy(), unasked.copy(), np.where(np.isnan(unasked), np.nan, 1.0)
        first[places], second[places] = answers.shares[::2, 0], answers.shares[1::2, 1]
        answered[places] = (answers.answered[::2] + answers.answered[1::2]) / 2
        return {
            "preference": (first + second) / 2,
            "position_bias": np.abs(first - second),
            "answered": answered,
            "preference_first": first,
            "preference_second": second,
        }


def lead(document: str, output: str) -> str:
    """The document's first sentences, as many as the output has: a free summary that is hard to beat."""
    return " ".join(split_sentences(document)[: max(1, len(split_sentences(output)))])
