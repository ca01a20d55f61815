"""Names of results: whatever song and template make of them, no file or folder takes the manifest's."""

import pytest

from demixd.protocol.result_names import check, file_name


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
