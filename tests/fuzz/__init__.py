"""Fuzzers: files that nobody should open, and networks whose bounds must hold. ``python -m tests.fuzz --help``."""
