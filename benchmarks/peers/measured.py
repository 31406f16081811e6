"""Runs a command and measures it: ``python measured.py FILE LIMIT COMMAND...``.

Writes its wall time in seconds and the most bytes that it, or one that it waited for, held in memory to FILE as JSON.
A process begins with its parent's most on Linux, so that the parent has to be as small as this one: no torch here.
A command that takes longer than LIMIT seconds is killed.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path


def main(file: str, limit: str, *command: str) -> None:
    """Waits for the command."""
    begin = time.perf_counter()
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, timeout=float(limit), check=False)
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    Path(file).write_text(json.dumps({"seconds": seconds, "memory": memory}))


if __name__ == "__main__":
    main(*sys.argv[1:])
