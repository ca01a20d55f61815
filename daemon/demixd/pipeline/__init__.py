"""One song: decode, separate, mix, encode.

song      the song's way through the steps; the others are called from there
decode    a song to a buffer of samples (audio/pcm.py); decoder: in a process of its own
separate  a buffer for each stem, by the engine, and what must be known of all stems before the first is written
mix       stems from parts, as arithmetic; stems: all stems of a song, written at once
encode    one stem to a file, and read back; metering and tagging are what is done to it meanwhile
"""
