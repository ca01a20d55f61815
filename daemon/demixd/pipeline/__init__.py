"""One song: decode, separate, mix, encode."""
