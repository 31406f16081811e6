"""Peak memory of a call, as the system sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")
_SECONDS = 0.001  # between two looks


def peak_growth(call: Callable[[], Result]) -> tuple[Result, int]:
    """What ``call`` returns, and the peak of this process's anonymous resident memory during it, minus that before it,
    in bytes.

    Anonymous memory alone: pages of files come and go with what else the machine does.

    Raises:
        OSError: not on Linux.
    """
    done, before, peaks = threading.Event(), _anonymous(), [0]

    def watch() -> None:
        while not done.wait(_SECONDS):
            peaks.append(max(peaks.pop(), _anonymous()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
        last = _anonymous()
    finally:
        done.set()
        watcher.join()
    return result, max(*peaks, last) - before


def _anonymous() -> int:
    (line,) = (text for text in _STATUS.read_text().splitlines() if text.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
