"""What a server does not take: servers call themselves OpenAI-compatible and differ in the parameters they know."""

from collections.abc import Mapping
from typing import Any

from limbeck.cluster.engines.endpoint.answers import NOT_TAKEN
from limbeck.corpus.errors import LimbeckError

Payload = Mapping[str, Any]

MEANS_NOTHING = {"top_k": 0, "top_p": 1.0}
"""Values that restrict nothing: a server that does not know the parameter does as much."""


class Dialect:
    """The parameters that a server has refused, and what they are left out for or called instead."""

    def __init__(self) -> None:
        """A server is taken to know everything until it says otherwise."""
        self._dropped: set[str] = set()
        self._renamed: dict[str, str] = {}

    def shape(self, payload: Payload) -> dict[str, Any]:
        """The body to send for a payload."""
        return {self._renamed.get(name, name): value for name, value in payload.items() if name not in self._dropped}

    def learn(self, sent: Payload, payload: Payload, words: str) -> bool:
        """Take a 400's words for the body `sent` of a `payload`; whether it is worth sending again, shaped anew.

        Raises LimbeckError where the refused parameter matters to what is sampled.
        """
        if self.shape(payload) != sent:
            return True  # another answer has taught us since
        if not NOT_TAKEN.search(words):
            return False
        if "max_tokens" in sent and "max_tokens" in words and "max_completion_tokens" in words:
            self._renamed["max_tokens"] = "max_completion_tokens"
            return True
        for name in ("top_k", "seed", "stop", "top_p", "temperature"):
            if name in sent and name in words:
                if name not in ("seed", "stop") and sent[name] != MEANS_NOTHING.get(name):
                    raise LimbeckError(
                        f"the server does not take {name} {sent[name]}: {words}; "
                        f"set the generator's {name} to {MEANS_NOTHING.get(name, 1.0)}"
                    )
                self._dropped.add(name)  # seeds: other samples, as independent; stop strings are cut off here as well
                return True
        return False
