"""How one step of a generator samples: the keys of its section in a recipe."""

from dataclasses import replace

from pydantic import Field

from limbeck.cluster.engines.protocol import Contrast, Message, Sampling, UserTurn
from limbeck.corpus.config import MOST_NEW_TOKENS, Config


class Decoding(Config):
    """How one step samples."""

    max_new_tokens: int = Field(ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="0 for a server that does not know it")
    stop: tuple[str, ...] = Field((), strict=False)

    @property
    def sampling(self) -> Sampling:
        """The settings for an engine."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, stop=self.stop, presence_penalty=self.presence_penalty)


class PmiDecoding(Config):
    """PMI decoding (`protocol.Contrast`): what is likely without the document, too, becomes less likely if it is unsure."""

    weight: float = Field(ge=0, le=1, allow_inf_nan=False, description="of log p(token | no document); 0: plain sampling")
    min_entropy: float = Field(
        3.5987, ge=0, allow_inf_nan=False, description="of the next token, nats; below it the token is drawn as without contrast"
    )

    def on(self, sampling: Sampling, without: tuple[Message, ...] | str | UserTurn) -> Sampling:
        """The sampling with this contrast; `without` is the prompt without the document."""
        return replace(sampling, contrast=Contrast(self.weight, self.min_entropy, without))
