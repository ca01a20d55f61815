"""Sound in files and in memory: formats, codecs, containers, tags, measures. No module here knows of jobs.

formats      the formats of stems, and the choice of one for a song
containers/  the formats of songs, told by their bytes
sndfile      libsndfile, and ffmpeg/ FFmpeg's libraries: both read songs and write stems
streams      the files that the two read from and write to
pcm          samples between the steps, in memory or on a disk, and blocks of them; budget: how much memory
tags/        a song's tags, read from it and written into its stems
downmix, resample (to the model's rate), dither, levels, truepeak: arithmetic on blocks `[T, C]`
"""
