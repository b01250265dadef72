"""How a recipe states a limit, and the bounds that follow from it."""

from typing import Annotated, Literal

from pydantic import Field

from filters.contract import Bound

Limit = float | Literal["calibrated"] | None
"""A number; `calibrated`: found once, on the train candidates of round 0; null: the score is measured but rejects nothing."""


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""A filter's name: it names a folder, a view and columns."""


def at_least(column: str, limit: Limit, reason: str) -> tuple[Bound, ...]:
    """The bound that rejects scores of `column` below `limit`; none where the limit is null."""
    if limit is None:
        return ()
    if limit == "calibrated":
        return (Bound(column, calibrate="minimum", reason=reason),)
    return (Bound(column, minimum=limit, reason=reason),)


def at_most(column: str, limit: Limit, reason: str) -> tuple[Bound, ...]:
    """The bound that rejects scores of `column` above `limit`; none where the limit is null."""
    if limit is None:
        return ()
    if limit == "calibrated":
        return (Bound(column, calibrate="maximum", reason=reason),)
    return (Bound(column, maximum=limit, reason=reason),)
