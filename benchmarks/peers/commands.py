"""Complete verifiers as commands: the network and the property are files, and the verdict is what they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

VERDICTS = {"unsat": "verified", "sat": "falsified", "timeout": "timeout", "unknown": "unknown"}
"""The words of VNN-COMP: of the violation, whether a point satisfies it."""
START_UP = "start-up"
"""The instance that takes next to nothing."""


@dataclass(frozen=True)
class Tool:
    """A verifier.

    Attributes:
        name: as its authors write it.
        variable: of the environment, that holds the command to start it; empty for ourselves.
        arguments: beside that command, for a network, a property, seconds, and a file for the result.
        reads_result: whether the verdict is the first word of that file; else it is a line of the output.
        default: the command where the variable is not set, if it is on the path.
    """

    name: str
    variable: str
    arguments: Callable[[Path, Path, int, Path], list[str]]
    reads_result: bool
    default: str = ""

    def command(self) -> list[str] | None:
        """How it is started, or None where it is absent."""
        if not self.variable:
            return [sys.executable, "-m", "zonocuda", "verify"]
        words = shlex.split(os.environ.get(self.variable, ""))
        if not words and self.default:
            beside = str(Path(sys.executable).parent)
            words = [p for p in (shutil.which(self.default, path=f"{beside}{os.pathsep}{os.environ['PATH']}"),) if p]
        return words or None

    def run(self, net: Path, spec: Path, seconds: int, result: Path, threads: int) -> tuple[str, float, int]:
        """The verdict, in our words, the wall time of the whole process, and the most bytes that it, or one that it
        waited for, held in memory; it is killed two minutes after its seconds."""
        command = self.command()
        assert command is not None
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        result.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            facts = Path(folder) / "facts.json"
            measured = [sys.executable, str(Path(__file__).with_name("measured.py")), str(facts), str(seconds + 120)]
            done = subprocess.run(
                [*measured, *command, *self.arguments(net, spec, seconds, result)],
                capture_output=True,
                text=True,
                env=environment,
            )
            used = json.loads(facts.read_text())
        text = result.read_text() if self.reads_result and result.exists() else done.stdout
        found = re.findall(r"^(unsat|sat|unknown|timeout)\b", text, re.IGNORECASE | re.MULTILINE)
        return (VERDICTS[found[-1].lower()] if found else "no verdict"), used["seconds"], used["memory"]


TOOLS = (
    Tool(
        "zonocuda", "", lambda n, s, t, r: [str(n), str(s), "--timeout", str(t), "-q", "--results-file", str(r)], True
    ),
    Tool(
        "Marabou",
        "ZONOCUDA_PEER_MARABOU",
        lambda n, s, t, r: [str(n), str(s), "--timeout", str(t), "--verbosity", "0"],
        False,
        "Marabou",
    ),
    Tool(
        "alpha-beta-CROWN",
        "ZONOCUDA_PEER_ABCROWN",
        lambda n, s, t, r: [
            *("--onnx_path", str(n), "--vnnlib_path", str(s), "--timeout", str(t)),
            *("--device", "cpu", "--results_file", str(r)),
        ],
        True,
    ),
    Tool(
        "NeuralSAT",
        "ZONOCUDA_PEER_NEURALSAT",
        lambda n, s, t, r: [
            *("--net", str(n), "--spec", str(s), "--timeout", str(t), "--device", "cpu", "--result_file", str(r))
        ],
        True,
    ),
)
"""Each with its own defaults. Tried: zonocuda, Marabou 2.0.0, NeuralSAT 0.2.17. alpha-beta-CROWN by documents alone."""
