"""Chunks of RIFF files and lengths of ID3 tags, byte by byte."""

import io

import pytest

from demixd.audio.containers import riff
from demixd.audio.containers.edges import behind_tags, id3_length


def named(data: bytes, order: riff.Order = "little") -> list[tuple[bytes, int, int]]:
    return [(chunk.name, chunk.at, chunk.size) for chunk in riff.walk(io.BytesIO(data), order)]


def test_chunks_follow_each_other() -> None:
    """Each chunk begins behind the one before, and behind a byte of padding where that one is odd."""
    data = b"RIFF\0\0\0\0WAVE" + riff.chunk(b"fmt ", bytes(16)) + riff.chunk(b"odd ", b"abc") + riff.chunk(b"data", b"")
    assert named(data) == [(b"fmt ", 20, 16), (b"odd ", 44, 3), (b"data", 56, 0)]


def test_chunks_of_aiff_have_the_other_byte_order() -> None:
    """Sizes of a FORM are big-endian."""
    data = b"FORM\0\0\0\0AIFF" + b"COMM\0\0\0\x02ab" + b"SSND\0\0\0\x09"
    assert named(data, "big") == [(b"COMM", 20, 2), (b"SSND", 30, 9)]


def test_audio_of_an_rf64_is_as_long_as_its_ds64_says() -> None:
    """The size of `data` is all ones there; the chunks behind it are found all the same, and without a ds64 none are."""
    ds64 = riff.chunk(b"ds64", bytes(8) + (6).to_bytes(8, "little") + bytes(8))
    audio = b"data" + b"\xff" * 4 + bytes(6)
    found = named(b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + audio + riff.chunk(b"id3 ", b"xy"))
    assert [name for name, _, _ in found] == [b"ds64", b"data", b"id3 "]
    assert [name for name, _, _ in named(b"RIFF\0\0\0\0WAVE" + audio + riff.chunk(b"id3 ", b"xy"))] == [b"data"]


def test_chunks_end_with_the_file_and_with_their_number() -> None:
    """A header that the file holds by half is none, and more chunks than any song has are not walked."""
    assert named(b"RIFF\0\0\0\0WAVEfmt \0\0\0") == []
    assert len(named(b"RIFF\0\0\0\0WAVE" + riff.chunk(b"xxxx", b"") * (riff.MOST_CHUNKS + 5))) == riff.MOST_CHUNKS


@pytest.mark.parametrize("name", [b"LIST", b"id3 "])
def test_a_chunk_that_claims_too_much_is_read_to_the_end(name: bytes) -> None:
    """A size beyond the file gives what is there; one too small for the word INFO gives no texts."""
    content = b"INFO" + riff.chunk(b"INAM", b"x")
    data = b"RIFF\0\0\0\0WAVE" + name + (1 << 20).to_bytes(4, "little") + content
    assert content.endswith(b"".join(riff.tag_chunks(io.BytesIO(data)))) and any(riff.tag_chunks(io.BytesIO(data)))
    assert riff.tag_chunks(io.BytesIO(b"RIFF\0\0\0\0WAVELIST\x02\0\0\0" + content)) == (b"", b"")


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"", 0),
        (b"ID3\x04\0\0\0\0\0", 0),
        (b"TAG\x04\0\0\0\0\0\0", 0),
        (b"ID3\x03\0\0\0\0\0\0", 10),
        (b"ID3\x03\0\0\0\0\x02\x01", 10 + 257),
        (b"ID3\x04\0\x10\0\0\x02\x01", 10 + 257 + 10),
    ],
)
def test_length_of_an_id3_tag(head: bytes, length: int) -> None:
    """Four times seven bits, the header of 10 bytes, and as many again for a footer; 0 for what is no tag."""
    assert id3_length(head) == length


def test_tags_in_a_row_are_skipped() -> None:
    """Tags with and without a footer, up to the first byte of something else."""
    plain, footed = b"ID3\x03\0\0\0\0\0\x03abc", b"ID3\x04\0\x10\0\0\0\x02ab" + b"3DI\x04\0\x10\0\0\0\x02"
    assert behind_tags(io.BytesIO(plain + footed + plain + b"fLaC")) == 2 * len(plain) + len(footed)
