"""The version, readable without importing the package's extension."""

__version__ = "0.2.0"
