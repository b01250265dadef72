"""An engine without weights that answers the prompts of `self_instruct`: every rule of the method applies to some of its texts.

`respond` depends on prompt and seed alone, so tests use it in one process and, as the kind `instructing`, in whole runs.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.protocol import Completion, FinishReason, Pair, Request, Usage
from limbeck.corpus.tokenizer import Tokenizer

VERBS = "describe compare list explain rewrite translate summarise choose sort name correct plan".split()
WORDS = """
    harbour garden letter lamp winter bridge teacher market river violin recipe castle engine journey island meadow
    careful early silent broken modern narrow gentle famous heavy bright between without before against during beside
    """.split()
SPOILT = (
    "Too short now",  # three words
    "Draw a picture of the harbour in winter",
    "Write a program that sorts the letters of a word",
    "(Optional) describe the garden of your neighbour",
    "Écrivez une lettre au voisin du château",
)


def respond(prompt: str, seed: int) -> tuple[str, FinishReason]:
    """The text and finish reason for a prompt."""
    rng = random.Random(hashlib.sha256(f"{prompt}|{seed}".encode()).hexdigest())
    if prompt.startswith("A series of"):
        texts = [_instruction(rng, prompt) for _ in range(rng.randint(1, 7))]
        text = " " + "".join(f"{text}\n{number}. " for number, text in enumerate(texts, 10)).rpartition("\n")[0]
        return text, "length" if rng.random() < 0.05 else "stop"
    if prompt.startswith("Write examples for each classification task"):
        labels = rng.choices(["Yes", "No", ""], weights=[5, 5, 1], k=rng.randint(0, 4))
        return "\n".join(f"Class label: {label}\nText: {_words(rng, 4)}" for label in labels), _reason(rng)
    if prompt.startswith("Write examples for each task"):
        examples = [_example(rng, number) for number in range(1, rng.randint(1, 8))]
        return "\n".join([*examples, *examples[: rng.randint(0, 1)]]), _reason(rng)
    return _words(rng, 5).capitalize() + ".", "stop"


def _instruction(rng: random.Random, prompt: str) -> str:
    drawn = rng.random()
    if drawn < 0.2:
        return rng.choice(SPOILT)
    if drawn < 0.35:  # one of those in the prompt, with another last word
        return rng.choice(prompt.split("\n")[1:-1]).partition(". ")[2].rpartition(" ")[0] + " harbour"
    return f"{rng.choice(VERBS)} the {_words(rng, rng.randint(4, 8))}"


def _example(rng: random.Random, number: int) -> str:
    given, output = rng.choice([_words(rng, 3), "the same input"]), _words(rng, 4)
    output = rng.choice([output, output, output, output, given, "", "the following:"])
    return f"Example {number}\nInput: {given}\nOutput: {output}" if rng.random() < 0.8 else f"Example {number}\nOutput: {output}"


def _reason(rng: random.Random) -> FinishReason:
    return "length" if rng.random() < 0.2 else "stop"


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


class InstructingConfig(EngineConfig):
    """`model` names the tokenizer that counts tokens."""

    kind: Literal["instructing"] = "instructing"
    across_callers: bool = False

    @property
    def batches_across_callers(self) -> bool:
        return self.across_callers

    def build(self) -> "InstructingEngine":
        return InstructingEngine(Tokenizer.load(self.folder()))


class InstructingEngine:
    context_tokens = 1 << 20

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.usage, self._tokenizer = Usage(), tokenizer

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        for request in requests:
            text, reason = respond(plain(request.prompt), request.seed)
            count = self.count_tokens([text])[0]
            self.usage.output_tokens += count
            yield Completion(request.request_id, text, tuple(range(count)), reason, 7)

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        digests = [hashlib.sha256(f"{pair.context}|{pair.target}".encode()).digest() for pair in pairs]
        return [np.array([-digest[0] / 16], np.float32) for digest in digests]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts] if self._tokenizer is None else self._tokenizer.count(texts)


def plain(prompt: Any) -> str:
    """A prompt's text: of a conversation, that of its turns."""
    return prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)
