"""FFmpeg's libraries, through av: the one room that imports it."""
