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
from hypothesis import given, settings
from hypothesis import strategies as st

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


LIBRARIES = ["libdeflate", "isal", "zlib"]


def leave_only(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as if no faster library than this one were installed."""
    if library != "libdeflate":
        monkeypatch.setattr(gzip_stream, "_libdeflate", None)
    if library == "zlib":
        monkeypatch.setattr(gzip_stream, "_deflate", zlib)


@pytest.fixture(params=LIBRARIES)
def deflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with each library."""
    leave_only(request.param, monkeypatch)


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
    parts = [gzip.compress(part) for part in (b"", CONTENT[:100], b"", CONTENT[100:])]
    assert gunzip_head("a", b"".join(parts), 540) == CONTENT[:540]


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


def outcome(library: str, packed: bytes, size: int) -> bytes | str:
    """Return the content, or what the error says up to the library's own words."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_only(library, monkeypatch)
        try:
            return gunzip("scan.nii.gz", packed, size)
        except IngestError as error:
            return str(error).partition(" (")[0]


def member(content: bytes, level: int, flags: int, wrong: bool) -> bytes:
    """Return a gzip member whose header has the optional fields of `flags`, or a wrong checksum."""
    body = zlib.compressobj(level, zlib.DEFLATED, -15)
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    head += b"\x03\x00abc" if flags & 4 else b""
    head += b"name\0" if flags & 8 else b""
    head += b"comment\0" if flags & 16 else b""
    if flags & 2:
        head += ((zlib.crc32(head) & 0xFFFF) ^ wrong).to_bytes(2, "little")
    tail = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return head + body.compress(content) + body.flush() + tail


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, int]:
    """Return a gzip file in one of many states, and the length that a header could declare."""
    seed = draw(st.integers(0, 2**32 - 1))
    values = draw(st.sampled_from([1, 3, 60, 256]))
    size = draw(st.integers(2, 3000))
    content = np.random.default_rng(seed).integers(0, values, size, np.uint8).tobytes()
    # A length that the content holds, too, looks like the end of a member.
    at = draw(st.integers(0, size))
    content = content[:at] + draw(st.sampled_from([b"", len(content).to_bytes(4, "little")]))
    content += bytes(max(0, size - len(content)))
    size = len(content)
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=3)))
    level = draw(st.integers(0, 9))
    flags = draw(st.lists(st.sampled_from([0, 1, 2, 4, 8, 16, 30]), min_size=4, max_size=4))
    wrong = draw(st.booleans())
    packed = b"".join(
        member(content[a:b], level, flag, wrong)
        for a, b, flag in zip([0, *cuts], [*cuts, size], flags, strict=False)
    )
    # Twice the same: the last member has the length, and the checksum, of the first one.
    packed *= draw(st.sampled_from([1, 1, 1, 2]))
    packed += draw(st.sampled_from([b"", b"", bytes(7), b"\x1f\x8b", packed[-4:], packed[-8:]]))
    return packed, draw(st.sampled_from([size, size, size, size + 1, size - 1]))


@settings(max_examples=300, deadline=None)
@given(files(), st.data())
def test_every_library_has_the_same_outcome(file: tuple[bytes, int], data: st.DataObject) -> None:
    packed, size = file
    damage = data.draw(st.sampled_from(["none", "none", "cut", "flip"]))
    at = data.draw(st.integers(0, len(packed) - 1))
    if damage == "cut":
        packed = packed[:at]
    if damage == "flip":
        flipped = bytes([packed[at] ^ (1 << data.draw(st.integers(0, 7)))])
        packed = packed[:at] + flipped + packed[at + 1 :]
    expected = outcome("isal", packed, size)
    assert outcome("libdeflate", packed, size) == expected
    # A damaged header is not what these two agree on: zlib refuses unknown flags.
    if damage != "flip":
        assert outcome("zlib", packed, size) == expected


def test_a_whole_member_is_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deflate")
    monkeypatch.setattr(gzip_stream, "_decompressor", None)
    assert gunzip("a", gzip.compress(CONTENT), len(CONTENT)) == CONTENT


def test_a_large_member_is_decoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "AT_ONCE_BYTES", len(CONTENT) - 1)
    assert gzip_stream._at_once(gzip.compress(CONTENT), len(CONTENT)) is None
    assert gunzip("a", gzip.compress(CONTENT), len(CONTENT)) == CONTENT


@given(data=st.data())
@settings(max_examples=300)
def test_only_at_the_end(data: st.DataObject) -> None:
    """The same as a search byte by byte, in files where the word is often elsewhere too."""
    word = data.draw(st.sampled_from([0, 0x01010101, 0x02010201, 0x04030201]))
    pieces = st.sampled_from([b"\0", b"\1", b"\2", b"\1\2\3", word.to_bytes(4, "little")])
    content = b"".join(data.draw(st.lists(pieces, max_size=12)))
    found = content.find(word.to_bytes(4, "little"))
    assert gzip_stream._only_ends_with(content, word) == (0 <= found == len(content) - 4)
