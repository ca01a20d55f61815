"""One job from its turn to its end: the ten points, which `supervisor/trace.py` lists."""
