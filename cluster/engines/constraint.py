"""Words that a completion must or must not contain, and how the beam search looks for such a text; imports nothing heavy."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from limbeck.corpus.extras import require
from limbeck.corpus.text.words import JOINERS, is_mark


@dataclass(frozen=True)
class Clause:
    """Alternative phrases. Positive: at least one of them occurs; negative: none of them does.

    A clause has one polarity, so a mixed clause ("a, or not b") cannot be written.
    """

    phrases: tuple[str, ...]
    positive: bool = True


@dataclass(frozen=True)
class Constraint:
    """Clauses that all have to hold, and the settings of NeuroLogic (Lu et al. 2021, arXiv 2010.12884), a beam search.

    The defaults are those of the paper's released code for CommonGen, where a model was fine-tuned for the task; for an
    instruction-tuned model without fine-tuning that code has `prune` None, `early_stop` 10 and `progress` 1.25.

    A phrase occurs as written, with a capital first letter, or in capitals; with `whole_words`, only between word boundaries, so
    that `run` does not occur in `running` (see `inflections`). `beams` hypotheses are kept. A candidate that is not among the
    `beams` best continuations must be among the `prune` best ones (None: no limit), and may meet at most `tolerance` fewer
    clauses than the best candidate (None: any number). `progress` is the weight, in nats, of a phrase that has begun: with a
    share m of its tokens written, -progress · log m is added to the mean log-probability by which hypotheses are ranked. No
    `no_repeat_ngram` tokens occur twice (0: they may). An end token is accepted if it is among the `early_stop` · `beams` best
    tokens of its hypothesis (None: always). Finished hypotheses are compared by log-probability / tokens ** `length_penalty`;
    the completion is the one at `place`, the best being 0.
    """

    clauses: tuple[Clause, ...] = ()
    beams: int = 20
    prune: int | None = 50
    tolerance: int | None = 2
    progress: float = 0.0
    length_penalty: float = 0.2
    no_repeat_ngram: int = 3
    early_stop: float | None = 1.5
    whole_words: bool = True
    place: int = 0

    @classmethod
    def of(cls, required: Iterable[str | Iterable[str]], banned: Iterable[str] = (), **settings: Any) -> "Constraint":
        """One positive clause per phrase or list of alternatives in `required`, and one negative clause with all of `banned`."""
        clauses = [Clause((phrases,) if isinstance(phrases, str) else tuple(phrases)) for phrases in required]
        never = tuple(banned)
        return cls((*clauses, *([Clause(never, positive=False)] if never else [])), **settings)

    def unmet(self, text: str) -> tuple[int, ...]:
        """The numbers of the clauses that a text does not meet. O(characters · phrases)."""
        return tuple(
            number
            for number, clause in enumerate(self.clauses)
            if clause.positive != any(occurs(phrase, text, self.whole_words) for phrase in clause.phrases)
        )

    def problem(self) -> str | None:
        """Why no search can run with it, in one sentence, or None."""
        if self.beams < 1 or not 0 <= self.place < self.beams:
            return f"a constraint with {self.beams} beams has no hypothesis at place {self.place}; places count from 0"
        low = {"prune": self.prune, "early_stop": self.early_stop, "no_repeat_ngram": self.no_repeat_ngram + 1}
        if bad := [name for name, value in low.items() if value is not None and value < 1]:
            return f"{bad[0]} of a constraint is too small: {getattr(self, bad[0])}"
        positive = {"tolerance": self.tolerance, "progress": self.progress, "length_penalty": self.length_penalty}
        if bad := [name for name, value in positive.items() if value is not None and value < 0]:
            return f"{bad[0]} of a constraint is negative: {getattr(self, bad[0])}"
        return next(self._clause_problems(), None)

    def _clause_problems(self) -> Iterator[str]:
        banned = [phrase for clause in self.clauses if not clause.positive for phrase in clause.phrases]
        for number, clause in enumerate(self.clauses):
            if not clause.phrases or any(phrase != phrase.strip() or not phrase for phrase in clause.phrases):
                yield f"clause {number} of the constraint has no phrase, or one that is empty or begins or ends with whitespace"
            elif clause.positive and all(any(occurs(b, p, self.whole_words) for b in banned) for p in clause.phrases):
                yield f"clause {number} of the constraint cannot be met: each of its phrases contains a banned phrase"


def occurs(phrase: str, text: str, whole_words: bool = True) -> bool:
    """Whether a phrase occurs in a text, in one of its `forms`; with `whole_words`, only between word boundaries."""
    return any(_occurs(form, text, whole_words) for form in forms(phrase))


def _occurs(form: str, text: str, whole_words: bool) -> bool:
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        before = start > 0 and is_word(text[start - 1]) and is_word(form[0])
        after = end < len(text) and is_word(text[end]) and is_word(form[-1])
        if not whole_words or not (before or after):
            return True
        start = text.find(form, start + 1)
    return False


def forms(phrase: str) -> tuple[str, ...]:
    """A phrase as written, with a capital first letter, and in capitals."""
    return tuple(dict.fromkeys((phrase, phrase[:1].upper() + phrase[1:], phrase.upper())))


def is_word(character: str) -> bool:
    """Whether a character continues a word: a letter, a digit, an underscore, a combining mark, or an invisible joiner."""
    return character.isalnum() or character == "_" or character in JOINERS or (not character.isascii() and is_mark(character))


def inflections(word: str) -> tuple[str, ...]:
    """The word and all English inflections of its base forms (noun, verb, adjective, adverb), the word itself first.

    The base forms of `saw` are `see` and `saw`. A word that the dictionary lacks is inflected by rules. Raises MissingExtra if
    lemminflect is not installed.
    """
    require("inflecting words", "inflections")
    import lemminflect

    bases = {word, *(base for found in lemminflect.getAllLemmas(word).values() for base in found)}
    known = [found for found in map(lemminflect.getAllInflections, sorted(bases)) if found]
    known = known or [lemminflect.getAllInflectionsOOV(word, "NOUN")]
    forms_ = {form for found in known for alternatives in found.values() for form in alternatives}
    return tuple(dict.fromkeys((word, *sorted(forms_))))
