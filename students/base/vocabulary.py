"""A smaller vocabulary for a BPE tokenizer: which tokens are kept, and its files with the others removed. Imports no torch.

BPE builds a token step by step, so a kept token keeps every token that it is built from, and every merge whose two parts and
whose result are kept. Merges keep their order, so a text whose tokens are all kept is encoded as before, with other numbers. The
characters or bytes from which all tokens are built are always kept, so any other text is encoded by shorter tokens, and
decodes to the same bytes as before.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_object

_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_DROPPED_IDS = ("suppress_tokens", "begin_suppress_tokens")  # lists of single ids: removed tokens are suppressed by their absence
_REFUSED_IDS = ("bad_words_ids", "force_words_ids", "forced_decoder_ids", "sequence_bias")

Counts = npt.NDArray[np.int64]
"""How often each token of a vocabulary occurs.  # [tokens]"""


def read_trimmable(folder: Path) -> dict[str, Any]:
    """The content of a model folder's tokenizer.json; raises LimbeckError if its vocabulary cannot be trimmed."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise LimbeckError(f"{folder} has no tokenizer.json; save the model with its fast tokenizer")
    content = read_object(path, "copy or download the model again")
    model = content.get("model") or {}
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown")
    if kind != "BPE":
        raise LimbeckError(
            f"the tokenizer of {folder} is of type {kind}, but only the vocabulary of a BPE tokenizer can be trimmed; "
            "remove vocabulary"
        )
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise LimbeckError(
                f"the tokenizer of {folder} marks parts of words ({key}: {model[key]!r}), so its vocabulary cannot be trimmed; "
                "remove vocabulary"
            )
    refused = [name for name in _REFUSED_IDS if _optional(folder / "generation_config.json").get(name)]
    if refused:
        raise LimbeckError(
            f"generation_config.json of {folder} has {refused[0]}, whose token ids a trimmed vocabulary would change; "
            "remove that key, or remove vocabulary"
        )
    return content


def kept_tokens(content: Mapping[str, Any], counts: Counts, keep: int | float | None, always: Iterable[int] = ()) -> list[int]:
    """The ids of the tokens that a trimmed vocabulary keeps, ascending; `content` is that of tokenizer.json.

    Kept without regard to `counts`: added tokens, `always`, and the characters or bytes from which tokens are built. Then the
    most frequent ones, each with the tokens that it is built from: all that occur (`keep` None), as many as fit into a
    vocabulary of `keep` tokens (a whole number), or the fewest that make up a share `keep` of the occurrences (a fraction).
    Raises LimbeckError if a whole number is smaller than what is always kept.
    """
    bpe = _Bpe(content)
    kept = bpe.closed({*bpe.atoms, *(token for token in always if token in bpe.texts), *_added(content)})
    if isinstance(keep, int) and len(kept) > keep:
        raise LimbeckError(
            f"vocabulary.keep is {keep}, but {len(kept)} tokens are always kept (special ones, bytes, and those of the "
            "chat template); raise it"
        )
    needed = keep * counts.sum() if isinstance(keep, float) else counts.sum()
    covered = sum(int(counts[token]) for token in kept if token < len(counts))
    for token in np.lexsort((np.arange(len(counts)), -counts)).tolist():  # the most frequent first; of equals the smallest id
        if not counts[token] or (isinstance(keep, float) and covered >= needed):
            break
        if token in kept or token not in bpe.texts:
            continue
        added = bpe.closed({token}) - kept
        if isinstance(keep, int) and len(kept) + len(added) > keep:
            continue
        kept |= added
        covered += sum(int(counts[one]) for one in added if one < len(counts))
    return sorted(kept)


class _Bpe:
    """A BPE model's tokens and merges."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        model = content["model"]
        self.vocabulary: dict[str, int] = model["vocab"]
        self.texts = {token: text for text, token in self.vocabulary.items()}
        self.texts |= {int(added["id"]): str(added["content"]) for added in content.get("added_tokens") or ()}
        self._ranks = {pair: rank for rank, pair in enumerate(map(_pair, model["merges"]))}
        self._byte_fallback = bool(model.get("byte_fallback")) and all(byte in self.vocabulary for byte in _BYTES)
        self.atoms = self._find_atoms(content)

    def _find_atoms(self, content: Mapping[str, Any]) -> set[int]:
        """The tokens without which some text could not be encoded."""
        unknown = {self.vocabulary[text] for text in [content["model"].get("unk_token")] if text in self.vocabulary}
        if (
            self._byte_fallback
        ):  # other characters are encoded as bytes, except those that stand for something else, such as a space
            marks = _characters([content.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")])
            return unknown | {self.vocabulary[text] for text in (*_BYTES, *marks) if text in self.vocabulary}
        merged = {"".join(pair) for pair in self._ranks}
        return unknown | {token for text, token in self.vocabulary.items() if text not in merged or len(text) == 1}

    def closed(self, tokens: Iterable[int]) -> set[int]:
        """The tokens, and those from which they are built."""
        found: set[int] = set()
        for token in tokens:
            found |= {token, *(self.vocabulary[text] for text in self._built_from(self.texts[token]) if text in self.vocabulary)}
        return found

    def _built_from(self, text: str) -> set[str]:
        """The tokens that occur while the text of a token is encoded; nothing if merges do not lead to it."""
        parts = [part for character in text for part in self._initial(character)]
        found = set(parts)
        while len(parts) > 1:
            ranks = [self._ranks.get(pair) for pair in zip(parts, parts[1:], strict=False)]
            known = [(rank, place) for place, rank in enumerate(ranks) if rank is not None]
            if not known:
                return set()
            _, place = min(known)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            found.add(parts[place])
        return found

    def _initial(self, character: str) -> Sequence[str]:
        if self._byte_fallback and character not in self.vocabulary:
            return [_BYTES[byte] for byte in character.encode()]
        return [character]


def trimmed_content(content: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The content of tokenizer.json with only the kept tokens, numbered in their order, and the merges among them."""
    new_ids = {old: new for new, old in enumerate(kept)}
    model = dict(content["model"])
    model["vocab"] = {text: new_ids[old] for text, old in model["vocab"].items() if old in new_ids}
    known = model["vocab"]
    model["merges"] = [
        merge for merge in model["merges"] for pair in [_pair(merge)] if all(text in known for text in (*pair, "".join(pair)))
    ]
    added = [{**token, "id": new_ids[token["id"]]} for token in content.get("added_tokens") or ()]
    trimmed = {
        **content,
        "model": model,
        "added_tokens": added,
        "post_processor": _processor(content.get("post_processor"), new_ids),
    }
    if content.get("padding"):
        trimmed["padding"] = {**content["padding"], "pad_id": new_ids[content["padding"]["pad_id"]]}
    return trimmed


def _processor(processor: Any, new_ids: Mapping[int, int]) -> Any:
    """A post-processor, at any depth of a sequence, with the new ids of the special tokens that it adds."""
    if not isinstance(processor, dict):
        return processor
    changed = dict(processor)
    if "special_tokens" in changed:
        changed["special_tokens"] = {
            name: {**token, "ids": [new_ids[old] for old in token["ids"]]} for name, token in changed["special_tokens"].items()
        }
    for key in ("sep", "cls"):
        if key in changed:
            text, old = changed[key]
            changed[key] = [text, new_ids[old]]
    if "processors" in changed:
        changed["processors"] = [_processor(inner, new_ids) for inner in changed["processors"]]
    return changed


def write_text_files(source: Path, folder: Path, content: Mapping[str, Any], kept: Sequence[int]) -> None:
    """Write the text files of a model folder for a trimmed vocabulary; `content` is that of the original tokenizer.json.

    Files of slow tokenizers (vocab.json, merges.txt, *.model) are left out: they would contradict tokenizer.json.
    """
    new_ids = {old: new for new, old in enumerate(kept)}
    _write(folder / "tokenizer.json", trimmed_content(content, kept))
    settings = _optional(source / "tokenizer_config.json")
    if isinstance(decoders := settings.get("added_tokens_decoder"), dict):
        settings["added_tokens_decoder"] = {
            str(new_ids[int(old)]): token for old, token in decoders.items() if int(old) in new_ids
        }
    added = {text: new_ids[old] for text, old in _optional(source / "added_tokens.json").items() if old in new_ids}
    generation = renumbered(_optional(source / "generation_config.json"), new_ids)
    for name in _DROPPED_IDS:
        if isinstance(generation.get(name), list):
            generation[name] = [new_ids[old] for old in generation[name] if old in new_ids]
    written = {"tokenizer_config.json": settings, "added_tokens.json": added, "generation_config.json": generation}
    for name, settings in written.items():
        if (source / name).exists():
            _write(folder / name, settings)
    for pattern in ("special_tokens_map.json", "chat_template*"):
        for file in source.glob(pattern):
            (folder / file.name).write_bytes(file.read_bytes())


def special_ids(folder: Path) -> set[int]:
    """The ids that the settings of a model folder name, such as `eos_token_id`."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        _each_id(_optional(folder / name), found.add)
    return found


def renumbered(settings: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Settings in which every `..._token_id`, at any depth, has its new number; null if the token has none."""
    changed: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            changed[key] = renumbered(value, new_ids)
        elif key.endswith("_token_id") and isinstance(value, list):
            changed[key] = [new_ids[old] for old in value if old in new_ids] or None
        elif key.endswith("_token_id") and value is not None:
            changed[key] = new_ids.get(value)
        else:
            changed[key] = value
    return changed


def _each_id(settings: Mapping[str, Any], visit: Any) -> None:
    for key, value in settings.items():
        if isinstance(value, dict):
            _each_id(value, visit)
        elif key.endswith("_token_id"):
            for token in value if isinstance(value, list) else [] if value is None else [value]:
                visit(int(token))


def _added(content: Mapping[str, Any]) -> set[int]:
    return {int(token["id"]) for token in content.get("added_tokens") or ()}


def _pair(merge: Any) -> tuple[str, str]:
    """A merge, which older files write as one text with a space between its parts."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return str(first), str(second)


def _characters(value: Any) -> set[str]:
    """Every text of one character in a section of tokenizer.json."""
    if isinstance(value, dict):
        return _characters(list(value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_characters, value))
    return {value} if isinstance(value, str) and len(value) == 1 else set()


def _optional(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
