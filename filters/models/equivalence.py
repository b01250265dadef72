"""The equivalence filter: does the output paraphrase the document (Jung et al., Impossible Distillation)?

Written for pairs of sentences: x is the candidate's document, y its output. They are equivalent if a natural-language inference
model finds that each entails the other. The pair is a useful training example if their surface forms differ, measured by ROUGE-L
and, with a parser, by the edit distances of their syntax.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import model_validator

from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.copies import same_text
from limbeck.corpus.text.invisible import without_invisible
from limbeck.corpus.text.numbers import missing, numbers
from limbeck.corpus.text.rouge.index import rouge_l
from limbeck.corpus.text.words import one_line
from limbeck.filters.columns import AT_LEAST_ZERO, PROBABILITY, WITHIN_ONE, Range
from limbeck.filters.config import Cost, FilterConfig, Limit, Name, PerSource
from limbeck.filters.contract import Bound
from limbeck.filters.models.edit_distance import ParserConfig, Syntax, tag_distance, tree_distance
from limbeck.filters.models.entailment_graph import GraphConfig, Node, Question, entailment_graph

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines


SUMMARY_DEFAULTS = {"max_character_ratio": 0.8, "max_rouge_l": None, "min_backward": None}
"""The bounds of the paper's appendix C: the document entails the summary, which is shorter."""


ENTAILMENT_SCORES = ("forward", "backward", "strength")
"""The scores that need a model; bounds on the others can be checked first."""


class EquivalenceConfig(FilterConfig):
    """Two-way entailment (with `only: forward` one-way, for summaries), different wording, equal numbers.

    With `lazy_entailment`, rows already rejected by a bound on the text are not sent to the model. `graph` computes the links
    that the set-wise filter `diversity` needs, for rows that pass this filter's own known bounds.
    """

    semantics: ClassVar[int] = 3
    cost: ClassVar[Cost] = Cost.MODEL
    reasons: ClassVar[Mapping[str, str]] = {
        "max_same_text": "the output is the document, but for case, spacing and punctuation",
        "min_character_ratio": "the output is too short for its document",
        "max_character_ratio": "the output is too long for its document",
        "min_numbers_agree": "the output and the document do not give the same numbers",
        "max_rouge_l": "the output uses too much of the document's wording",
        "min_tree_distance": "the output is built too much like the document",
        "min_pos_distance": "the output is built too much like the document",
        "min_forward": "the document does not entail the output",
        "min_backward": "the output does not entail the document",
    }

    kind: Literal["equivalence"] = "equivalence"
    name: Name = "equivalence"
    classifier: ClassifierConfig = ClassifierConfig()
    parser: ParserConfig | None = None
    only: Literal["forward"] | None = None
    lazy_entailment: bool = False
    graph: GraphConfig | None = None
    max_same_text: Limit = 0.0
    min_character_ratio: Limit = None
    max_character_ratio: Limit = None
    min_numbers_agree: Limit = 1.0
    max_rouge_l: Limit = 0.75
    min_tree_distance: Limit = None
    min_pos_distance: Limit = None
    min_forward: Limit = 0.75
    min_backward: Limit = 0.75

    @model_validator(mode="before")
    @classmethod
    def _limits_for_summaries(cls, data: Any) -> Any:
        return {**SUMMARY_DEFAULTS, **data} if isinstance(data, dict) and data.get("only") == "forward" else data

    @model_validator(mode="after")
    def _limits_have_columns(self) -> "EquivalenceConfig":
        if self.only == "forward" and self.min_backward is not None:
            raise ValueError("min_backward: with only: forward there is no backward score; leave one of them out")
        for key in ("min_tree_distance", "min_pos_distance"):
            if getattr(self, key) is not None and self.parser is None:
                wanted = ParserConfig().model
                raise ValueError(
                    f"{key} needs a parser: add parser: {{model: {wanted}}}, and pip install spacy {_package(wanted)}"
                )
        return self

    @property
    def texts(self) -> Mapping[str, RowText]:
        """It neither entails nor is entailed if it is empty, and is a divisor."""
        return dict.fromkeys(("forward", "backward", "character_ratio"), "document")

    @property
    def score_schema(self) -> pa.Schema:
        """The score columns of this config, with their units."""
        scores = {"same_text": "0 or 1", "character_ratio": "characters / characters", "numbers_agree": "0 or 1"}
        scores |= {"rouge_l": "ROUGE-L F1, 0 to 1"}
        scores |= {"tree_distance": "edits", "pos_distance": "edits"} if self.parser else {}
        backward = {} if self.only == "forward" else {"backward": PROBABILITY}
        scores |= {"forward": PROBABILITY, **backward, "strength": f"sum of {1 + len(backward)} probabilities"}
        fields = [pa.field(name, pa.float64(), metadata={"unit": unit}) for name, unit in scores.items()]
        evidence = ["unmatched_numbers", *(["entails", "unasked"] if self.graph else [])]
        fields += [pa.field(name, pa.list_(pa.string())) for name in evidence]
        return pa.schema([*fields, pa.field("skipped", pa.string())])

    @property
    def columns(self) -> tuple[str, ...]:
        """Every score and evidence column of this config."""
        return tuple(self.score_schema.names)

    def problems(self) -> list[str]:
        """Reports a missing parser."""
        problem = self.parser.problem() if self.parser else None
        return [f"filter {self.name}: {problem}"] if problem else []

    def scoring(self) -> dict[str, Any]:
        """As for every filter, plus the installed release of the parser."""
        return super().scoring() | ({"parser_release": self.parser.release()} if self.parser else {})

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Probabilities and shares; the others are counts, or quotients of counts."""
        within = dict.fromkeys(("same_text", "numbers_agree", "rouge_l", "forward", "backward"), WITHIN_ONE)
        return {**within, **dict.fromkeys(("character_ratio", "tree_distance", "pos_distance"), AT_LEAST_ZERO)}

    def nli_pairs(self, source: PerSource) -> int:
        """Both directions of each pair and of each link, but each ordered pair of distinct texts once."""
        directions = 1 if self.only == "forward" else 2
        links = source.candidates * (source.candidates - 1) if self.graph is not None else 0
        sides = 2 if self.graph is not None and self.graph.sides == "both" else 1
        return min(source.candidates * directions + links * sides, source.texts * (source.texts - 1))

    def build(self, engines: "Engines") -> "EquivalenceFilter":
        """Return the filter with a loaded classifier (and parser); raises LimbeckError if either cannot be loaded."""
        parser = engines.hold(self.parser) if self.parser else None
        return EquivalenceFilter(self, engines.hold(self.classifier), parser)


class Entailment(Protocol):
    """A loaded classifier (`limbeck.cluster.engines.scoring_models.classifier.Classifier`)."""

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return the probabilities of entailment, neutral and contradiction.  # [pairs, 3]"""
        ...


