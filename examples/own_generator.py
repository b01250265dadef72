"""A user-defined generator: a Python generator function over one source.

python examples/own_generator.py RECIPE RUN
"""

import sys

from limbeck.cluster.engines.protocol import Sampling
from limbeck.generators.contract import Draft
from limbeck.generators.own import own_generator
from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run

SAMPLING = Sampling(40, temperature=0.7, stop=("\n",))


def questions(source, draw, pool):
    """A question about the document, then its answer: the candidate is the answer, its prompt the question."""
    question = yield draw("question", f"{source.document}\n\nA question about this text:", SAMPLING)
    if not question.strip():
        return [Draft.rejected(question, "there is no question")]
    answer = yield draw("answer", f"{source.document}\n\nQuestion: {question.strip()}\nAnswer:", SAMPLING)
    return [Draft.of(answer, question.strip(), input=source.document)]


if __name__ == "__main__":
    run(load(sys.argv[1]), sys.argv[2], generator=own_generator("questions", questions, completions=2, chat=False))
