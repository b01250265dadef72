"""The bytes that each token adds to a text."""

import json
import re

from transformers import PreTrainedTokenizerFast

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Pieces:
    """Token → bytes, computed when first asked for; special tokens, which texts do not show, have none."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Read how the tokenizer writes bytes."""
        self._tokenizer = tokenizer
        self._byte_level = '"ByteLevel"' in json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])
        added = tokenizer.added_tokens_decoder
        hidden = {token for token, entry in added.items() if entry.special}.union(tokenizer.all_special_ids)
        self._known: dict[int, bytes] = {token: entry.content.encode() for token, entry in added.items()}
        self._known |= dict.fromkeys(hidden, b"")
        self._anchor: list[int] = list(tokenizer(".", add_special_tokens=False)["input_ids"])

    def __call__(self, token: int) -> bytes:
        """The bytes of one token after others; none if the model's vocabulary is larger than the tokenizer's."""
        if token not in self._known:
            name = self._tokenizer.convert_ids_to_tokens(token)
            self._known[token] = b"" if name is None else self._bytes(token, name)
        return self._known[token]

    def _bytes(self, token: int, name: str) -> bytes:
        if self._byte_level and all(character in _BYTES for character in name):
            return bytes(_BYTES[character] for character in name)
        if found := _BYTE.fullmatch(name):
            return bytes([int(found[1], 16)])
        before: str = self._tokenizer.decode(self._anchor)
        after: str = self._tokenizer.decode([*self._anchor, token])
        return after[len(before) :].encode()


def _byte_characters() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes: printable ones stand for themselves, the rest for 256 + n."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_characters()
