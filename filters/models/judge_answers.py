"""How a language model answers a question whose answers are few and known: exactly by log-probabilities, or by sampling."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.protocol import Engine, Message, Pair, Request, Sampling
from limbeck.corpus.config import Config
from limbeck.corpus.seeds import derive_seed

Floats = npt.NDArray[np.float64]


class SamplingConfig(Config):
    """How answers are sampled. With `style` chat the prompt is the user's turn, with plain it is text that the model goes on."""

    samples: int = Field(8, ge=1)
    temperature: float = Field(1.0, gt=0)
    style: Literal["chat", "plain"] = "chat"
    max_new_tokens: int = Field(8, ge=1)


@dataclass(frozen=True)
class Answers:
    """What a model answers to some prompts.

    `shares` [prompts, answers]: how likely each allowed answer is among them; not a number where there is no answer. `answered`
    [prompts]: the part of all that the model would say that is an allowed answer, 0 to 1.
    """

    shares: Floats
    answered: Floats


def exact(engine: Engine, prompts: Sequence[str], allowed: Sequence[str]) -> Answers:
    """Return the probability of each allowed answer as the next words of each prompt, normalised over the allowed ones.

    No answer may begin with another. Not a number where a prompt does not fit the engine's context. Cost: one forward pass over
    each distinct prompt and the answers' own tokens.
    """
    pairs = [Pair(prompt, f" {answer}") for prompt in prompts for answer in allowed]
    distinct = list(dict.fromkeys(pairs))
    arrays = engine.logprobs(distinct) if distinct else []
    sums = {pair: float(array.sum(dtype=np.float64)) for pair, array in zip(distinct, arrays, strict=True)}
    logprobs = np.array([sums[pair] for pair in pairs], np.float64).reshape(len(prompts), len(allowed))
    with np.errstate(invalid="ignore"):  # NaN, or no answer is possible at all
        normalisers = np.logaddexp.reduce(logprobs, axis=1)
        return Answers(np.exp(logprobs - normalisers[:, None]), np.minimum(np.exp(normalisers), 1.0))


def sampled(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], allowed: Sequence[str], config: SamplingConfig
) -> Answers:
    """Return how often each allowed answer was drawn for each prompt; what cannot be read as one is not `answered`.

    Each draw has a seed of its own, from the prompt's seed and its number. Cost: `samples` completions a prompt.
    """
    sampling = Sampling(config.max_new_tokens, config.temperature)
    requests = [
        Request(
            f"{place}-{draw}", (Message("user", prompt),) if config.style == "chat" else prompt, sampling, derive_seed(seed, draw)
        )
        for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        for draw in range(config.samples)
    ]
    counts = np.zeros((len(prompts), len(allowed)))
    pattern = reading(allowed)
    for completion in engine.complete(requests) if requests else ():
        answer = pattern.match(completion.text) if completion.finish_reason != "error" else None
        if answer is not None:
            counts[int(completion.request_id.partition("-")[0]), allowed.index(answer[1])] += 1
    drawn = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return Answers(counts / drawn[:, None], drawn / config.samples)


def reading(allowed: Sequence[str]) -> re.Pattern[str]:
    """What a completion must look like: one of the answers and nothing before it but a label ("Grade: 4", "**4/5**", "B.").

    Text may follow on another line or after a full stop; "4.5", "45" and "A better one" are not answers.
    """
    answers = "|".join(map(re.escape, allowed))
    label = r"(?i:grade|score|rating|(?:better )?answer)\W*(?i:is\b)?"
    return re.compile(rf"\W*(?:{label}\W*)?({answers})(?: ?(?:/|out of) ?\d+)?(?: *$| *[\n,;:()*\"'\]]| *\.(?!\d))")
