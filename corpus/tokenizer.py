"""A light handle on a model's tokenizer: counting and cutting documents needs neither torch nor transformers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as Backend

from limbeck.corpus.errors import LimbeckError


def read_backend(content: bytes, where: str, raises: type[LimbeckError] = LimbeckError) -> Backend:
    """The tokenizer that a tokenizer.json describes, for texts of any length; raises `raises` if its content is broken."""
    try:
        backend = Backend.from_buffer(content)
    except Exception as error:  # the library raises a bare Exception
        raise raises(f"{where} is not a tokenizer ({error}); copy or download the model again") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer.json; `fingerprint` names its content (16 hex digits)."""

    folder: Path
    fingerprint: str
    backend: Backend

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Load the tokenizer of a model folder; raises LimbeckError if it is missing or broken."""
        path = folder / "tokenizer.json"
        if not path.exists():
            raise LimbeckError(f"{folder} has no tokenizer.json; save the model with its fast tokenizer")
        content = path.read_bytes()
        return cls(folder, hashlib.sha256(content).hexdigest()[:16], read_backend(content, str(path)))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of a text and each token's character range, without special tokens."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets
