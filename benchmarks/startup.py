"""What a verdict on a small network takes on the command line, beside importing what it needs.

    python -m benchmarks.startup [--rounds 7] [--command verify]

Seconds of CPU, user and system, of whole processes: ``zonocuda verify`` (or ``check``) on a network of 8 neurons, and
``import torch, onnx, onnxruntime``, in turn, the median of each and their ratio. Then the modules, imported by the
first alone, that take the longest.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.cli import files

IMPORTS = ["-c", "import torch, onnx, onnxruntime"]
SHOWN = 12
WEIGHTS = ([[1, -1, 2], [-1, 2, 1], [1, 1, 1], [2, 0, -1]], [[1, 1, 0, -1], [0, 1, -1, 1]])
"""Of layers with a ReLU between: three inputs, four neurons, two outputs."""


def problem(folder: Path) -> list[str]:
    """The arguments that have the command line verify a small network."""
    net = files.fc_model(folder / "small.onnx", *WEIGHTS)
    spec = files.save_spec(folder / "small.vnnlib", [-0.1] * 3, [0.1] * 3, 2, "(>= Y_0 10.0)")
    return [str(net), str(spec)]


def cpu_seconds(arguments: Sequence[str]) -> float:
    """Of one Python process with these arguments.

    Raises:
        RuntimeError: it failed.
    """
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {process.communicate()[1].decode()}")
    assert process.stderr is not None
    process.stderr.close()
    return usage.ru_utime + usage.ru_stime


def imported(arguments: Sequence[str]) -> dict[str, float]:
    """Milliseconds by module, each without those that it imports itself."""
    text = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True).stderr
    lines = re.findall(r"^import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)$", text, re.MULTILINE)
    return {name: int(microseconds) / 1e3 for microseconds, name in lines}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="CPU time of a small verdict beside that of imports.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--command", choices=["verify", "check"], default="verify")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        net, spec = problem(Path(folder))
        verify = ["-m", "zonocuda", "verify", net, spec]
        command = verify
        if options.command == "check":
            certificate = str(Path(folder) / "certificate.json")
            cpu_seconds([*verify, "--json", certificate])
            command = ["-m", "zonocuda", "check", certificate, net, spec]
        cpu_seconds(command), cpu_seconds(IMPORTS)  # compiled and in the cache of files
        ours, theirs = [], []
        for _ in range(options.rounds):
            theirs.append(cpu_seconds(IMPORTS))
            ours.append(cpu_seconds(command))
        more = imported(command)
    for name in imported(IMPORTS):
        more.pop(name, None)
    print(f"zonocuda {options.command:<9} {median(ours):6.3f} s of CPU ({min(ours):.3f} to {max(ours):.3f})")
    print(f"imports            {median(theirs):6.3f} s of CPU ({min(theirs):.3f} to {max(theirs):.3f})")
    print(f"ratio              {median(ours) / median(theirs):6.2f}")
    print(f"modules beside     {sum(more.values()):6.0f} ms, of which")
    for name, milliseconds in sorted(more.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"{'':18} {milliseconds:6.1f} ms {name}")


if __name__ == "__main__":
    main()
