"""Magpie, measured: of the user's turns that a model draws from its bare chat template, how many are instructions by rule?

    python -m benchmarks.magpie [--model M] [--draws 200] [--answers 48] [--tokens 256]

Draws have the settings of the recipe `magpie`. A share that passes rules is a yield: it does not say whether an instruction
makes sense.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Engine, Message, Request, Sampling, UserTurn
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.sentences import ends_like_a_sentence
from limbeck.corpus.text.instruction_rules import MIN_WORDS
from limbeck.corpus.text.rouge.index import RougeIndex
from limbeck.generators.contract import Answer
from limbeck.generators.magpie import MagpieConfig, broken_rule
from limbeck.pipelines import recipe as recipes

NOVEL = 0.7
LIMITS = (64, 96, 128, 160, 192, 256)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--answers", type=int, default=48, help="of how many the answers are drawn; 0: none")
    parser.add_argument("--tokens", type=int, default=256, help="the limit of an answer")
    arguments = parser.parse_args()
    config = recipes.load("magpie").generator
    assert isinstance(config, MagpieConfig)
    engine = Engines().get(TransformersConfig(model=arguments.model))
    with timed(f"{arguments.draws} draws of {arguments.model}"):
        answers = draws(engine, arguments.draws, config.instruction.sampling)
    rules = Counter(broken_rule(answer, []) for answer in answers)
    texts = [answer.strip() for answer in answers if broken_rule(answer, []) is None]
    words = [text for text in texts if len(text.split()) >= MIN_WORDS]
    ended = [text for text in words if ends_like_a_sentence(text)]
    counts = {f"rejected: {rule}": count for rule, count in rules.items() if rule is not None}
    counts |= {f"at least {MIN_WORDS} words": len(words), "these, and end a sentence": len(ended)}
    novel = RougeIndex([], floor=NOVEL).judge(ended, NOVEL).accepted.sum()
    counts |= {f"these, and ROUGE-L to no earlier one above {NOVEL}": int(novel)}
    print("\n| | draws | share |\n|---|---|---|")
    for name, count in counts.items():
        print(f"| {name} | {count} | {count / len(answers):.1%} |")
    print("\nthe first ten:", *texts[:10], sep="\n- ")
    if arguments.answers:
        answered(engine, ended[: arguments.answers], arguments.tokens)


def draws(engine: Engine, count: int, sampling: Sampling) -> list[Answer]:
    """The first user's turns, with seeds of their own."""
    requests = [Request(str(place), UserTurn(), sampling, derive_seed(0, 0, f"draw {place}", 0)) for place in range(count)]
    found = {done.request_id: done for done in engine.complete(requests)}
    return [Answer.of(found[request.request_id], "instruction", 0, request.seed) for request in requests]


def answered(engine: Engine, texts: Sequence[str], tokens: int) -> None:
    """Print how many greedy answers are complete within some limits."""
    asked = [
        Request(str(place), (Message("user", text),), Sampling(tokens, temperature=0.0), place)
        for place, text in enumerate(texts)
    ]
    print()
    with timed(f"{len(texts)} answers"):
        found = list(engine.complete(asked))
    lengths = [len(done.token_ids) for done in found if done.finish_reason == "stop"]
    print("complete within", ", ".join(f"{limit} tokens: {sum(length < limit for length in lengths)}" for limit in LIMITS))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the time that a block takes."""
    began, cpu = time.monotonic(), time.process_time()
    yield
    print(f"{what}: {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
