"""Names of results: whatever song and template make of them, no file or folder takes the manifest's."""

import pytest

from demixd.protocol.result_names import check, file_name, mirrored


@pytest.mark.parametrize(
    ("template", "leaf", "wanted"),
    [
        ("stems.json/{stem}.{ext}", "Song.wav", "_stems.json/vocals.wav"),
        ("STEMS.JSON/{stem}.{ext}", "Song.wav", "_STEMS.JSON/vocals.wav"),
        ("{song}/{stem}.{ext}", "stems.json.wav", "_stems.json/vocals.wav"),
        ("{song}/{stem}.{ext}", "Song.wav", "Song/vocals.wav"),
    ],
)
def test_the_manifest_keeps_its_name(template: str, leaf: str, wanted: str) -> None:
    """A folder of that name gets another one, also where only the case differs."""
    check(template)
    assert file_name(template, stem="vocals", ext="wav", model="demo", leaf=leaf) == wanted


def test_a_folder_in_the_outbox_has_at_most_255_bytes() -> None:
    """A folder keeps its name where UTF-8 can spell it; one of stray bytes is cut, and no other has its name then."""
    for kept in (b"caf\xe9", "f" * 255, "\u00e9" * 127):
        raw = kept if isinstance(kept, bytes) else kept.encode()
        assert mirrored(raw) == raw.decode("utf-8", "replace")
    names = {mirrored(raw) for raw in (b"\xe9" * 86, b"\xe9" * 87, b"\xe8" * 86, b"\x80" * 255)}
    assert len(names) == 4
    assert all(len(name.encode()) <= 255 for name in names)
