"""What an op says of arguments that it cannot take."""

from __future__ import annotations

import re

# How a check of the C++ code begins its message: the function, the file and the line.
_PLACE = re.compile(r"^\w+, [^\n]*?:\d+, (?=\w+: )")


class ArgumentError(ValueError, RuntimeError):
    """A tensor of a wrong shape, dtype, layout or device, on either side of the language border.

    It is a ``ValueError``, and a ``RuntimeError`` as well, which torch's own ops raise then.
    """


def argument_error(error: RuntimeError) -> ArgumentError | None:
    """The error of a check in C++ without the place in the source; None of any other error."""
    text = str(error)
    begin = _PLACE.match(text)
    return ArgumentError(text[begin.end() :].splitlines()[0]) if begin else None
