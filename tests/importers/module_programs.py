"""Modules that compute constants from parameters and numbers, beside what those are in exact arithmetic.

What torch makes of a number depends on the kernel: the truth is computed under every reading, and an enclosure must
hold each.
"""

from __future__ import annotations

import decimal
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tests.importers.constant_programs import Exact, exact, root
from tests.importers.ratios import ratio
from zonocuda.graph import HOPELESS, ScaleShift
from zonocuda.importers import UnsupportedNetworkError, from_module

NUMBERS = (0.1, -0.1, 0.3081, 1 / 3, -2.7, 1e-3, 3, -2, 2049, 0.1 + 2.0**-30)
EXPONENTS = (0.3, -0.7, 0.5, -0.5, 2, 3, -1, 1.9, 1 / 3)
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
REFUSALS = ("rounding may decide", "rounding cannot tell")
_DECIMALS = decimal.Context(prec=130, Emax=10**9, Emin=-(10**9))
_BITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}


class OverflowedError(ArithmeticError):
    """A number that a type does not hold."""


def nearest(x: Fraction, dtype: torch.dtype) -> Fraction:
    """The number of a floating-point type that is nearest, ties to even."""
    if not x:
        return x
    info = torch.finfo(dtype)
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    exponent -= abs(x) < Fraction(2) ** exponent
    lowest = round(float(np.log2(info.smallest_normal)))
    unit = Fraction(2) ** (max(exponent, lowest) - _BITS[dtype] + 1)
    found = round(x / unit) * unit
    if abs(found) > Fraction(info.max):
        raise OverflowedError
    return found


def converted(x: Fraction, source: torch.dtype, target: torch.dtype) -> Fraction:
    """A cast, which rounds where the target does not hold all of the source."""
    widens = target == source or (_BITS[target] > _BITS[source] and _BITS[target] > 11)
    return x if widens else nearest(x, target)


def cut(x: Fraction) -> Fraction:
    """The same to 500 binary digits."""
    if x.denominator.bit_length() < 700:
        return x
    unit = Fraction(2) ** (abs(x.numerator).bit_length() - x.denominator.bit_length() - 500)
    return round(x / unit) * unit


def each(function: Callable[[Any], Fraction], x: Exact) -> Exact:
    """A function of every element."""
    return np.array([function(v) for v in x.flat], dtype=object).reshape(x.shape)


def _decimal(x: Fraction) -> decimal.Decimal:
    return _DECIMALS.divide(decimal.Decimal(x.numerator), decimal.Decimal(x.denominator))


def exponential(x: Exact) -> Exact:
    """exp x, to 120 decimal digits."""
    return each(lambda v: cut(Fraction(_DECIMALS.exp(_decimal(v)))), x)


def power(x: Exact, y: Fraction) -> Exact:
    """x ** y of positive numbers, to 120 decimal digits."""
    if y.denominator == 1:
        return each(lambda v: cut(v**y.numerator), x)
    return each(lambda v: cut(Fraction(_DECIMALS.power(_decimal(v), _decimal(y)))), x)


@dataclass(frozen=True)
class Reading:
    """How numbers are read: in float16 and bfloat16 as float32 numbers; exponents as doubles."""

    wide: bool
    doubles: bool


READINGS = [Reading(*pair) for pair in product((False, True), repeat=2)]


@dataclass(frozen=True)
class Truth:
    """A step under one reading: the type of its result, and those of its operands."""

    reading: Reading
    dtype: torch.dtype
    types: tuple[torch.dtype, ...]

    def n(self, number: float, dtype: torch.dtype | None = None) -> Fraction:
        """A number that is computed with."""
        dtype = dtype or self.dtype
        wide = self.reading.wide and _BITS[dtype] < 24
        return self.stored(number, torch.float32 if wide else dtype)

    def stored(self, number: float, dtype: torch.dtype | None = None) -> Fraction:
        """A number that is written; torch converts to 16 bits by way of float32."""
        dtype, x = dtype or self.dtype, Fraction(number)
        return nearest(nearest(x, torch.float32) if _BITS[dtype] < 24 else x, dtype)

    def exponent(self, number: float) -> Fraction:
        """An exponent."""
        return Fraction(number) if self.reading.doubles else self.n(number)


