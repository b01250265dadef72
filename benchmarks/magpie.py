"""Magpie, measured: of the user's turns that a model draws from its bare chat template, how many are instructions by rule?

    python -m benchmarks.magpie [--model M] [--draws 200] [--answers 48] [--tokens 256]

Draws are those of the recipe `magpie` (seed 0), of any model with a chat template. A share that passes rules is a yield: it does not
say whether an instruction makes sense.
"""

import argparse
import time
from collections import Counter

import pyarrow as pa

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Message, Request, Sampling
from limbeck.corpus.sentences import ends_like_a_sentence
from limbeck.corpus.text.instruction_rules import MIN_WORDS
from limbeck.corpus.text.rouge.index import RougeIndex
from limbeck.generators.contract import TEACHER, Draft, Draw, Script, Source, Task
from limbeck.generators.magpie import MagpieConfig, broken_rule
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes

NOVEL = 0.7
LIMITS = (64, 96, 128, 160, 192, 256)


class Turns:
    """The first step of `magpie` alone."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: MagpieConfig) -> None:
        self._config = config

    def script(self, source: Source, draw: Draw, pool: tuple[Task, ...]) -> Script:
        (prompt,) = self._config.user_turns({})
        answer = yield draw("instruction", prompt, self._config.instruction.sampling)
        return [Draft.of(answer, "", facts={"rule": broken_rule(answer, [])})]

    def question(self, source: Source) -> None:
        raise AssertionError


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
    began, cpu = time.monotonic(), time.process_time()
    sources = pa.table({"source_id": [f"s{n}" for n in range(arguments.draws)], "document": [""] * arguments.draws})
    rows = Runner(Turns(config), 0, 0).run(sources, {TEACHER: engine}).to_pylist()
    rules = Counter(broken for row in rows if (broken := _rule(row)))
    texts = [row["output"] for row in rows if _rule(row) is None]
    print(f"{len(rows)} draws, {time.monotonic() - began:.0f} s ({time.process_time() - cpu:.0f} s of CPU); {arguments.model}")
    print("\n| | draws | share |\n|---|---|---|")
    words = [text for text in texts if len(text.split()) >= MIN_WORDS]
    ended = [text for text in words if ends_like_a_sentence(text)]
    novel = RougeIndex([], floor=NOVEL).judge(ended, NOVEL).accepted.sum()
    counts = {f"rejected: {rule}": count for rule, count in rules.items()}
    counts |= {f"at least {MIN_WORDS} words": len(words), "these, and end a sentence": len(ended)}
    counts |= {f"these, and ROUGE-L to no earlier one above {NOVEL}": int(novel)}
    for name, count in counts.items():
        print(f"| {name} | {count} | {count / len(rows):.1%} |")
    if arguments.answers:
        _answers(engine, ended[: arguments.answers], arguments.tokens)
    print("\nthe first ten:")
    for text in texts[:10]:
        print(f"- {text}")


def _rule(row: dict[str, str]) -> str | None:
    import json

    return json.loads(row["facts"])["rule"]  # type: ignore[no-any-return]


def _answers(engine: object, texts: list[str], tokens: int) -> None:
    began, cpu = time.monotonic(), time.process_time()
    sampling = Sampling(tokens, temperature=0.0)
    asked = [Request(str(place), (Message("user", text),), sampling, place) for place, text in enumerate(texts)]
    found = list(engine.complete(asked))  # type: ignore[attr-defined]
    lengths = [len(done.token_ids) for done in found if done.finish_reason == "stop"]
    print(f"\n{len(found)} answers, {time.monotonic() - began:.0f} s ({time.process_time() - cpu:.0f} s of CPU); complete within")
    for limit in LIMITS:
        print(f"- {limit} tokens: {sum(length < limit for length in lengths)}")


if __name__ == "__main__":
    main()
