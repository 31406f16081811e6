"""The program ``zonocuda``: Ctrl-C and SIGTERM end it with one line, whatever it is at.

So this module loads next to nothing: the rest is loaded once the signals are taken care of.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143

_ENDS = {signal.SIGINT: ("interrupted", INTERRUPTED), signal.SIGTERM: ("terminated", TERMINATED)}

unfinished: set[str] = set()
"""The temporary files of this process."""

children: set[int] = set()
"""The processes that end with this one."""


def program() -> int:
    """Runs the command that this process was started with; its exit code."""
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # what the parent wants ignored stays so
            signal.signal(number, _end)
    from zonocuda.cli.main import main

    return main()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Leaves at once: an exception could be swallowed, or printed, by the library that is at work or being loaded."""
    word, code = _ENDS[signal.Signals(number)]
    for child in tuple(children):
        try:
            os.kill(child, signal.SIGKILL)
        except OSError:  # ended already
            continue
    for path in tuple(unfinished):
        try:
            os.unlink(path)
        except OSError:  # not made yet, or renamed already
            continue
    over_what_is_shown = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""
    try:
        os.write(2, f"{over_what_is_shown}zonocuda: {word}\n".encode())
    finally:
        os._exit(code)
