"""One job from its turn to its end: the ten points of the protocol."""
