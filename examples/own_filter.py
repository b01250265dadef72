"""A user-defined filter: any object with a name, bounds and score.

python examples/own_filter.py RECIPE RUN
"""

import re
import sys

import pyarrow as pa

from limbeck.filters.contract import Bound
from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run


class Numbers:
    """The number of numbers in the output that are not in the document."""

    name = "numbers"
    bounds = (Bound("invented", maximum=0, reason="it states a number that the document does not"),)

    def score(self, candidates: pa.Table) -> pa.Table:
        texts = zip(candidates["output"].to_pylist(), candidates["document"].to_pylist(), strict=True)
        found = [len(set(re.findall(r"\d+", output)) - set(re.findall(r"\d+", document))) for output, document in texts]
        return pa.table({"invented": [float(count) for count in found]})


if __name__ == "__main__":
    run(load(sys.argv[1]), sys.argv[2], filters=[Numbers()])
