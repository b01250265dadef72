"""Constraints, measured: how many of three required concepts does a sentence contain, at what log-probability and cost?

    python -m benchmarks.neurologic [--model M] [--beams 8] [--prompts 50] [--tokens 32] [--asks one] [--prune 50 0] [--json]

Each prompt has three concepts of everyday scenes; a clause is a concept in all its inflections. `three`: the prompt asks for a
sentence with the three words. `one`: it asks for a sentence about the first, and the other two come from the search
alone. Plain beam search is the same search without clauses. Coverage is the share of clauses that the text meets, by word
boundaries; the log-probability is the model's, per token of the text; time is CPU time per token that the model forwards, and
in all. The contenders alternate, ten prompts at a time.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.constraint import Constraint, inflections
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.protocol import Completion, Message, Pair, Request, Sampling

TRIPLES = """
dog ball park; chef knife onion; teacher board question; child kite beach; farmer tractor field; cat window bird;
girl bicycle street; nurse patient bed; man ladder roof; woman guitar stage; boy puddle boot; baker bread oven;
painter brush wall; driver truck bridge; fisherman boat lake; student book library; mother baby song;
soldier horse hill; waiter plate table; friend game couch; carpenter hammer nail; runner road morning;
doctor letter desk; king crown castle; bear river fish; family dinner kitchen; player coach field; pilot plane cloud;
gardener flower water; tailor needle shirt; rider wave board; worker brick house; dancer music floor;
sheep fence grass; mechanic engine garage; barber chair hair; singer microphone crowd; clerk coin drawer;
hiker mountain tent; squirrel nut tree; grandfather story fire; judge court paper; cow barn milk;
camera tourist tower; snow shovel driveway; train ticket station; monkey banana branch; swimmer pool towel;
candle cake birthday; phone bag train
"""
PROMPTS = {
    "three": "Write one short sentence that contains the words {0}, {1} and {2}.",
    "one": "Write one short sentence about a {0}.",
}
CHUNK = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--beams", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--asks", choices=list(PROMPTS), nargs="+", default=list(PROMPTS), help="concepts that the prompt names")
    parser.add_argument("--prune", type=int, nargs="+", default=[50, 0], help="0: no limit, and early_stop 10")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    triples = [tuple(triple.split()) for triple in TRIPLES.replace("\n", " ").split(";")][: arguments.prompts]
    engine = build(TransformersConfig(model=arguments.model))
    rows = []
    for asked in arguments.asks:
        measured = Measured(engine, triples, PROMPTS[asked], arguments)
        for start in range(0, len(triples), CHUNK):
            for name in measured.contenders:
                measured.run(name, start)
        rows += [{"asked": asked, **measured.row(name)} for name in measured.contenders]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("prompt names", "search", "coverage", "all three", "log p per token", "tokens", "CPU ms per forwarded token")
    print(f"| {' | '.join((*columns, 'relative', 'CPU s', 'relative'))} |\n|{'---|' * (len(columns) + 3)}")
    for row in rows:
        quality = f"{row['coverage']:.1%} | {row['all_met']:.1%} | {row['logprob']:.2f} | {row['tokens']:.1f}"
        cost = f"{row['ms_per_token']:.2f} | {row['relative']:.2f} | {row['seconds']:.0f} | {row['relative_total']:.2f}"
        print(f"| {row['asked']} | {row['search']} | {quality} | {cost} |")


class Measured:
    """The contenders on one kind of prompt: their completions, seconds of CPU and forwarded tokens."""

    def __init__(
        self, engine: TransformersEngine, triples: list[tuple[str, ...]], prompt: str, settings: argparse.Namespace
    ) -> None:
        self.engine, self.tokens = engine, settings.tokens
        self.prompts = [(Message("user", prompt.format(*triple)),) for triple in triples]
        clauses = [Constraint.of(map(inflections, triple), beams=settings.beams) for triple in triples]
        self.clauses = clauses
        self.contenders = {"beam search": [Constraint(beams=settings.beams) for _ in triples]}
        for prune in settings.prune:
            changes = {"prune": prune} if prune else {"prune": None, "early_stop": 10}
            for progress in (0, 1.25):
                name = f"NeuroLogic, prune {prune or 'none'}, progress {progress}"
                self.contenders[name] = [replace(clause, progress=progress, **changes) for clause in clauses]
        self.done: dict[str, dict[int, Completion]] = {name: {} for name in self.contenders}
        self.seconds, self.forwarded = defaultdict[str, float](float), defaultdict[str, int](int)

    def run(self, name: str, start: int) -> None:
        """Complete ten prompts."""
        constraints = self.contenders[name]
        requests = [
            Request(str(i), self.prompts[i], Sampling(self.tokens, temperature=0.0, stop=("\n",), constraint=constraints[i]), 0)
            for i in range(start, min(start + CHUNK, len(constraints)))
        ]
        before, began = self.engine.usage.forwarded_tokens, time.process_time()
        self.done[name] |= {int(done.request_id): done for done in self.engine.complete(requests)}
        self.seconds[name] += time.process_time() - began
        self.forwarded[name] += self.engine.usage.forwarded_tokens - before

    def row(self, name: str) -> dict[str, float | str]:
        """What is reported of one contender."""
        done = self.done[name]
        assert not any(completion.error for completion in done.values())
        unmet = [len(self.clauses[i].unmet(completion.text)) for i, completion in done.items()]
        per_token = {key: self.seconds[key] / self.forwarded[key] for key in (name, "beam search")}
        return {
            "search": name,
            "coverage": 1 - sum(unmet) / (3 * len(unmet)),
            "all_met": sum(not missing for missing in unmet) / len(unmet),
            "logprob": float(np.mean([self._logprob(i, completion.text) for i, completion in done.items()])),
            "tokens": float(np.mean([len(completion.token_ids) for completion in done.values()])),
            "ms_per_token": 1000 * per_token[name],
            "relative": per_token[name] / per_token["beam search"],
            "seconds": self.seconds[name],
            "relative_total": self.seconds[name] / self.seconds["beam search"],
        }

    def _logprob(self, number: int, text: str) -> float:
        turns = [vars(message) for message in self.prompts[number]]
        context: str = self.engine.loaded.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        (values,) = self.engine.logprobs([Pair(context, text)])
        return float(values.mean())


if __name__ == "__main__":
    main()
