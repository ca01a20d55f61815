"""`demixd bench`: demixd against `demucs.api.Separator` and the `demucs` command, with the same weights and songs.

program     from weights to report; it loads no torch, so that nothing of it is in the others' way
weights     a process that makes the folder of models that all three read
songs       what they separate
contenders  the three, each of them `processes`: a song in, its stems on disk and the seconds out
separator   the process in which `demucs.api.Separator` stays loaded; `messages` go to it and come from it
references  the stems that were mixed into a song, and how near the three come to them; `sdr` is the formula
measure     turn by turn, medians, ratios
report      what comes out, and its JSON; `tables` show it
"""
