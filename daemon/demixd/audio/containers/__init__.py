"""The containers of songs: a file's format by its bytes, and where its audio begins and ends."""
