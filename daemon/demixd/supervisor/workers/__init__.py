"""The parent's end of worker processes: starting, hearing and ending them, and checking what they say."""
