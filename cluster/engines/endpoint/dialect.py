"""Parameters that a server does not accept: OpenAI-compatible servers differ in the parameters they support."""

from collections.abc import Mapping
from typing import Any

from limbeck.cluster.engines.endpoint.answers import NOT_TAKEN

Payload = Mapping[str, Any]

MEANS_NOTHING = {"top_k": 0, "top_p": 1.0, "presence_penalty": 0.0}
"""Values without effect: omitting the parameter gives the same result."""


class Dialect:
    """The parameters that a server has refused; they are omitted or renamed."""

    def __init__(self) -> None:
        """Assume support for every parameter until the server refuses one."""
        self._dropped: set[str] = set()
        self._renamed: dict[str, str] = {}

    def shape(self, payload: Payload) -> dict[str, Any]:
        """The body to send for a payload."""
        return {self._renamed.get(name, name): value for name, value in payload.items() if name not in self._dropped}

    def learn(self, sent: Payload, payload: Payload, words: str) -> bool:
        """Learn from the message of a 400 to the body `sent` of a `payload`; returns whether to resend it in a new form.

        A parameter that affects sampling is never omitted; see `advice`.
        """
        if self.shape(payload) != sent:
            return True  # learned from another answer meanwhile
        if not NOT_TAKEN.search(words):
            return False
        if "max_tokens" in sent and "max_tokens" in words and "max_completion_tokens" in words:
            self._renamed["max_tokens"] = "max_completion_tokens"
            return True
        for name in ("top_k", "seed", "stop", "top_p", "temperature"):
            if name in sent and name in words and (name in ("seed", "stop") or sent[name] == MEANS_NOTHING.get(name)):
                self._dropped.add(name)  # seeds: different but still independent samples; stop strings are also cut here
                return True
        return False

    def advice(self, sent: Payload, words: str) -> str:
        """What the user can change if the server refuses every request with this message; "" if that is unknown."""
        for name in ("top_k", "top_p", "temperature", "presence_penalty"):
            if NOT_TAKEN.search(words) and name in sent and name in words and sent[name] != MEANS_NOTHING.get(name):
                neutral = MEANS_NOTHING.get(name, 1.0)
                return f"the server does not accept {name} {sent[name]}; set the generator's {name} to {neutral}"
        return ""