class Step(NamedTuple):
    """An operator: what torch computes, and what is true."""

    name: str
    inputs: tuple[int, ...]
    own: Callable[..., Tensor]
    real: Callable[..., Exact]


def total(x: Exact) -> Fraction:
    """A sum."""
    return sum(x.flat, Fraction(0))


def vector(*values: Fraction) -> Exact:
    """Four numbers, or one four times."""
    return np.array(values * (4 // len(values)), dtype=object)


def operators(rng: random.Random) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Exact]]]:
    """Every kind of operator on one or two vectors of 4, with numbers drawn for it."""
    n, m = rng.choice(NUMBERS), rng.choice(NUMBERS)
    p, y, k = abs(m), rng.choice(EXPONENTS), rng.randrange(4)
    cast = rng.choice(list(_BITS))
    F = nn.functional
    spread = lambda x: total(each(lambda v: (v - total(x) / 4) ** 2, x)) / 3  # noqa: E731
    roots = lambda x: each(root, x)  # noqa: E731
    arithmetic: dict[str, tuple[Callable[..., Tensor], Callable[..., Exact]]] = {
        "a * n": (lambda a: a * n, lambda t, a: a * t.n(n)),
        "a + n": (lambda a: a + n, lambda t, a: a + t.n(n)),
        "a - n": (lambda a: a - n, lambda t, a: a - t.n(n)),
        "n - a": (lambda a: n - a, lambda t, a: t.n(n) - a),
        "a / n": (lambda a: a / n, lambda t, a: a / t.n(n)),
        "n / |a|": (lambda a: n / (a.abs() + p), lambda t, a: t.n(n) / (abs(a) + t.n(p))),
        "a * scalar": (
            lambda a: a * torch.tensor(n, dtype=torch.float64),
            lambda t, a: a * t.n(n),
        ),
        "a + integers": (lambda a: a + torch.arange(4) * 3, lambda t, a: a + exact(np.arange(4)) * 3),
        "integers / n": (
            lambda a: a + torch.arange(4) / n,
            lambda t, a: a + exact(np.arange(4)) / t.n(n, torch.get_default_dtype()),
        ),
        "a ** y": (lambda a: (a.abs() + p) ** y, lambda t, a: power(abs(a) + t.n(p), t.exponent(y))),
        "alpha": (lambda a, b: torch.add(a, b, alpha=n), lambda t, a, b: a + t.n(n) * b),
        "minus alpha": (lambda a, b: torch.sub(a, b, alpha=n), lambda t, a, b: a - t.n(n) * b),
        "reversed": (lambda a, b: torch.rsub(a, b, alpha=n), lambda t, a, b: b - t.n(n) * a),
        "a + b": (lambda a, b: a + b, lambda t, a, b: a + b),
        "a b": (lambda a, b: a * b, lambda t, a, b: a * b),
        "a / b": (lambda a, b: a / (b.abs() + p), lambda t, a, b: a / (abs(b) + t.n(p, t.types[1]))),
        "addcmul": (
            lambda a, b: torch.addcmul(a, a, b.to(a.dtype), value=n),
            lambda t, a, b: a + t.n(n) * a * each(lambda v: converted(v, t.types[1], t.types[0]), b),
        ),
        "lerp": (lambda a: torch.lerp(a, a.flip(0), n), lambda t, a: a + t.n(n) * (a[::-1] - a)),
        "outer, addmm": (
            lambda a: torch.addmm(torch.outer(a, a), torch.outer(a, a), a.diag(), alpha=n, beta=m).sum(1),
            lambda t, a: (np.outer(a, a) * t.n(m) + t.n(n) * np.outer(a, a) * a).sum(1),
        ),
        "addmv": (
            lambda a: torch.addmv(a, torch.outer(a, a), a, alpha=n, beta=m),
            lambda t, a: a * t.n(m) + t.n(n) * (np.outer(a, a) @ a),
        ),
        "baddbmm": (
            lambda a: torch.baddbmm(a[None, None], a[None, None], torch.outer(a, a)[None], alpha=n, beta=m)[0, 0],
            lambda t, a: a * t.n(m) + t.n(n) * (a @ np.outer(a, a)),
        ),
        "linear": (lambda a: F.linear(a, torch.outer(a, a), a), lambda t, a: np.outer(a, a) @ a + a),
        "dot": (lambda a: a * torch.dot(a, a), lambda t, a: a * total(a * a)),
        "vector": (lambda a: torch.mv(torch.outer(a, a), a), lambda t, a: np.outer(a, a) @ a),
        "matrices": (lambda a: torch.mm(a.diag(), a[:, None])[:, 0], lambda t, a: a * a),
        "stacks": (lambda a: torch.matmul(a[None, None], a.diag()[None])[0, 0], lambda t, a: a * a),
        "addcdiv": (
            lambda a: torch.addcdiv(a, a, a.abs() + p, value=n),
            lambda t, a: a + t.n(n) * a / (abs(a) + t.n(p)),
        ),
        "reciprocal": (lambda a: (a.abs() + p).reciprocal(), lambda t, a: 1 / (abs(a) + t.n(p))),
        "lerp, tensor": (lambda a: torch.lerp(a, a.roll(k), a), lambda t, a: a + a * (np.roll(a, k) - a)),
        "n ** integers": (
            lambda a: a * p ** torch.arange(4, dtype=a.dtype),
            lambda t, a: a * np.array([t.n(p) ** i for i in range(4)], dtype=object),
        ),
        "weight norm": (
            lambda a: torch._weight_norm(a.reshape(2, 2) + 3, a[:2, None], 0).flatten(),
            lambda t, a: np.concatenate([g * v / norm(v) for g, v in zip(a, a.reshape(2, 2) + 3, strict=False)]),
        ),
        "a sum": (lambda a: a - a.sum(), lambda t, a: a - total(a)),
        "a mean": (lambda a: a - a.mean(0, keepdim=True), lambda t, a: a - total(a) / 4),
        "a product": (lambda a: a.prod(0, keepdim=True).expand(4), lambda t, a: vector(np.prod(a))),
        "variance": (lambda a: a + a.var(), lambda t, a: a + spread(a)),
        "deviation": (lambda a: a + a.std(0), lambda t, a: a + root(cut(spread(a)))),
        "norm": (lambda a: F.normalize(a + 1, dim=0), lambda t, a: (a + 1) / max(norm(a + 1), t.n(1e-12))),
        "root": (lambda a: (a.abs() + p).sqrt(), lambda t, a: roots(each(cut, abs(a) + t.n(p)))),
        "inverse root": (lambda a: (a.abs() + p).rsqrt(), lambda t, a: 1 / roots(each(cut, abs(a) + t.n(p)))),
        "square": (lambda a: a.square(), lambda t, a: a * a),
        "exp": (lambda a: a.clamp(-2, 2).exp(), lambda t, a: exponential(np.clip(a, Fraction(-2), Fraction(2)))),
        "leaky": (lambda a: F.leaky_relu(a, n), lambda t, a: each(lambda v: v if v > 0 else v * t.n(n), a)),
    }
    moves: dict[str, tuple[Callable[..., Tensor], Callable[..., Exact]]] = {
        "cast": (lambda a: a.to(cast), lambda t, a: each(lambda v: converted(v, t.types[0], cast), a)),
        "|a|": (lambda a: a.abs(), lambda t, a: abs(a)),
        "relu": (lambda a: -F.relu(a), lambda t, a: -np.maximum(a, Fraction(0))),
        "clamp": (lambda a: a.clamp(min=n), lambda t, a: np.maximum(a, t.n(n))),
        "clamp above": (lambda a: a.clamp(max=n), lambda t, a: np.minimum(a, t.n(n))),
        "hardtanh": (lambda a: F.hardtanh(a, -p, p), lambda t, a: np.clip(a, t.n(-p), t.n(p))),
        "larger": (lambda a, b: torch.maximum(a, b), lambda t, a, b: np.maximum(a, b)),
        "smaller": (lambda a, b: torch.minimum(a, b), lambda t, a, b: np.minimum(a, b)),
        "relu6": (lambda a: F.relu6(a), lambda t, a: np.clip(a, Fraction(0), Fraction(6))),
        "flip": (lambda a: a.flip(0), lambda t, a: a[::-1]),
        "roll": (lambda a: a.roll(k), lambda t, a: np.roll(a, k)),
        "parts": (lambda a, b: torch.cat([a[2:], b[:2]]), lambda t, a, b: np.concatenate([a[2:], b[:2]])),
        "padded": (lambda a: F.pad(a[:3], (1, 0), value=n), lambda t, a: np.concatenate([[t.stored(n)], a[:3]])),
        "written": (
            lambda a: write(a, k, n),
            lambda t, a: np.array([t.stored(n) if i == k else v for i, v in enumerate(a)], dtype=object),
        ),
        "full": (lambda a: torch.full_like(a, n), lambda t, a: vector(t.stored(n))),
        "full, default": (
            lambda a: a + torch.full((4,), float(n)),
            lambda t, a: a + t.stored(n, torch.get_default_dtype()),
        ),
        "masked": (
            lambda a: a.masked_fill(a.detach() > m, n),
            lambda t, a: each(lambda v: t.stored(n) if v > t.n(m) else v, a),
        ),
        "where": (
            lambda a, b: torch.where(a < m, b, n),
            lambda t, a, b: np.where(a < t.n(m, t.types[0]), b, t.stored(n, t.types[1])),
        ),
        "max": (lambda a: a.max(0, keepdim=True)[0].expand(4), lambda t, a: vector(max(a))),
        "min": (lambda a: a.reshape(2, 2).min(1)[0].repeat(2), lambda t, a: np.tile(a.reshape(2, 2).min(1), 2)),
        "sort": (lambda a: a.sort()[0], lambda t, a: np.sort(a)),
        "sorted by": (lambda a, b: a.gather(0, b.sort(0)[1]), lambda t, a, b: a[np.argsort(b)]),
        "argmax": (lambda a, b: a - a.index_select(0, b.argmax().reshape(1)), lambda t, a, b: a - a[np.argmax(b)]),
        "topk": (lambda a: a.topk(2)[0].repeat(2), lambda t, a: np.tile(np.sort(a)[::-1][:2], 2)),
        "median": (lambda a: a - a.median(0)[0], lambda t, a: a - np.sort(a)[1]),
        "median of all": (lambda a: a - a.median(), lambda t, a: a - np.sort(a)[1]),
        "kthvalue": (lambda a: a - a.kthvalue(3)[0], lambda t, a: a - np.sort(a)[2]),
        "cummax": (lambda a: a.cummax(0)[0], lambda t, a: np.maximum.accumulate(a)),
        "cummin": (lambda a: a.cummin(0)[0], lambda t, a: np.minimum.accumulate(a)),
        "amax": (lambda a: a - a.amax(), lambda t, a: a - max(a)),
        "aminmax": (lambda a: a - a.aminmax()[0], lambda t, a: a - min(a)),
        "msort": (lambda a: a.reshape(2, 2).msort().flatten(), lambda t, a: np.sort(a.reshape(2, 2), 0).flatten()),
    }
    return arithmetic | moves


