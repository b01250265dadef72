"""How one step of a generator samples: the keys of its section in a recipe."""

from pydantic import Field

from limbeck.cluster.engines.protocol import Sampling
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
