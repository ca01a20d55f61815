"""Files of a result as answers of HTTP."""

import io
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="config/requirements-web.lock is not installed")

from starlette.responses import Response

from demixd.web import stems


@pytest.mark.parametrize(
    ("header", "found"),
    [
        *(("bytes=0-", (0, 100)), ("bytes=0-0", (0, 1)), ("bytes=10-19", (10, 20)), ("bytes=90-1000", (90, 100))),
        *(("bytes=-1", (99, 100)), ("bytes=-1000", (0, 100)), ("bytes= 5 - 9", (5, 10)), ("bytes=99-99", (99, 100))),
        *(("", None), ("bytes=", None), ("bytes=-", None), ("bytes=5-4", None), ("lines=0-1", None)),
        *(("bytes=0-1,5-6", None), ("bytes=a-b", None), ("bytes=0x1-", None), ("bytes=" + "9" * 30 + "-", None)),
    ],
)
def test_ranges(header: str, found: tuple[int, int] | None) -> None:
    """One range of bytes is sent; what is none, or several, is answered with the whole."""
    assert stems.range_of(header, 100) == found


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={'9' * 18}-"])
def test_ranges_beyond_the_end(header: str) -> None:
    """A range of which the file has nothing cannot be satisfied."""
    with pytest.raises(stems.UnsatisfiableError):
        stems.range_of(header, 100)


def test_an_empty_file_has_no_range() -> None:
    """Nor has any range of an empty file a byte."""
    with pytest.raises(stems.UnsatisfiableError):
        stems.range_of("bytes=0-", 0)


def test_a_file_that_was_replaced(tmp_path: Path) -> None:
    """A part of a new file is not put together with the old one: If-Range does not fit, and the whole is sent."""
    path = tmp_path / "vocals.wav"
    path.write_bytes(b"0123456789")

    def respond(**request: str) -> Response:
        headers = {name.replace("_", "-"): value for name, value in request.items()}
        return stems.respond(path.open("rb"), "vocals.wav", "audio/wav", headers, head=True)

    etag = stems.etag_of(path.stat())
    part = respond(range="bytes=5-", if_range=etag)
    assert (part.status_code, part.headers["content-range"], part.headers["etag"]) == (206, "bytes 5-9/10", etag)
    assert respond(if_none_match=f'"x", {etag}').status_code == 304
    assert respond(range="bytes=10-").status_code == 416
    path.with_suffix(".new").write_bytes(b"abcdefghij")
    path.with_suffix(".new").replace(path)
    assert stems.etag_of(path.stat()) != etag
    whole = respond(range="bytes=5-", if_range=etag)
    assert (whole.status_code, whole.headers["content-length"]) == (200, "10")


def test_names_of_downloads() -> None:
    """Any name is one that the header can hold, and none breaks out of it."""
    header = stems.as_attachment('Album/a"b\\c\r\né🎵.wav')
    assert header == "attachment; filename=\"a_b_c____.wav\"; filename*=UTF-8''a%22b%5Cc%0D%0A%C3%A9%F0%9F%8E%B5.wav"


def test_a_zip() -> None:
    """A ZIP is made piece by piece, is one for every reader, and holds what the files hold, under their names."""
    files = {"vocals.wav": b"v" * 700_000, "htdemucs/é🎵.wav": b"i" * 3, "empty": b""}
    pieces = list(stems.zipped("Song", list(files), lambda name: io.BytesIO(files[name])))
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 2 * stems.CHUNK
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {each: archive.read(each) for each in archive.namelist()} == {f"Song/{k}": v for k, v in files.items()}
