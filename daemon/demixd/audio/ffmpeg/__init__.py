"""FFmpeg's room: the one place in which av is imported."""
