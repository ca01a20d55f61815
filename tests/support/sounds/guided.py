"""A target of fuzzing.py under atheris: `guided.py TARGET [-runs=N] [-seed=S] [CORPUS]`, or a file to repeat."""

import sys

import atheris

with atheris.instrument_imports(include=["demixd", "fuzzing"]):
    import fuzzing

atheris.Setup([sys.argv[0], *sys.argv[2:]], fuzzing.TARGETS[sys.argv[1]])
atheris.Fuzz()
