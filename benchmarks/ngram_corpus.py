"""A text corpus for the n-gram benchmarks: the prose of named Debian documentation packages, or of a folder.

Markup is removed, exact duplicates are dropped, and one document in 64 (by its hash) is held out:

    python -m benchmarks.ngram_corpus OUT [--megabytes 350] [--folder FOLDER]

writes OUT/train/NAME.jsonl ({"text": ..., "source": ...}) and OUT/held_out.jsonl, and prints a summary. Packages are fetched
with `apt-get download` and read without installing or unpacking them.
"""

import argparse
import gzip
import hashlib
import html
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PACKAGES = (
    "debian-handbook",
    "dict-gcide",
    "wordnet-base",
    "perl-doc",
    "python3.11-doc",
    "linux-doc-6.1",
    "postgresql-doc-15",
    "python-django-doc",
    "openjdk-17-doc",
    "installation-guide-amd64",
    "gimp-help-en",
    "manpages-dev",
    "libreoffice-help-en-us",
    "python-sympy-doc",
    "python-scipy-doc",
    "erlang-doc",
    "sagemath-doc",
    "cppreference-doc-en-html",
    "libboost1.81-doc",
    "qtbase5-doc-html",
    "python-pandas-doc",
)
_HELD_OUT_IN = 64
_LEAST_CHARACTERS = 200
_MOST_CHARACTERS = 1 << 20  # a dictionary is split into documents of this size
_MARKUP = (".html", ".htm", ".xhtml")
_TEXT = (".txt", ".rst", ".md", ".dict.dz", ".pod", ".tex")
_SKIPPED = re.compile(r"/(_sources|_static|_modules)/|searchindex|/copyright$|changelog")
_HIDDEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_BLOCK = re.compile(r"</?(?:p|div|h\d|li|ul|ol|tr|table|pre|br|dd|dt|dl|section)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")
_ROFF = re.compile(r"^\.\\\".*$|^\.[A-Za-z]+ ?|^'.*$|\\f[A-Z]|\\[&|^]|\\-", re.MULTILINE)
_SPACES = re.compile(r"[ \t\r\f\v]+")
_LINES = re.compile(r" ?\n\s*\n\s*")


def main() -> None:
    """Make the corpus and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, help="use the .html, .txt, .rst, .md and manual pages in it instead of packages")
    parser.add_argument("--megabytes", type=int, default=350, help="stop after this much text (0.5 GB are available)")
    parser.add_argument("--cache", type=Path, help="where packages are stored (OUT/packages)")
    arguments = parser.parse_args()
    cache = arguments.cache or arguments.out / "packages"
    print(json.dumps(make_corpus(arguments.out, arguments.folder, arguments.megabytes * 1_000_000, cache), indent=1))


def make_corpus(out: Path, folder: Path | None, most_bytes: int, cache: Path) -> dict[str, object]:
    """Write the corpus unless it exists, and return its figures."""
    record = out / "corpus.json"
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    (out / "train").mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    sizes: dict[str, int] = {}
    held_out = documents = duplicates = 0
    with open(out / "held_out.jsonl", "w", encoding="utf-8") as held:
        for name, texts in _sources(folder, cache):
            with open(out / "train" / f"{name}.jsonl", "w", encoding="utf-8") as train:
                for source, text in texts:
                    digest = hashlib.sha256(text.encode()).digest()
                    if digest in seen:
                        duplicates += 1
                        continue
                    seen.add(digest)
                    line = json.dumps({"text": text, "source": source}, ensure_ascii=False) + "\n"
                    if digest[0] * 256 + digest[1] < 65536 // _HELD_OUT_IN:
                        held.write(line)
                        held_out += 1
                        continue
                    train.write(line)
                    documents += 1
                    sizes[name] = sizes.get(name, 0) + len(text.encode())
                    if sum(sizes.values()) >= most_bytes:
                        break
            if sum(sizes.values()) >= most_bytes:
                break
    figures: dict[str, object] = {
        "text_bytes": sum(sizes.values()),
        "documents": documents,
        "held_out_documents": held_out,
        "duplicates_dropped": duplicates,
        "text_bytes_by_source": sizes,
    }
    record.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def _sources(folder: Path | None, cache: Path) -> Iterator[tuple[str, Iterator[tuple[str, str]]]]:
    if folder is not None:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        yield folder.name, _texts((str(path.relative_to(folder)), path.read_bytes()) for path in files if _wanted(str(path)))
        return
    cache.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        yield name, _texts(_members(_fetched(name, cache)))


def _fetched(name: str, cache: Path) -> Path:
    if not any(cache.glob(f"{name}_*.deb")):
        subprocess.run(["apt-get", "download", "-qq", name], cwd=cache, check=True)
    return next(cache.glob(f"{name}_*.deb"))


def _members(package: Path) -> Iterator[tuple[str, bytes]]:
    """The text files of a package, in the package's order."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacker,
        tarfile.open(fileobj=io.BufferedReader(unpacker.stdout), mode="r|") as archive,  # type: ignore[type-var, arg-type]
    ):
        for member in archive:
            if member.isfile() and _wanted(member.name):
                opened = archive.extractfile(member)
                assert opened is not None
                yield member.name, opened.read()


def _wanted(name: str) -> bool:
    plain = name.lower().removesuffix(".gz")
    is_manual = re.search(r"/man/man\d/", name) is not None
    is_lexicon = re.search(r"/wordnet/data\.", name) is not None
    return (plain.endswith((*_MARKUP, *_TEXT)) or is_manual or is_lexicon) and _SKIPPED.search(name) is None


def _texts(files: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    for name, content in files:
        if content[:2] == b"\x1f\x8b":
            with suppress(OSError, EOFError):
                content = gzip.decompress(content)
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        plain = _plain(text, name.lower().removesuffix(".gz"))
        pieces = [plain[at : at + _MOST_CHARACTERS] for at in range(0, len(plain), _MOST_CHARACTERS)]
        for number, piece in enumerate(pieces):
            if len(piece) >= _LEAST_CHARACTERS:
                yield (name if len(pieces) == 1 else f"{name}#{number}"), piece


def _plain(text: str, name: str) -> str:
    if name.endswith(_MARKUP):
        text = _HIDDEN.sub(" ", text)
        text = html.unescape(_TAG.sub("", _BLOCK.sub("\n", text)))
    elif "/man/man" in name:
        text = _ROFF.sub("", text)
    return _LINES.sub("\n\n", _SPACES.sub(" ", text.replace("\x00", " "))).strip()


if __name__ == "__main__":
    main()
