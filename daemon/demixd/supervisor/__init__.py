"""The daemon's process: one loop that decides everything. It loads neither torch nor numpy."""
