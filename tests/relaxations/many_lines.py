"""Lines of smooth functions on many random intervals: within 1.01 of the least distance for their slope, and never on
the wrong side of the function, by ball arithmetic. The suite tries some hundreds (test_smooth.py).

    python -m tests.relaxations.many_lines [--count 100000] [--seed 0]

``count`` intervals over all functions, of widths 1e-6 to 1e3 (their logarithms uniform), each with five slopes: that of
minimum area, those of the lines that waste least, a random one and 0. Exits with 1 where a line is wrong.
"""

from __future__ import annotations

import argparse
import math
import sys

import torch
from torch import Tensor

from tests.relaxations.functions import CASES, Case, sampled, slopes
from tests.relaxations.test_smooth import wrong_points

RATIO = 1.01
CHUNK = 500


def intervals(case: Case, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """In float64, in the function's domain; a quarter of them about 0."""
    logs = torch.rand(count, generator=generator, dtype=torch.float64)
    width = 10.0 ** (9 * logs - 6)
    place = torch.randn(count, generator=generator, dtype=torch.float64)
    place = place * torch.tensor([0.01, 1.0, 4.0, 30.0], dtype=torch.float64).repeat(-(-count // 4))[:count]
    low = place - width * torch.rand(count, generator=generator, dtype=torch.float64)
    if case.least > -math.inf:
        low = case.least + place.abs().clamp(min=1e-4)
    high = low + width
    if case.most < math.inf:
        high = high.clamp(max=case.most - 1e-4)
        low = torch.minimum(low, high - 1e-6)
    return low, high


def worst(case: Case, lower: Tensor, upper: Tensor, seed: int) -> tuple[float, list[str]]:
    """The largest ratio of a distance to the least one, and what is wrong."""
    ratio, wrong = 0.0, []
    for name, slope in slopes(case, lower, upper, seed).items():
        lines = case.rule.lines(lower, upper, slope)
        assert lines.below is not None
        count = 801 if case.function not in ("sin", "cos") else 40_001  # some for each of 160 periods
        points, least, most = sampled(case, lower, upper, lines.slope, count)
        size = case.value(points).abs().amax(0) + (lines.slope * points).abs().amax(0)
        distance, known = lines.above - lines.below - 1e-13 * size - 1e-18, size.isfinite()
        loose = known & ~(distance <= RATIO * (most - least))
        wrong += [f"{case} {name}: looser on {lower[i]:.17g}, {upper[i]:.17g}" for i in loose.nonzero().flatten()]
        found = (distance / (most - least).clamp(min=1e-300))[known & (most - least > 1e-12 * size)]
        ratio = max(ratio, float(found.max())) if len(found) else ratio
        wrong += [f"{case} {name}: {text}" for text in wrong_points(case, points, lines.slope, lines)]
    return ratio, wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)
    each, failed = -(-options.count // len(CASES)), False
    for case in CASES:
        ratio, wrong = 0.0, []
        for first in range(0, each, CHUNK):
            ends = intervals(case, min(CHUNK, each - first), generator)
            found, texts = worst(case, *ends, options.seed + first)
            ratio, wrong = max(ratio, found), wrong + texts
        failed |= bool(wrong)
        text = f"{case}: {each} intervals, largest ratio {ratio:.6f}, {len(wrong)} wrong"
        print(text, *wrong[:3], sep="\n  ", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
