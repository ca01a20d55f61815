"""Tags: a song's title, artist, cover and so on, read from the song and written into its stems. Only here is mutagen used.

    read --> for_stem --> write

values       `Tags` and `Cover`, their bounds, and the tags of one stem                         [pure]
keys         our key for each thing that formats name differently, and the keys that are left out [pure]
sandbox      `read`: a child process with limits on memory and time, since a song can be hostile
reading      reads tags in that child, by the song's content                                    [mutagen]
writing      `write`: into a finished stem, whose audio is not changed                          [mutagen]
id3          tags as an ID3v2.3                                                                 [mutagen]
lrc          lyrics with times, as ID3 and as texts have them                                       [pure]
ogg_comment  a new comment for an Ogg; `splice`: a new length for a part of a file
"""

from demixd.audio.tags.sandbox import read
from demixd.audio.tags.values import NOTHING, Cover, Tags, TagsError, for_stem
from demixd.audio.tags.writing import write

__all__ = ["NOTHING", "Cover", "Tags", "TagsError", "for_stem", "read", "write"]
