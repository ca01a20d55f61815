"""`demixd status` and `--watch`: what the status files say, as lines and as a screen."""
