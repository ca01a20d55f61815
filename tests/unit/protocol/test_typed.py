"""Sentences about values that are wrong."""

import pytest

from demixd.protocol.typed import did_you_mean, ended


@pytest.mark.parametrize("sentence", ["It is 5.", f'It is "m4"{did_you_mean("m4", ["m4a"])}', "Stop!"])
def test_a_sentence_with_a_mark_gets_no_other(sentence: str) -> None:
    assert ended(sentence) == sentence


def test_a_sentence_without_a_mark_gets_a_full_stop() -> None:
    assert ended("It is 5") == "It is 5."
    assert ended('it must be "ogg"') == 'it must be "ogg".'
