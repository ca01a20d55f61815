"""The configuration: the shipped file, the schema, and errors that name the key."""

import json
from pathlib import Path

import msgspec
import pytest
import tomli

from stemd import config, status
from stemd.errors import ConfigError

CONFIG = Path(__file__).parents[1] / "config"


def test_the_shipped_file_is_the_defaults() -> None:
    """config/stemd.toml shows every key, each with its default."""
    table = tomli.loads((CONFIG / "stemd.toml").read_text())
    assert table == msgspec.json.decode(msgspec.json.encode(config.Config()))


def test_the_shipped_schema_is_the_types() -> None:
    """config/status.schema.json is what the code's types say."""
    assert json.loads((CONFIG / "status.schema.json").read_text()) == status.schemas()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[inbox]\nsettle = "long"', ("[inbox] settle", "where.toml")),
        ("[inbox]\nsettel = 1", ("[inbox] settel", "no such key")),
        ("[inbocks]\nsettle = 1", ("[inbocks]", "no such key")),
        ("not toml", ("where.toml",)),
        ('[paths]\nspool = "here"', ("[paths] spool", "absolute")),
        ('[paths]\nspool = "/s"\noutbox = "/s/inbox/out"', ("outbox", "inbox")),
    ],
)
def test_errors_name_the_key(text: str, words: tuple[str, ...]) -> None:
    """A mistake is refused with the key, the file and the reason."""
    with pytest.raises(ConfigError) as error:
        config.check(config.parse(text, "where.toml"), "where.toml")
    assert all(word in str(error.value) for word in words)
