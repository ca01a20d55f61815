"""`demixd separate`: one song in this process, by the daemon's own pipeline."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from demixd.cli.console import say
from demixd.cli.songs.submit import song_options
from demixd.cli.status import view
from demixd.config import Config
from demixd.engine.models.configured import known
from demixd.protocol import options


def separate(config: Config, song: Path, folder: Path, given: Mapping[str, Any], settings: Iterable[str]) -> None:
    """Put the stems of `song` into `folder`, and say which files they are. Raises AudioProcessingError, BadWordError.

    `given` and `settings` are the options of the command line, as `submit` takes them.
    """
    chosen = options.parse(msgspec.json.encode(song_options(given, settings)))
    wanted = config.options_of(song.name, chosen, lambda model: bool(known(model, config)))
    from demixd.api import separate as separate_here  # brings torch along

    with view.bar(song.name) as change:

        def tell(text: str, fraction: float) -> None:
            change(description=f"{song.name}: {text.partition('(')[0].strip()}", completed=fraction, total=1.0)

        made = separate_here(config, wanted, song, folder, tell, lambda: None)
    for path in made:
        say(str(path))
