"""How each step of `self_instruct` samples; every default is a constant of the paper's released code, unless it says so.

Self-Instruct: Wang et al., 2023, arXiv 2212.10560; constants from github.com/yizhongw/self-instruct, commit 10dd06e.
"""

from typing import Literal

from pydantic import Field

from limbeck.cluster.engines.protocol import Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS, Config
from limbeck.generators.decoding import Decoding


class InstructionsStep(Decoding):
    """Step 1: new instructions."""

    max_new_tokens: int = Field(1024, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.5, gt=0, le=1)
    presence_penalty: float = Field(2.0, ge=-2, le=2, description="0 for a server that does not know it")
    stop: tuple[str, ...] = Field(("\n\n", "\n16", "16.", "16 ."), strict=False)


class ClassificationStep(Config):
    """Step 2: whether a task is classification.

    `logprobs` compares log p(task) after a list of classification tasks with that after a list of other tasks, our own form;
    `text` is the paper's: the word Yes or No is generated, greedily, with at most 3 tokens.
    """

    by: Literal["logprobs", "text"] = "logprobs"
    threshold: float = Field(3.5, description="logprobs: classification if the difference is above this, in nats")
    max_new_tokens: int = Field(3, ge=1, le=MOST_NEW_TOKENS, description="text: the limit of the answer")
    stop: tuple[str, ...] = Field(("\n", "Task"), strict=False, description="text: where the answer ends")

    @property
    def sampling(self) -> Sampling:
        """The settings of the text form: greedy (the paper's top_p of 0 changes nothing then)."""
        return Sampling(self.max_new_tokens, temperature=0.0, stop=self.stop)


class InstancesStep(Decoding):
    """Step 3: instances of a task."""

    max_new_tokens: int = Field(350, ge=1, le=MOST_NEW_TOKENS, description="for tasks that are not classification")
    classification_tokens: int = Field(300, ge=1, le=MOST_NEW_TOKENS, description="in its place for classification")
    presence_penalty: float = Field(1.5, ge=-2, le=2, description="0 for a server that does not know it")
    stop: tuple[str, ...] = Field(("Example 6", "Task:"), strict=False)

    def sampling_of(self, classification: bool) -> Sampling:
        """The settings for a task."""
        return (
            self.model_copy(update={"max_new_tokens": self.classification_tokens}).sampling if classification else self.sampling
        )


class AnswersStep(Decoding):
    """How evaluation samples answers; these settings are our own."""

    max_new_tokens: int = Field(128, ge=1, le=MOST_NEW_TOKENS)
