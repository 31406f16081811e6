"""The one error of the VNN-LIB readers."""

from __future__ import annotations


class VnnlibError(ValueError):
    """A VNN-LIB file that cannot be read with certainty; the message is one line that names the file and the fault."""


def quoted(text: str) -> str:
    """``text`` in quotes for a one-line message: control characters escaped, long text cut."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
