"""A run whose outputs are sentences of its documents, so that the judges of a tiny model can be tested on them.

python -m helpers.restating RECIPE RUN, or as a script
"""

import sys

from limbeck.generators.contract import Draft
from limbeck.generators.own import own_generator
from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run


def restate(source, draw, pool):
    """The first two sentences of the document; the model draws nothing."""
    first, second, *_ = source.document.split(". ")
    return [Draft("Say what the text is about.", f"{first}. {second}.")]
    yield


def question(source):
    """What held-out documents are asked."""
    return f"{source.document}\n\nIt is about:"


if __name__ == "__main__":
    run(load(sys.argv[1]), sys.argv[2], generator=own_generator("restating", restate, question, completions=1, chat=False))
