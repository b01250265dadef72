"""Self-consistency (Wang et al., 2022): of the samples of a question, keep those with the most frequent answer."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from limbeck.corpus.text.answers.reading import Answer
from limbeck.filters.answers import AnswerKeys, Grouped, shown
from limbeck.filters.config import Name, SetFilterConfig

VOTE = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("votes", pa.int64(), nullable=False, metadata={"unit": "samples with this answer"}),
        pa.field("samples", pa.int64(), nullable=False, metadata={"unit": "samples of the question"}),
    ]
)

NO_ANSWER = "no answer was found in it, so it has no vote"


class VoteConfig(AnswerKeys, Grouped, SetFilterConfig):
    """Where outputs state their answers, and how many samples of a question must agree."""

    semantics: ClassVar[int] = 2

    kind: Literal["vote"] = "vote"
    name: Name = "vote"
    keep: Literal["all", "one"] = Field("all", description="all samples with the most frequent answer, or the first of them")
    min_share: float = Field(0.0, ge=0, le=1, description="least share of the question's samples with that answer")
    min_votes: int = Field(1, ge=1, description="least number of samples with that answer")

    @property
    def least_samples(self) -> int:
        """As many as must agree."""
        return self.min_votes

    @property
    def needs(self) -> frozenset[str]:
        """The output, and what the samples of a question share."""
        return frozenset(("output", *self.grouping))

    def build(self) -> "VoteFilter":
        """Return the filter."""
        return VoteFilter(self)


class VoteFilter:
    """Counts the answers of each question's samples."""

    def __init__(self, config: VoteConfig) -> None:
        self.name = config.name
        self._config = config
        self._reader = config.reader()

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `VOTE`, one row per survivor; rows with a null reason are kept.

        Of answers with equally many votes, the one that comes first in order of sample and candidate_id wins. Samples without an
        answer have no vote, but count in `min_share`.
        """
        ids, outputs = (survivors[name].to_pylist() for name in ("candidate_id", "output"))
        judged: list[dict[str, Any]] = []
        for places in self._config.groups(survivors):
            answers = [self._reader.read(outputs[place] or "") for place in places]
            judged += self._judged([ids[place] for place in places], answers)
        return pa.Table.from_pylist(judged, schema=VOTE)

    def _judged(self, ids: Sequence[str], answers: Sequence[Answer | None]) -> Iterator[dict[str, Any]]:
        """Yield the rows of one question."""
        voting = [place for place, answer in enumerate(answers) if answer is not None]
        given = [answer for answer in answers if answer is not None]
        named = [voting[first] for first in self._reader.classes(given)]  # a class has the name of its first row
        classes = dict(zip(voting, named, strict=True))
        votes = Counter(named)
        winner = max(votes, key=votes.__getitem__, default=-1)  # the first of equals, since a Counter keeps the order of rows
        said = ["" if answer is None else shown(answer) for answer in answers]
        for place, (id_, answer) in enumerate(zip(ids, answers, strict=True)):
            row = {"candidate_id": id_, "reason": NO_ANSWER, "answer": None, "votes": 0, "samples": len(ids)}
            if answer is not None:
                of = classes[place]
                row |= {"reason": self._reason(place, of, winner, votes, ids, said), "answer": answer.text, "votes": votes[of]}
            yield row

    def _reason(
        self, place: int, of: int, winner: int, votes: Counter[int], ids: Sequence[str], said: Sequence[str]
    ) -> str | None:
        """Why a row is dropped whose answer is of the class `of`; None if it is kept."""
        config, most, rows = self._config, votes[winner], len(ids)
        told = f"{said[winner]} has {most} of {rows} votes"
        if most < config.min_votes:
            return f"the most frequent answer {told}, below min_votes {config.min_votes}"
        if most / rows < config.min_share:
            return f"the most frequent answer {told}, below min_share {config.min_share:.4g}"
        if of != winner:
            return f"its answer {said[place]} has {votes[of]}, but {told}{' and comes first' if votes[of] == most else ''}"
        if config.keep == "one" and place != winner:
            return f"{told}, and candidate {ids[winner]} is kept for them"
        return None
