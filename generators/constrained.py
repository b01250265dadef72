"""Which words a step's completions must and must not contain: the keys of a section `constraint` of a recipe."""

from collections.abc import Iterable

from pydantic import Field

from limbeck.cluster.engines.constraint import Constraint, inflections
from limbeck.corpus import extras
from limbeck.corpus.config import MOST_SAMPLES, Config

_DEFAULT = Constraint()


class ConstraintSection(Config):
    """How a generator that requires words of its completions has them searched; see `Constraint` for each setting.

    A generator that has such a section names its step in `constrained`, and adds `problems` to its own. `inflections`: a word is
    required in any inflection.
    """

    beams: int = Field(_DEFAULT.beams, ge=1, le=MOST_SAMPLES)
    prune: int | None = Field(_DEFAULT.prune, ge=1, description="null: no limit")
    tolerance: int | None = Field(_DEFAULT.tolerance, ge=0, description="null: any number of clauses")
    progress: float = Field(_DEFAULT.progress, ge=0)
    length_penalty: float = Field(_DEFAULT.length_penalty, ge=0)
    no_repeat_ngram: int = Field(_DEFAULT.no_repeat_ngram, ge=0, description="0: n-grams may repeat")
    early_stop: float | None = Field(_DEFAULT.early_stop, ge=1, description="null: end tokens are always accepted")
    whole_words: bool = True
    inflections: bool = True
    banned: tuple[str, ...] = Field((), strict=False, description="phrases that no completion may contain")

    def constraint(self, required: Iterable[str | Iterable[str]]) -> Constraint:
        """The constraint of one request: each word or list of alternatives in `required` must occur.

        Raises MissingExtra if inflections are wanted and lemminflect is not installed.
        """
        clauses = [[phrase] if isinstance(phrase, str) else list(phrase) for phrase in required]
        if self.inflections:
            clauses = [list(dict.fromkeys(form for word in clause for form in inflections(word))) for clause in clauses]
        settings = self.model_dump(exclude={"inflections", "banned"})
        return Constraint.of(clauses, self.banned, **settings)

    def problems(self) -> list[str]:
        """Why no completion can be searched: banned phrases that are empty, or a missing package."""
        found = [Constraint.of((), self.banned).problem()]
        found += [extras.problem([("a constraint with inflections", "inflections")])] if self.inflections else []
        return [problem for problem in found if problem is not None]
