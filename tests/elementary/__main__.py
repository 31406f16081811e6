"""Compares every function with Arb at many points: values with their theorem, bounds with the truth.

    python -m tests.elementary --points 10000000            # of each function, about a minute each
    python -m tests.elementary --points 100000 exp sin

Prints the largest error found, in units of 2^-53 |f|, beside the proven one; ends with status 1 where one is larger, or
a bound does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from flint import ctx

from tests.elementary import model, oracle, points
from tests.elementary.rounding import power
from tests.elementary.theorems import THEOREMS
from zonocuda import ops
from zonocuda.functions import FUNCTIONS, FunctionName

CHUNK = 100_000
FEW_OPERATIONS = {
    "softsign": 2,
    "hardswish": 3,
    "reciprocal": 1,
    "sqrt": 1,
    "rsqrt": 2,
    "power": model.EXPONENT,
    "gelu_tanh": float("inf"),
}
"""Their units: one for each operation. Those of gelu_tanh depend on x: its bounds alone are compared."""


def check(function: FunctionName, count: int, seed: int) -> bool:
    """Compares one function at ``count`` random points and at the hard ones; whether all is well."""
    began = time.perf_counter()
    parameter = model.EXPONENT if function == "power" else model.ALPHA
    absolute = power(-1062) if function in ("silu", "gelu", "gelu_tanh", "mish") else power(-1066)
    proven = float(FEW_OPERATIONS[function] if function in FEW_OPERATIONS else THEOREMS[function]())
    largest, at, outside, done = 0.0, 0.0, 0, 0
    while done < count:
        x = points.random_points(function, min(CHUNK, count - done), seed + done)
        if done == 0:
            x = torch.cat([x, points.in_domain(function, points.hard_points())])
        results = [ops.elementary(x, function, parameter, rounding) for rounding in ("nearest", "down", "up")]
        found = oracle.compare(function, x, *results, absolute)
        outside += len(found.outside)
        if found.units > largest:
            largest, at = found.units, found.at
        done += CHUNK
    well = outside == 0 and largest <= proven
    seconds = time.perf_counter() - began
    print(
        f"{function:12s} {largest:9.3f} units at {at!r}, proven {proven:.3f}; {outside} bounds do not hold; "
        f"{seconds:.0f} s{'' if well else '   WRONG'}",
        flush=True,
    )
    return well


def main() -> None:
    """Reads the command line and checks."""
    parser = argparse.ArgumentParser(prog="python -m tests.elementary", description="compares with Arb")
    parser.add_argument("--points", type=int, default=10_000, help="random points of each function")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("functions", nargs="*", choices=[*FUNCTIONS, []], default=[])
    arguments = parser.parse_args()
    ctx.prec = 128
    results = [check(f, arguments.points, arguments.seed) for f in arguments.functions or FUNCTIONS]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