def norm(x: Exact) -> Fraction:
    """The Euclidean norm."""
    return root(cut(total(x * x)))


def write(a: Tensor, position: int, number: float) -> Tensor:
    """A copy with another element."""
    copy = a.clone()
    copy[position] = number
    return copy


class Program:
    """A chain of random operators on two vectors of parameters.

    Args:
        seed: of everything.
        dtype: type of the parameters.
        out: type of the network, to which the result is converted.
    """

    def __init__(self, seed: int, dtype: torch.dtype, out: torch.dtype, length: int = 6) -> None:
        rng = random.Random(f"folding {seed} {dtype} {out}")
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        self.leaves = [torch.randn(4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]
        self.out = out
        self.steps: list[Step] = []
        for _ in range(length):
            name, (own, real) = rng.choice(list(operators(rng).items()))
            count = own.__code__.co_argcount
            size = 2 + len(self.steps)
            inputs = tuple(rng.randrange(max(0, size - 3), size) for _ in range(count))
            self.steps.append(Step(name, inputs, own, real))

    def run(self, *leaves: Tensor) -> list[Tensor]:
        """What torch computes."""
        values = list(leaves)
        for step in self.steps:
            values.append(step.own(*(values[i] for i in step.inputs)))
        return [*values, values[-1].to(self.out)]

    def truth(self, reading: Reading) -> Exact:
        """What is true under a reading.

        Raises:
            OverflowedError: a type does not hold it, or what torch computes on the way.
        """
        computed = self.run(*self.leaves)
        if not all(bool(value.isfinite().all()) for value in computed):
            raise OverflowedError
        types = [value.dtype for value in computed]
        values = [exact(leaf.double().numpy()) for leaf in self.leaves]
        for at, step in enumerate(self.steps, 2):
            operands = tuple(types[i] for i in step.inputs)
            found = step.real(Truth(reading, types[at], operands), *(values[i] for i in step.inputs))
            values.append(each(cut, np.broadcast_to(found, (4,))))
        return each(lambda v: converted(v, types[-2], self.out), values[-1])

    def __str__(self) -> str:
        return "; ".join(f"{step.name} {list(step.inputs)}" for step in self.steps)


class Chain(nn.Module):
    """x plus the constant of one program after another."""

    def __init__(self, programs: Sequence[Program]) -> None:
        super().__init__()
        self.programs = programs
        self.leaves = nn.ParameterList([nn.Parameter(leaf) for program in programs for leaf in program.leaves])

    def forward(self, x: Tensor) -> Tensor:
        for at, program in enumerate(self.programs):
            x = x + program.run(self.leaves[2 * at], self.leaves[2 * at + 1])[-1]
        return x


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default type, for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_programs(seed: int, out: torch.dtype, count: int) -> list[Program]:
    """Programs from a seed on that no type overflows, of parameters of every type in turn."""
    found: list[Program] = []
    while len(found) < count:
        program = Program(seed, TYPES[seed % len(TYPES)], out)
        seed += 1
        try:
            for reading in READINGS:
                program.truth(reading)
        except (OverflowedError, ZeroDivisionError):
            continue
        found.append(program)
    return found


def faults(programs: Sequence[Program]) -> tuple[list[str], int]:
    """What is not where its operator says, and how many constants were compared.

    Those that are refused because rounding may decide them are left out, and so are those of which nothing is known.
    """
    try:
        graph = from_module(Chain(programs).eval(), (4,))
    except UnsupportedNetworkError as error:
        if not any(text in str(error) for text in REFUSALS):
            raise
        if len(programs) == 1:
            return [], 0
        halves = [faults(programs[: len(programs) // 2]), faults(programs[len(programs) // 2 :])]
        return [line for half in halves for line in half[0]], sum(half[1] for half in halves)
    wrong, compared = [], 0
    for node, program in zip(graph.nodes[1:], programs, strict=True):
        assert isinstance(node.op, ScaleShift)
        assert node.op.shift is not None
        if node.op.roundings >= HOPELESS:
            continue
        compared += 1
        for reading in READINGS:
            off = ratio(node.op.shift, program.truth(reading), node.op.doubt.get("shift"))
            if not off <= node.op.roundings:
                wrong.append(f"{program}; {reading}: off by {off:.3g} u, where {node.op.roundings} are counted")
    return wrong, compared


def trial(seed: int) -> tuple[str, str]:
    """Random modules under a random default type: what the trial was, and what is wrong."""
    rng = random.Random(f"folding {seed}")
    default, out = rng.choice(TYPES), rng.choice((torch.float32, torch.float64))
    with default_dtype(default):
        wrong, compared = faults(random_programs(rng.randrange(2**31), out, 4))
    return f"{out} folded, {compared} of 4 compared", "; ".join(f"default {default}: {line}" for line in wrong)
