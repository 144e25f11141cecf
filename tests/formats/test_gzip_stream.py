"""Gunzip with a bound."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from radiobject.exceptions import IngestError
from radiobject.formats import gzip_stream
from radiobject.formats.guards import Limits
from radiobject.formats.gzip_stream import TRAILING_SLACK_BYTES, gunzip_blocks, gunzip_head

CONTENT = np.random.default_rng(0).integers(0, 50, 700_000, dtype=np.uint8).tobytes()


def gunzip(name: str, compressed: bytes, size: int) -> bytes:
    """Decode in blocks of different sizes, an empty one and one of a byte among them."""
    sizes = [0, 1, size // 2, size - 1 - size // 2]
    blocks = [block.tobytes() for block in gunzip_blocks(name, compressed, sizes)]
    assert [len(block) for block in blocks] == sizes
    return b"".join(blocks)


@pytest.fixture(params=["isal", "zlib"])
def deflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with either library."""
    if request.param == "zlib":
        monkeypatch.setattr(gzip_stream, "_deflate", zlib)


@pytest.mark.usefixtures("deflate")
def test_one_member_and_many() -> None:
    assert gunzip("a", gzip.compress(CONTENT), len(CONTENT)) == CONTENT
    members = b"".join(
        gzip.compress(CONTENT[at : at + 50_000]) for at in range(0, len(CONTENT), 50_000)
    )
    assert gunzip("a", members, len(CONTENT)) == CONTENT
    assert gunzip("a", gzip.compress(CONTENT) + bytes(512), len(CONTENT)) == CONTENT


@pytest.mark.usefixtures("deflate")
def test_empty_member_in_front() -> None:
    both = gzip.compress(b"") + gzip.compress(CONTENT)
    assert gunzip("a", both, len(CONTENT)) == CONTENT


@pytest.mark.usefixtures("deflate")
@pytest.mark.parametrize("cut", [1, 8, 9, 1000])
def test_truncation_is_seen(cut: int) -> None:
    with pytest.raises(IngestError, match="cut short"):
        gunzip("scan.nii.gz", gzip.compress(CONTENT)[:-cut], len(CONTENT))


@pytest.mark.usefixtures("deflate")
def test_a_second_member_cut_short_is_seen() -> None:
    both = gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:])[:-20]
    with pytest.raises(IngestError, match="cut short"):
        gunzip("a", both, len(CONTENT))


@pytest.mark.usefixtures("deflate")
def test_a_flipped_bit_is_seen() -> None:
    packed = bytearray(gzip.compress(CONTENT, 1))
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(IngestError, match="gzip stream"):
        gunzip("a", bytes(packed), len(CONTENT))
    packed = bytearray(gzip.compress(CONTENT))
    packed[-6] ^= 1
    with pytest.raises(IngestError, match="gzip stream"):
        gunzip("a", bytes(packed), len(CONTENT))


@pytest.mark.usefixtures("deflate")
def test_padding_is_tolerated_and_a_bomb_is_not() -> None:
    padded = gzip.compress(CONTENT + bytes(TRAILING_SLACK_BYTES))
    assert gunzip("a", padded, len(CONTENT)) == CONTENT
    with pytest.raises(IngestError, match="more than the 700,000 bytes"):
        gunzip("a", gzip.compress(CONTENT + bytes(TRAILING_SLACK_BYTES + 1)), len(CONTENT))


@pytest.mark.usefixtures("deflate")
def test_head() -> None:
    assert gunzip_head("a", gzip.compress(CONTENT), 540) == CONTENT[:540]
    assert gunzip_head("a", gzip.compress(b"ab"), 540) == b"ab"


def test_ratio_over_what_deflate_can_do() -> None:
    with pytest.raises(IngestError, match="a ratio over 1100"):
        Limits().check_gzip("a", 1000, 2_000_000)
    Limits().check_gzip("a", 1000, 1_032_000)


def test_a_bomb_takes_little_memory(tmp_path: Path) -> None:
    """300 MB of zeros behind a header that declares 60 voxels."""
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "a.nii")
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream:
        stream.write((tmp_path / "a.nii").read_bytes())
        for _ in range(300):
            stream.write(bytes(1 << 20))
    (tmp_path / "bomb.nii.gz").write_bytes(packed.getvalue())
    program = (
        "import resource, sys\n"
        "from radiobject.exceptions import IngestError\n"
        "from radiobject.formats.nifti import load_nifti\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_nifti(sys.argv[1])\n"
        "except IngestError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.nii.gz")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    message, grown_kib = out.stdout.strip().split("\n")
    assert "decompresses to more than the 472 bytes" in message
    assert int(grown_kib) < 20_000
