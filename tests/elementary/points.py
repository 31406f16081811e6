"""Numbers to compare at: random ones, and those where each function is hardest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DOMAINS: dict[str, tuple[float, float]] = {
    "exp": (-745, 709.7),
    "expm1": (-60, 709.7),
    "log": (0, math.inf),
    "log1p": (-1, math.inf),
    "tanh": (-25, 25),
    "sigmoid": (-745, 45),
    "erf": (-7, 7),
    "erfc": (-7, 27),
    "normal_cdf": (-38, 9),
    "softplus": (-745, 60),
    "silu": (-745, 60),
    "gelu": (-38, 12),
    "gelu_tanh": (-22, 12),
    "elu": (-60, 10),
    "selu": (-60, 10),
    "celu": (-60, 10),
    "mish": (-745, 60),
    "softsign": (-1e4, 1e4),
    "hardswish": (-5, 5),
    "sin": (-(2.0**20), 2.0**20),
    "cos": (-(2.0**20), 2.0**20),
    "atan": (-100, 100),
    "reciprocal": (-100, 100),
    "sqrt": (0, math.inf),
    "rsqrt": (0, math.inf),
    "power": (-4, 4),
}
"""Where a function is defined and not yet constant in float64."""

BORDERS = (0.5, 0.75, 0.75 * math.sqrt(2), 0.4140625, 2.4140625, 1.0, 1.5, 3.0, 6.0, 22.0, 40.0, 28.0, 39.0, 2.0**20)
"""Where the formulas change, beside multiples of log 2 and of pi / 2."""


def hard_points() -> Tensor:
    """Around 0, around every border of the formulas, huge, subnormal; both signs."""
    exponents = torch.arange(-1074, 1024)
    powers = torch.ldexp(torch.ones(exponents.numel(), dtype=torch.float64), exponents)
    halves = (torch.arange(-1075, 1025, dtype=torch.float64) + 0.5) * math.log(2)
    turns = torch.cat([torch.arange(0, 200), torch.tensor([3, 5, 7, 11, 101, 1001, 33333, 333333, 667543])]).double()
    borders = torch.tensor(BORDERS, dtype=torch.float64)
    scaled = torch.cat([math.sqrt(0.5) * powers[powers > 0], turns * (math.pi / 4)])
    centers = torch.cat([powers, powers * 1.5, halves, scaled, borders])
    largest, smallest = torch.finfo(torch.float64).max, 5e-324
    around = [centers]
    for direction in (-math.inf, math.inf):
        step = centers
        for _ in range(2):
            step = torch.nextafter(step, torch.full_like(step, direction))
            around.append(step)
    extra = torch.tensor([0.0, smallest, 3 * smallest, largest, largest / 3], dtype=torch.float64)
    every = torch.cat([*around, extra])
    every = every[every.isfinite()]
    return torch.cat([every, -every])


def random_points(name: str, count: int, seed: int) -> Tensor:
    """A third uniform in the domain, a third of any exponent, a third near a multiple of log 2 / 2 or of pi / 4."""
    g = torch.Generator().manual_seed(seed)
    low, high = DOMAINS[name]
    part = count // 3
    uniform = torch.rand(part, dtype=torch.float64, generator=g)
    inside = max(low, -1e6) + uniform * (min(high, 1e6) - max(low, -1e6))
    exponents = torch.randint(-1074, 1024, (part,), generator=g)
    mantissa = 1 + torch.rand(part, dtype=torch.float64, generator=g)
    sign = torch.randint(0, 2, (part,), generator=g) * 2 - 1
    anywhere = torch.ldexp(mantissa, exponents) * sign
    rest = count - 2 * part
    step = math.pi / 4 if name in ("sin", "cos") else math.log(2) / 2
    reach = max(1, int(min(max(abs(low), abs(high)), 1e6) / step))
    multiples = torch.randint(-reach, reach + 1, (rest,), generator=g) * step
    spread = torch.ldexp(
        torch.randn(rest, dtype=torch.float64, generator=g), torch.randint(-40, 0, (rest,), generator=g)
    )
    return in_domain(name, torch.cat([inside, anywhere, multiples * (1 + spread)]))


def in_domain(name: str, x: Tensor) -> Tensor:
    """Those of the points where the function is defined, and no pole."""
    if name in ("log", "rsqrt"):
        return x[x > 0]
    if name == "sqrt":
        return x[x >= 0]
    if name == "log1p":
        return x[x > -1]
    if name in ("sin", "cos"):
        return x[x.abs() <= 2.0**20]
    return x[x != 0] if name == "reciprocal" else x
