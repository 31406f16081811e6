"""How fast VNN-LIB 1.0 files of several kinds are read, and in how much memory.

    python -m benchmarks.vnnlib [--megabytes 20] [--kinds KIND ...] [--rounds 1]

A file of each kind is written to a temporary folder and read by ``zonocuda.specs.load_vnnlib`` in a process of its own:
MB (10^6 bytes) of text per second of CPU (user and system, the best of the rounds), and by how much the process's peak
resident memory grows, over the size of the file. A reader must move each byte of the file at least once.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

Lines = Iterator[str]


def declared(inputs: int, outputs: int) -> Lines:
    """Declarations of all variables."""
    for kind, size in (("X", inputs), ("Y", outputs)):
        for i in range(size):
            yield f"(declare-const {kind}_{i} Real)\n"


def bounds(rng: random.Random, inputs: int, digits: int) -> Lines:
    """Bounds of every input, asserted one by one."""
    for i in range(inputs):
        low = rng.uniform(-1, 1)
        yield f"(assert (>= X_{i} {low:.{digits}f}))\n(assert (<= X_{i} {low + 0.125:.{digits}f}))\n"


def inputs_of_8_digits(rng: random.Random, size: int) -> Lines:
    """One region with many inputs, numbers of 8 digits."""
    yield from one_region(rng, size // 90, 8)


def inputs_of_17_digits(rng: random.Random, size: int) -> Lines:
    """One region with many inputs, numbers of 17 digits."""
    yield from one_region(rng, size // 110, 17)


def inputs_in_exponents(rng: random.Random, size: int) -> Lines:
    """One region with many inputs, numbers as Python prints small ones."""
    inputs = size // 110
    yield from declared(inputs, 1)
    for i in range(inputs):
        low = rng.uniform(-1e-5, 1e-5)
        yield f"(assert (>= X_{i} {low!r}))\n(assert (<= X_{i} {abs(low) + 1e-5!r}))\n"
    yield "(assert (<= Y_0 0.5))\n"


def one_region(rng: random.Random, inputs: int, digits: int) -> Lines:
    """Bounds of many inputs, and the usual disjunction over ten outputs."""
    yield from declared(inputs, 10)
    yield from bounds(rng, inputs, digits)
    yield "(assert (or\n" + "".join(f"  (and (>= Y_{i} Y_9))\n" for i in range(9)) + "))\n"


def disjuncts(rng: random.Random, size: int) -> Lines:
    """One box, and many disjuncts of two rows."""
    yield from declared(5, 100)
    yield from bounds(rng, 5, 8)
    yield "(assert (or\n"
    for _ in range(size // 44):
        yield f"  (and (<= Y_{rng.randrange(100)} {rng.uniform(-9, 9):.6f}) (>= Y_{rng.randrange(1, 100)} Y_0))\n"
    yield "))\n"


def regions(rng: random.Random, size: int) -> Lines:
    """Many regions of one input and one output, as in nn4sys."""
    yield from declared(1, 1)
    yield "(assert (or\n"
    for _ in range(size // 110):
        x, y = rng.uniform(0, 1), rng.uniform(-1, 1)
        yield f"  (and (>= X_0 {x:.17f}) (<= X_0 {x + 1e-7:.17f}) (>= Y_0 {y:.12f}))\n"
    yield "))\n"


def wide_regions(rng: random.Random, size: int) -> Lines:
    """Many regions of twelve inputs, with their rows."""
    yield from declared(12, 2)
    yield "(assert (or\n"
    for _ in range(size // 560):
        ends = ((i, rng.uniform(0, 1)) for i in range(12))
        box = " ".join(f"(>= X_{i} {x:.10f}) (<= X_{i} {x + 0.5:.10f})" for i, x in ends)
        yield f"  (and {box} (<= Y_0 Y_1))\n"
    yield "))\n"


KINDS: dict[str, Callable[[random.Random, int], Lines]] = {
    "inputs, 8 digits": inputs_of_8_digits,
    "inputs, 17 digits": inputs_of_17_digits,
    "inputs, exponents": inputs_in_exponents,
    "disjuncts": disjuncts,
    "regions": regions,
    "regions of 12 inputs": wide_regions,
}

_READ = """
import json, resource, sys, time
from zonocuda.specs import load_vnnlib
load_vnnlib(sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
spec = load_vnnlib(sys.argv[1])
seconds = time.process_time() - begin
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
print(json.dumps([seconds, grown * (1 if sys.platform == "darwin" else 1024), len(spec.regions)]))
"""


def written(path: Path, kind: str, size: int) -> Path:
    """A file of about ``size`` bytes."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(KINDS[kind](random.Random(kind), size))
    return path


def read(path: Path, small: Path) -> tuple[float, int, int]:
    """CPU seconds, bytes by which the peak grew after a ``small`` file, and regions."""
    command = [sys.executable, "-c", _READ, str(path), str(small)]
    seconds, grown, found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return seconds, grown, found


def main() -> None:
    """Prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'kind':22} {'MB':>6} {'regions':>8} {'MB / CPU s':>10} {'memory / file':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            path = written(Path(folder) / "large.vnnlib", kind, int(arguments.megabytes * 1e6))
            small = written(Path(folder) / "small.vnnlib", kind, 20_000)
            runs = [read(path, small) for _ in range(arguments.rounds)]
            size = path.stat().st_size
            speed, memory = size / 1e6 / min(run[0] for run in runs), max(run[1] for run in runs) / size
            print(f"{kind:22} {size / 1e6:6.1f} {runs[0][2]:8} {speed:10.1f} {memory:13.1f}", flush=True)


if __name__ == "__main__":
    main()
