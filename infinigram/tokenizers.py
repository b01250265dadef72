"""Text to token ids and back: Hugging Face tokenizers, tiktoken encodings, or bytes.

An index records its tokenizer as a small dictionary ("spec"): its kind, a name or a file in the index folder, and a SHA-256 of
its content, so that queries are never encoded by a different tokenizer.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.corpus.config import nearest
from limbeck.corpus.extras import problem
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.words import WordEncoder, word_encoder

FILE_NAME = "tokenizer.json"  # where an index keeps its Hugging Face tokenizer
_BYTES = ("bytes", "byte")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class HuggingFaceTokenizer:
    """A tokenizer.json; special tokens that a model would add are omitted."""

    backend: Any
    content: bytes
    eos: int | None
    words: WordEncoder | None = None  # a faster encoder for the same tokens, if available

    def remembering(self, most_bytes: int) -> "HuggingFaceTokenizer":
        """A copy whose word cache takes at most this much memory."""
        return replace(self, words=word_encoder(self.backend, self.content, most_bytes))

    @property
    def spec(self) -> dict[str, Any]:
        """The record for the manifest."""
        return {"kind": "huggingface", "file": FILE_NAME, "sha256": hashlib.sha256(self.content).hexdigest()}

    @property
    def vocabulary(self) -> int:
        """The largest id plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each text, uint32; by words if the tokenizer allows it, otherwise on all cores without the GIL."""
        if self.words is not None:
            return self.words.encode_batch(texts)
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self.backend.decode(list(ids), skip_special_tokens=False))


@dataclass(frozen=True)
class TiktokenTokenizer:
    """A tiktoken encoding; special tokens in the text are encoded as plain text."""

    backend: Any

    @property
    def spec(self) -> dict[str, Any]:
        """The record for the manifest; the checksum covers the ranks of all pieces."""
        pieces = b"".join(piece + b" %d\n" % rank for piece, rank in sorted(self.backend._mergeable_ranks.items()))
        return {"kind": "tiktoken", "name": self.backend.name, "sha256": hashlib.sha256(pieces).hexdigest()}

    @property
    def vocabulary(self) -> int:
        """The largest id plus one."""
        return int(self.backend.n_vocab)

    @property
    def eos(self) -> int | None:
        """The id of the end of a text."""
        return int(self.backend.eot_token)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return list(self.backend.encode_ordinary(text))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each text, uint32; with the GIL released."""
        return [np.array(self.backend.encode_ordinary(text), dtype=np.uint32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 become replacement characters."""
        return str(self.backend.decode(list(ids)))


@dataclass(frozen=True)
class ByteTokenizer:
    """Every byte of the UTF-8 text is a token; 255 never occurs in UTF-8, so the separator is safe."""

    eos: int | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """The record for the manifest."""
        return {"kind": "bytes"}

    @property
    def vocabulary(self) -> int:
        """The largest id plus one."""
        return 255

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode("utf-8"))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The bytes of each text, uint8."""
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; those that are not UTF-8 become replacement characters."""
        return bytes(ids).decode("utf-8", errors="replace")


Tokenizer = HuggingFaceTokenizer | TiktokenTokenizer | ByteTokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """Load a tokenizer: "bytes", "tiktoken:NAME", a model folder or tokenizer.json, or an id on the Hugging Face hub, OWNER/NAME.

    Raises BadIndex if it does not exist; the hub is asked for nothing but such an id.
    """
    if name in _BYTES:
        return ByteTokenizer()
    if name.startswith("tiktoken:"):
        return _tiktoken(name.removeprefix("tiktoken:"))
    path = Path(name).expanduser()
    file = path / FILE_NAME if path.is_dir() else path
    if file.is_file():
        return _huggingface(file.read_bytes(), str(file), _named_eos(file.parent))
    if path.exists() or name.startswith((".", "/", "~")) or name.endswith(".json"):
        raise BadIndex(f"{name} holds no {FILE_NAME}; save the model with its fast tokenizer, or name another tokenizer")
    if not _HUB_ID.fullmatch(name):
        raise BadIndex(_unknown(name))
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_pretrained(name)
    except Exception as error:  # the library raises bare Exceptions
        raise BadIndex(
            f"tokenizer {name!r} not found: no such folder, and the hub returned {error}; use a folder, or bytes"
        ) from error
    return _huggingface(backend.to_str().encode(), name, None)


def _unknown(name: str) -> str:
    """The message for a name that is neither a tokenizer of ours, nor a folder, nor an id of the hub."""
    known = ["bytes"]
    with contextlib.suppress(ImportError):
        import tiktoken

        known += [f"tiktoken:{encoding}" for encoding in tiktoken.list_encoding_names()]
    near = nearest(name, [*known, *(one.removeprefix("tiktoken:") for one in known)])
    near = next((one for one in known if near is not None and one.endswith(near)), None)
    hint = f"did you mean {near!r}? " if near else ""
    return (
        f"unknown tokenizer {name!r}; {hint}give bytes, tiktoken:NAME, a model folder or tokenizer.json, or an id on the "
        "Hugging Face hub with its owner (OWNER/NAME)"
    )


def open_tokenizer(spec: dict[str, Any], folder: Path) -> Tokenizer:
    """Load the tokenizer that an index in `folder` was built with; raises BadIndex if it is missing or differs."""
    kind = spec.get("kind")
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "huggingface":
        path = folder / str(spec.get("file", FILE_NAME))
        if not path.is_file():
            raise BadIndex(f"{path} (the tokenizer of this index) is missing; copy it from the model")
        loaded: Tokenizer = _huggingface(path.read_bytes(), str(path), None)
    elif kind == "tiktoken":
        loaded = _tiktoken(str(spec.get("name")))
    else:
        raise BadIndex(f"the manifest in {folder} names a tokenizer of kind {kind!r}; known: huggingface, tiktoken, bytes")
    if loaded.spec.get("sha256") != spec.get("sha256"):
        raise BadIndex(f"the tokenizer of {folder} is not the one it was built with; restore the original")
    return loaded


def _tiktoken(name: str) -> TiktokenTokenizer:
    try:
        import tiktoken
    except ImportError as error:
        raise BadIndex(str(problem([(f"the tokenizer tiktoken:{name}", "tiktoken")]))) from error
    try:
        return TiktokenTokenizer(tiktoken.get_encoding(name))
    except Exception as error:  # unknown names and download errors
        known = ", ".join(tiktoken.list_encoding_names())
        raise BadIndex(f"tiktoken cannot load the encoding {name!r} ({error}); it knows {known}") from error


def _huggingface(content: bytes, where: str, eos_text: str | None) -> HuggingFaceTokenizer:
    from limbeck.corpus.tokenizer import read_backend  # slow import

    backend = read_backend(content, where, BadIndex)
    names = [eos_text] if eos_text else ["<|endoftext|>", "</s>", "<eos>"]
    ids = (backend.token_to_id(text) for text in names)
    eos = next((number for number in ids if number is not None), None)
    return HuggingFaceTokenizer(backend, content, eos, word_encoder(backend, content))


def _named_eos(folder: Path) -> str | None:
    """The end-of-text token that the model's configuration names."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    token = config.get("eos_token") if isinstance(config, dict) else None
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
