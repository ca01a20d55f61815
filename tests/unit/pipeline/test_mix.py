"""Recipes, blending and the joint gain."""

import pytest

from demixd.errors import AudioProcessingError, Code
from demixd.pipeline.mix import SONG, joint_gain, recipe

FOUR = ("drums", "bass", "other", "vocals")


@pytest.mark.parametrize(
    ("stems", "instrumental", "alone", "rows", "needed"),
    [
        (["bass"], "auto", (), {"bass": {"bass": 1.0}}, {"bass"}),
        (
            ["instrumental"],
            "add",
            (),
            {"instrumental": {"drums": 1, "bass": 1, "other": 1}},
            {"drums", "bass", "other"},
        ),
        (["no_drums"], "add", (), {"no_drums": {"bass": 1, "other": 1, "vocals": 1}}, {"bass", "other", "vocals"}),
        (["instrumental"], "minus", (), {"instrumental": {SONG: 1, "vocals": -1}}, {"vocals"}),
        (["no_bass"], "minus", (), {"no_bass": {SONG: 1, "bass": -1}}, {"bass"}),
        (
            ["vocals", "instrumental"],
            "auto",
            FOUR,
            {"vocals": {"vocals": 1}, "instrumental": {SONG: 1, "vocals": -1}},
            {"vocals"},
        ),
        (
            ["vocals", "instrumental"],
            "auto",
            (),
            {"vocals": {"vocals": 1}, "instrumental": {"drums": 1, "bass": 1, "other": 1}},
            set(FOUR),
        ),
    ],
)
def test_recipe(
    stems: list[str],
    instrumental: str,
    alone: tuple[str, ...],
    rows: dict[str, dict[str, float]],
    needed: set[str],
) -> None:
    """A stem is a part, the sum of the others, or the song minus one, and only what it takes is computed."""
    made = recipe(stems, FOUR, instrumental=instrumental, alone=alone)
    assert made.stems == rows
    matrix = made.matrix(FOUR)
    assert {part for number, part in enumerate(FOUR) if any(row[number] for row in matrix)} == needed


@pytest.mark.parametrize("how", ["add", "minus", "auto"])
def test_the_rest_of_a_model_of_one_part(how: str) -> None:
    """It is the song minus the part: there are no other parts that could be added up."""
    assert recipe(["instrumental"], ["vocals"], instrumental=how).stems == {"instrumental": {SONG: 1, "vocals": -1}}


@pytest.mark.parametrize(
    "stems", [[*FOUR, "instrumental"], ["vocals", "drums", "instrumental"], ["bass", "instrumental"]]
)
def test_auto_adds_where_subtracting_saves_little(stems: list[str]) -> None:
    """`auto` adds up the other parts unless subtracting saves more than half of the computation."""
    made = recipe(stems, FOUR, alone=FOUR)
    assert made.stems["instrumental"] == {"drums": 1, "bass": 1, "other": 1}


def test_order_and_duplicates() -> None:
    """Stems keep the order they are asked for in, and one asked for twice is made once."""
    assert list(recipe(["vocals", "bass", "vocals", "bass"], FOUR).stems) == ["vocals", "bass"]


def test_own_name_wins() -> None:
    """A model's part named like one of our stems is that part."""
    assert recipe(["instrumental"], ("vocals", "instrumental")).stems == {"instrumental": {"instrumental": 1.0}}


@pytest.mark.parametrize("stems", [["piano"], ["no_piano"], ["vocals", "no_"], ["Vocals"], [SONG], []])
def test_unknown_stem(stems: list[str]) -> None:
    """A stem that the model does not offer is refused with the list of those that it does."""
    with pytest.raises(
        AudioProcessingError, match="offers drums, bass, other, vocals, instrumental, guide, no_drums"
    ) as error:
        recipe(stems, FOUR)
    assert error.value.code is Code.BAD_OPTIONS


def test_a_stem_in_another_case_is_recognized() -> None:
    """A stem that is most like one of the model's is answered with that one."""
    with pytest.raises(AudioProcessingError, match='no stem "Vocals"; did you mean vocals'):
        recipe(["Vocals"], FOUR)


def test_no_instrumental_without_vocals() -> None:
    """A model without vocals offers no instrumental."""
    with pytest.raises(AudioProcessingError, match="offers drums, rest, no_drums, no_rest"):
        recipe(["instrumental"], ("drums", "rest"))


def test_the_song_itself_needs_no_model() -> None:
    """A file of several stems has the song in front; what is separated are the others, in their order."""
    made = recipe(FOUR, FOUR, master=True)
    assert (*made.stems,) == ("master", *FOUR)
    assert made.separated == FOUR
    assert made.matrix(FOUR) == [[float(one == other) for other in FOUR] for one in FOUR]


@pytest.mark.parametrize(
    ("peaks", "clip", "ceiling", "gain"),
    [
        ({"a": 0.5, "b": 1.0}, "joint", 1.0, 1.0),
        ({"a": 0.5, "b": 1.25}, "joint", 1.0, 0.8),
        ({"a": 0.5, "b": 1.0}, "joint", 0.5, 0.5),
        ({"a": 2.0}, "clamp", 1.0, 1.0),
        ({"a": 2.0}, "none", 1.0, 1.0),
        ({}, "joint", 1.0, 1.0),
    ],
)
def test_joint_gain(peaks: dict[str, float], clip: str, ceiling: float, gain: float) -> None:
    """The gain brings the loudest stem to the ceiling, never up, and only under `joint`."""
    assert joint_gain(peaks, clip, ceiling) == gain
