"""Tags: what a song says of itself, and how its stems come to say it too. The only door to mutagen.

    read --> for_stem --> write

values      `Tags` and `Cover`, how much of them is taken, and what a stem's are                     [pure]
keys        one name for a thing that every format names otherwise, and what is no stem's business   [pure]
apart       `read`: a child process with limits, since a song's tags are anybody's bytes
reading     what the child does: by content, whatever the song is called                             [mutagen]
riff        the chunks of a WAV that hold tags; `streams`: the comment of an Ogg; `splice`: another length for it
frames      tags as an ID3v2.3                                                                   [mutagen]
writing     `write`: into a finished stem, whose audio stays as it is                                [mutagen]
"""

from demixd.audio.tags.sandbox import read
from demixd.audio.tags.values import NOTHING, Cover, Tags, TagsError, for_stem
from demixd.audio.tags.writing import write

__all__ = ["NOTHING", "Cover", "Tags", "TagsError", "for_stem", "read", "write"]
