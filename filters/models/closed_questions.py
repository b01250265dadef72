"""Answers of a language model to questions with a few allowed answers: exact by log-probabilities, or by sampling."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.protocol import Engine, Message, Pair, Request, Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS, MOST_SAMPLES, Config
from limbeck.corpus.seeds import derive_seed

Floats = npt.NDArray[np.float64]


class SamplingConfig(Config):
    """How answers are sampled. With `style` chat the prompt is a user turn, with plain it is text to continue."""

    samples: int = Field(8, ge=1, le=MOST_SAMPLES)
    temperature: float = Field(1.0, gt=0)
    style: Literal["chat", "plain"] = "chat"
    max_new_tokens: int = Field(8, ge=1, le=MOST_NEW_TOKENS)


@dataclass(frozen=True)
class Answers:
    """A model's answers to some prompts.

    `shares` [prompts, answers]: probability of each allowed answer, normalised over them; NaN if there is no answer. `answered`
    [prompts]: total probability of the allowed answers among everything the model could say, 0 to 1.
    """

    shares: Floats
    answered: Floats


@dataclass(frozen=True)
class Asker:
    """Asks an engine closed questions: exactly, or with `sampling` by samples, whose seeds derive from `purpose`."""

    engine: Engine
    sampling: SamplingConfig | None
    purpose: str

    def ask(self, questions: Sequence[tuple[str, int, int]], allowed: Sequence[str]) -> Answers:
        """Answer questions of (prompt, seed of the candidate, number of the question about it), all in one call."""
        prompts = [prompt for prompt, _, _ in questions]
        if self.sampling is None:
            return exact(self.engine, prompts, allowed)
        seeds = [derive_seed(self.purpose, seed, number) for _, seed, number in questions]
        return sampled(self.engine, prompts, seeds, allowed, self.sampling)


def exact(engine: Engine, prompts: Sequence[str], allowed: Sequence[str]) -> Answers:
    """Return the probability of each allowed answer as the continuation of each prompt, normalised over the allowed answers.

    No answer may be a prefix of another. NaN if a prompt does not fit the engine's context. Cost: one forward pass over each
    distinct prompt and the tokens of the answers.
    """
    pairs = [Pair(prompt, f" {answer}") for prompt in prompts for answer in allowed]
    distinct = list(dict.fromkeys(pairs))
    arrays = engine.logprobs(distinct) if distinct else []
    sums = {pair: float(array.sum(dtype=np.float64)) for pair, array in zip(distinct, arrays, strict=True)}
    logprobs = np.array([sums[pair] for pair in pairs], np.float64).reshape(len(prompts), len(allowed))
    with np.errstate(invalid="ignore"):  # NaN, or no answer has any probability
        normalisers = np.logaddexp.reduce(logprobs, axis=1)
        return Answers(np.exp(logprobs - normalisers[:, None]), np.minimum(np.exp(normalisers), 1.0))


def sampled(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], allowed: Sequence[str], config: SamplingConfig
) -> Answers:
    """Return the frequency of each allowed answer among the samples for each prompt; unparsable samples are not `answered`.

    Each sample has its own seed, derived from the prompt's seed and its number. Cost: `samples` completions per prompt.
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
    """The form of a valid completion: one of the answers, preceded by at most a label ("Grade: 4", "**4/5**", "B.").

    Text may follow on another line or after a full stop; "4.5", "45" and "A better one" are not answers.
    """
    answers = "|".join(map(re.escape, allowed))
    label = r"(?i:grade|score|rating|(?:better )?(?:answer|response))\W*(?i:is\b)?"
    return re.compile(rf"\W*(?:{label}\W*)?({answers})(?: ?(?:/|out of) ?\d+)?(?: *$| *[\n,;:()*\"'\]]| *\.(?!\d))")
