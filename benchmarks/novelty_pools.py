"""The two pools of `novelty.py`: one generated, one of sentences from the documentation on this machine."""

import gzip
import re
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from limbeck.corpus.packages import read_packages

_VOCABULARY = 30_000
_COPIES = 0.45  # the share of texts that are changed copies of an earlier one
_MOST_CHANGED = 0.6  # maximum share of a copy's words; drawn uniformly for each copy
_SENTENCE_WORDS = range(4, 61)


def made(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 80 Zipf words, 16 on average; a copy's words are replaced, dropped and inserted (2 : 1 : 1)."""
    draw = np.random.default_rng(seed)
    odds = np.cumsum(1 / (np.arange(_VOCABULARY) + 3.7))  # Zipf-Mandelbrot
    names = np.array([f"w{word}" for word in range(_VOCABULARY)], object)

    def some(words: int) -> np.ndarray:
        return np.searchsorted(odds, draw.random(words) * odds[-1])

    texts: list[np.ndarray] = []
    for _ in range(count):
        if texts and draw.random() < _COPIES:
            copy = texts[draw.integers(len(texts))]
            changed = draw.uniform(0, _MOST_CHANGED)
            fates = draw.random(len(copy))
            words = np.where(fates < changed / 2, some(len(copy)), copy)[(fates < changed / 2) | (fates >= changed * 3 / 4)]
            places = np.flatnonzero(draw.random(len(words)) < changed / 4)
            words = np.insert(words, places, some(len(places)))
            texts.append(words if len(words) else some(1))
        else:
            texts.append(some(int(np.clip(3 + draw.negative_binomial(4, 4 / 17), 3, 80))))
    return [" ".join(names[text]) for text in texts]


def documentation(count: int, folder: str) -> tuple[list[str], str]:
    """`count` distinct sentences, drawn uniformly from at least three times as many, and their sources."""
    found: dict[str, None] = {}
    taken: list[str] = []
    libraries = sysconfig.get_paths()["stdlib"]
    for name, texts in (
        ("the installed packages' descriptions", (row.text for row in read_packages())),
        (folder, _files(Path(folder), ())),
        ("Python's docstrings", _docstrings(Path(libraries))),
    ):
        before = len(found)
        for text in texts:
            found.update(dict.fromkeys(_sentences(text)))
            if len(found) >= 3 * count:
                break
        if len(found) > before:
            taken.append(f"{len(found) - before:,} distinct sentences of {name}")
        if len(found) >= 3 * count:
            break
    sentences = sorted(found, key=lambda text: sha256(text.encode("utf-8", "replace")).digest())
    return sentences[:count], f"{min(count, len(found)):,} drawn from " + ", ".join(taken)


def _sentences(text: str) -> Iterator[str]:
    """The sentences of 4 to 60 words."""
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
            if len(sentence.split()) in _SENTENCE_WORDS:
                yield sentence


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """The text files at any depth, gzipped or not, in a pseudorandom order that depends only on their names."""
    for file in sorted(folder.rglob("*"), key=lambda file: sha256(str(file).encode("utf-8", "replace")).digest()):
        if file.is_file() and (not suffixes or file.suffix in suffixes):
            try:
                content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            except (OSError, EOFError):
                continue
            if b"\0" not in content[:4096]:
                yield content.decode("utf-8", "replace")


def _docstrings(folder: Path) -> Iterator[str]:
    for source in _files(folder, (".py",)):
        yield from re.findall(r'"""(.*?)"""', source, re.DOTALL)
