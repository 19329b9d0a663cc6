"""The common ground of everything that runs on CPython."""

__version__ = "0.1.0"
