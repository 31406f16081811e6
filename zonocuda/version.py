"""The version, readable without importing the package's extension."""

__version__ = "0.1.0"