class Syntaxes(Protocol):
    """A loaded parser (`limbeck.filters.models.edit_distance.Parser`)."""

    def parse(self, texts: Sequence[str]) -> dict[str, Syntax | None]:
        """Return the syntax of each distinct text; None for texts that are too long."""
        ...


class EquivalenceFilter:
    """Scores pairs by entailment and by the difference of their wording."""

    def __init__(self, config: EquivalenceConfig, classifier: Entailment, parser: Syntaxes | None = None) -> None:
        """Score with these models; the config decides what is computed, and selection applies its bounds."""
        self.name = config.name
        self.bounds = config.bounds
        self._config = config
        self._classifier = classifier
        self._parser = parser

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return the scores of each candidate; docs/filters/equivalence.md describes every column.

        An empty output or document entails nothing (0). NaN: the pair does not fit the classifier, the text is too long for the
        parser, or the document is empty (`character_ratio`). Null: skipped; `skipped` names the score that made it unnecessary
        and `skipped_by` names this filter. Each distinct (premise, hypothesis) is sent to the classifier once.
        """
        rows = [_row(row) for row in candidates.select(["candidate_id", "source_id", "document", "output"]).to_pylist()]
        for row in rows:
            row |= self._text_scores(row)
        if self._parser is not None:
            syntaxes = self._parser.parse([row[side] for row in rows for side in ("document", "output")])
            for row in rows:
                row |= _syntax_scores(syntaxes[row["document"]], syntaxes[row["output"]])
        on_text = [bound for bound in self.bounds if bound.column not in ENTAILMENT_SCORES]
        for row in rows:
            row["skipped"] = _first_rejecting(on_text, row) if self._config.lazy_entailment else None
            row["skipped_by"] = None if row["skipped"] is None else self.name
        known: dict[Question, float] = {}
        self._entailment_scores(rows, known)
        if self._config.graph is not None:
            self._link(rows, known, self._config.graph)
        names = [pa.field("candidate_id", pa.string()), pa.field("skipped_by", pa.string())]
        return pa.Table.from_pylist(rows, schema=pa.schema([*names, *self._config.score_schema]))

    def _text_scores(self, row: Mapping[str, Any]) -> dict[str, Any]:
        x, y = (one_line(without_invisible(row[side])) for side in ("document", "output"))
        ours, theirs = numbers(x), numbers(y)
        unmatched = missing(theirs, ours)
        if self._config.only is None:  # a summary may leave numbers out
            unmatched = sorted({*unmatched, *missing(ours, theirs)})
        return {
            "same_text": float(same_text(x, y)),
            "character_ratio": len(y) / len(x) if x else math.nan,
            "numbers_agree": float(not unmatched),
            "unmatched_numbers": unmatched,
            "rouge_l": rouge_l(x, y),
        }

    def _entailment_scores(self, rows: Sequence[dict[str, Any]], known: dict[Question, float]) -> None:
        """Set `forward`, `backward` and `strength` of each row that is not skipped."""
        asked = [row for row in rows if row["skipped"] is None]
        forward = [(row["document"], row["output"]) for row in asked]
        backward = [] if self._config.only == "forward" else [(y, x) for x, y in forward]
        answers = self._ask([*forward, *backward], known)
        for place, row in enumerate(asked):
            row["forward"] = row["strength"] = answers[place]
            if backward:
                row["backward"] = answers[len(forward) + place]
                row["strength"] = row["forward"] + row["backward"]

    def _ask(self, questions: Sequence[Question], known: dict[Question, float]) -> list[float]:
        """The probability that each premise entails its hypothesis; `known` holds earlier answers, and new ones are added to it.

        Equal texts entail each other; an empty text neither entails nor is entailed.
        """
        for premise, hypothesis in questions:
            if not premise or not hypothesis:
                known[premise, hypothesis] = 0.0
            elif premise == hypothesis:
                known[premise, hypothesis] = 1.0
        new = [question for question in dict.fromkeys(questions) if question not in known]
        if new:
            known.update(zip(new, self._classifier.probabilities(new)[:, 0].astype(np.float64).tolist(), strict=True))
        return [known[question] for question in questions]

    def _link(self, rows: Sequence[dict[str, Any]], known: dict[Question, float], graph: GraphConfig) -> None:
        """Set the links of each row that passes the known bounds; the others have none (null)."""
        passing = [row for row in rows if row["skipped"] is None and _first_rejecting(self.bounds, row) is None]
        nodes = [Node(row["candidate_id"], row["source_id"], row["document"], row["output"]) for row in passing]
        links = entailment_graph(nodes, lambda questions: self._ask(questions, known), graph)
        for row in passing:
            found = links[row["candidate_id"]]
            row |= {"entails": found.entails, "unasked": found.unasked}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The ids, and both texts with whitespace normalised, so that it counts neither as length nor as a difference."""
    texts = {name: one_line(row[name] or "") for name in ("document", "output")}
    return {"candidate_id": row["candidate_id"], "source_id": row["source_id"], **texts}


def _syntax_scores(x: Syntax | None, y: Syntax | None) -> dict[str, float]:
    if x is None or y is None:
        return {"tree_distance": math.nan, "pos_distance": math.nan}
    return {"tree_distance": float(tree_distance(x.tree, y.tree)), "pos_distance": float(tag_distance(x.tags, y.tags))}


def _first_rejecting(bounds: Sequence[Bound], row: Mapping[str, Any]) -> str | None:
    """The first column whose known bound rejects the row, or None; any bound rejects NaN."""
    return next((bound.column for bound in bounds if bound.rejects(row[bound.column], unscored=True)), None)


def _package(module: str) -> str:
    return module.replace("_", "-")
