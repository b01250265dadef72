"""What `limbeck check` knows of a recipe's mixture before there is a dataset."""

from collections.abc import Sequence

from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.mixture.components import Opened, Wanted, opened
from limbeck.pipelines.runs.mixture.mixing import count, first_usable
from limbeck.pipelines.runs.mixture.shares import Share, counts_of


def mix_problems(recipe: Recipe) -> list[str]:
    """Components from outside the run that are missing, or whose first usable row cannot be trained on with the others."""
    problems = list[str]()
    for columns in _columns(recipe):
        for each in _outside(recipe, columns, problems):
            try:
                first_usable(each)
            except LimbeckError as error:
                problems.append(f"mix: {error}")
    return list(dict.fromkeys(problems))


def share_problems(recipe: Recipe, train_sources: int) -> list[str]:
    """Shares that no mixture can have: those of components outside the run, which are counted, and at best of its own rows.

    `train_sources`: the sources of a round, each of which gives at most the generator's number of candidates.
    """
    if recipe.mix is None:
        return []
    counted = {each.component.name: count(each) for each in _outside(recipe, next(iter(_columns(recipe))), [])}
    most = train_sources * max(1, recipe.generator.needs.candidates)
    most = most if recipe.target is None else min(most, recipe.target.rows)
    last = recipe.mix.of_round(recipe.rounds - 1)
    shares = [
        counted[each.name].share if each.name in counted else Share(each.name, most, each.weight, each.cap) for each in last
    ]
    try:
        counts_of(shares, recipe.mix.size, recipe.mix.tempered, recipe.mix.max_repeats)
    except LimbeckError as error:
        return [f"mix, if every candidate were kept: {error}"]
    return []


def _columns(recipe: Recipe) -> Sequence[tuple[str, ...]]:
    """The columns of each different kind of student."""
    return () if recipe.mix is None else list(dict.fromkeys(student.columns for student in recipe.students))


def _outside(recipe: Recipe, columns: tuple[str, ...], problems: list[str]) -> list[Opened]:
    """The components from outside the run that can be opened; why others cannot is added to `problems`."""
    found = list[Opened]()
    for component in recipe.mix.components if recipe.mix is not None else ():
        if component.kind in ("own", "earlier"):
            continue
        try:
            found.append(opened(component, Wanted(recipe.renderer, columns), None, 0))
        except LimbeckError as error:
            problems.append(f"mix: {error}")
    return found
