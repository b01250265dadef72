"""What a run's rounds record of their mixtures."""

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_object
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.mixture.facts import MixtureFacts, mixture_file
from limbeck.pipelines.runs.records import validated


def read_mixture(folder: RunFolder, number: int) -> MixtureFacts:
    """The facts of a round's mixture; raises LimbeckError if they are missing or damaged."""
    file = mixture_file(folder.mixture(number))
    return validated(MixtureFacts, read_object(file), file)


def refuse_changed(folder: RunFolder, number: int, now: MixtureFacts) -> None:
    """Raise LimbeckError if a component from outside the run is not what it was in the first round."""
    if number == 0 or not mixture_file(folder.mixture(0)).exists():
        return
    before = {one.name: one for one in read_mixture(folder, 0).components}
    for one in now.components:
        first = before.get(one.name)
        if one.kind in ("run", "rows") and first is not None and first.digest != one.digest:
            raise LimbeckError(
                f"component {one.name!r} of the mixture has changed since round 0 ({first.usable} usable rows then, {one.usable} "
                f"now): {one.given}; restore it, or start again with another --out"
            )
