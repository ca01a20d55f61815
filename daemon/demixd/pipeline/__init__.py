"""One song: decode, separate, mix, encode.

song      the song's way through the steps; the others are called from there
decode    a song to a PCM file
separate  a PCM file to one for each part, by the engine
mix       stems from parts, as arithmetic; stems: all stems of a song, mixed and written at once
encode    one stem to a file, and read back; metering and tagging are what is done to it meanwhile
"""
