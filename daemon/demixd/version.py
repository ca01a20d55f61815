"""The version of the package, where everything may read it without loading the rest."""

__version__ = "0.1.0"
