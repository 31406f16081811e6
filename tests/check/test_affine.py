"""Every affine operator as explicit sums, against its matrix in exact rationals."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from flint import arb, ctx

from tests.graph.test_ops import simple_cases
from tests.verifier.exact import affine_map, exactly, multiply
from zonocuda.checker.affine import Map, explicit
from zonocuda.checker.arithmetic import balls, constants, precisely
from zonocuda.graph import Affine, AveragePool, Conv, ConvTranspose, Linear, Pad, Reduce, ScaleShift
from zonocuda.graph.ops import HOPELESS

Case = tuple[Affine, tuple[int, ...]]


def rand(*shape: int) -> torch.Tensor:
    """Standard normal float64 numbers; tests seed the global generator."""
    return torch.randn(shape, dtype=torch.float64)


def convolutions() -> list[Case]:
    """Convolutions and transposed ones over one to three dimensions, with groups, strides, dilations and paddings."""
    torch.manual_seed(3)
    generator = np.random.default_rng(3)
    cases: list[Case] = []
    for trial in range(18):
        spatial, groups = trial % 3 + 1, trial % 2 + 1
        kernel, stride, dilation = (tuple(map(int, generator.integers(1, n, spatial))) for n in (4, 4, 3))
        extent = tuple(map(int, generator.integers(5, 7, spatial)))
        pads = tuple((int(a), int(b)) for a, b in generator.integers(0, 3, (spatial, 2)))
        cases.append((Conv(rand(4, 4 // groups, *kernel), rand(4), stride, pads, dilation, groups), (4, *extent)))
        cut = tuple(
            (min(a, 1) if k * d > 1 else 0, min(b, 1)) for (a, b), k, d in zip(pads, kernel, dilation, strict=True)
        )
        more = tuple(map(int, generator.integers(0, 2, spatial)))
        weight = rand(4, 2, *kernel)
        cases.append(
            (ConvTranspose(weight, rand(2 * groups), stride, cut, more, dilation, groups), (4, *[3] * spatial))
        )
    return cases


def contains(ball: arb, value: Fraction) -> bool:
    """Whether the exact value lies in the ball."""
    with ctx.workprec(4000):  # a quotient that is exact, or a ball far smaller than any other here
        return bool(ball.contains(arb(value.numerator) / value.denominator))


def cases() -> list[Case]:
    """All but those whose output is a scalar, for which there is no matrix."""
    return [(op, shape) for op, shape in (*simple_cases(), *convolutions()) if getattr(op, "shape", None) != ()]


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case[0].kind}-{case[1]}")
def test_an_operator_as_explicit_sums_encloses_its_exact_matrix(case: Case) -> None:
    op, shape = case
    matrix, offset = affine_map(op, shape)
    out_shape = tuple(op.apply(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    is_mean = isinstance(op, AveragePool) or (isinstance(op, Reduce) and op.mean)
    share = Fraction(1, math.prod(op.kernel)) if isinstance(op, AveragePool) else None
    if isinstance(op, Reduce) and op.mean:
        share = Fraction(math.prod(out_shape), math.prod(shape))
    if is_mean:  # the matrix was computed in float64
        assert share is not None
        matrix = [dict.fromkeys(row, share) for row in matrix]
    torch.manual_seed(5)
    x, v = rand(*shape), rand(2, *out_shape)
    with precisely():
        map_ = explicit(op, shape, out_shape)
        image = map_.linear(balls(x.flatten().tolist()))
        bias = balls([0.0] * len(offset)) if map_.bias is None else map_.bias
        back = map_.adjoint(balls(v.flatten().tolist(), (2, -1)))
        magnitude = map_.absolute().linear(balls(x.abs().flatten().tolist()))
        for ball, value in zip(image, multiply(matrix, exactly(x)), strict=True):
            assert contains(ball, value)
        for ball, value in zip(bias, offset, strict=True):
            assert contains(ball, value)
        whole = [{j: abs(c) for j, c in row.items()} for row in matrix]
        for ball, value in zip(magnitude, multiply(whole, exactly(x.abs())), strict=True):
            assert contains(ball, value)
        for row, given in zip(back, v, strict=True):
            exact = [Fraction(0)] * x.numel()
            for coefficients, weight in zip(matrix, exactly(given), strict=True):
                for j, c in coefficients.items():
                    exact[j] += c * weight
            assert all(contains(ball, value) for ball, value in zip(row, exact, strict=True))
        assert max(float(ball.rad()) for ball in [*image, *back.ravel()]) < 1e-30


def test_a_derived_constant_is_a_ball_around_what_is_held() -> None:
    """|c - h| <= gamma_k |h| + E."""
    gamma = Fraction(4, 2**53) / (1 - Fraction(4, 2**53))
    weight, doubt = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[2.0**-40]], dtype=torch.float64)
    with precisely():
        for error, width in (({}, Fraction(0)), ({"weight": doubt}, Fraction(1, 2**40))):
            op = Linear(weight, roundings=4, doubt=error)
            ((held,),) = constants(op, "weight")
            (image,) = explicit(op, (1,), (1,)).linear(balls([1.0]))
            for c in (3 * (1 + gamma) + width, 3 * (1 - gamma) - width, Fraction(3)):
                assert contains(held, c)
                assert contains(image, c)
            assert float(held.rad()) < 25 * 2.0**-53 + 1.01 * float(width)
        padded = explicit(Pad(((1, 0),), 0.5, doubt={"value": torch.tensor(0.25)}), (1,), (2,))
        assert padded.bias is not None
        assert contains(padded.bias[0], Fraction(3, 4))
        assert contains(padded.bias[0], Fraction(1, 4))
        assert padded.bias[1].is_zero()


def test_nothing_is_claimed_of_a_constant_of_which_nothing_is_known() -> None:
    with precisely():
        op = Linear(torch.tensor([[3.0]], dtype=torch.float64), roundings=HOPELESS)
        ((held,),) = constants(op, "weight")
        assert not held.is_finite()


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case[0].kind}-{case[1]}")
def test_middles_and_their_doubt_enclose_every_operator_within_the_balls(case: Case) -> None:
    op, shape = case
    op = dataclasses.replace(op, roundings=3)
    out_shape = tuple(op.apply(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    torch.manual_seed(7)
    x = exactly(rand(*shape))
    with precisely():
        map_ = explicit(op, shape, out_shape)
        doubt = [rational(value) for value in map_.doubt(balls(map(abs, map(float, x))))]
        middle = map_.middle
        assert (middle is map_) == all(ball.is_exact() for ball in numbers_of(map_))
        assert middle.middle is middle
        held = value_of(middle, x, lambda ball: rational(ball.mid()))
        for side in (-1, 1):  # all numbers at their ends, and each at one of its own
            for end in (lambda ball: side, lambda ball: random.choice((-1, 1))):  # noqa: B023
                there = value_of(map_, x, lambda ball: rational(ball.mid()) + end(ball) * rational(ball.rad()))  # noqa: B023
                assert all(abs(a - b) <= most for a, b, most in zip(there, held, doubt, strict=True))


def test_the_doubt_of_an_operator_is_no_more_than_its_balls_say() -> None:
    """One number below it there are constants whose value is further away."""
    weight, shift = torch.tensor([[3.0, -0.1]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    error = {"bias": torch.tensor([2.0**-30], dtype=torch.float64)}
    with precisely():
        map_ = explicit(Linear(weight, shift, roundings=5, doubt=error), (2,), (1,))
        (found,) = map_.doubt(balls([0.25, 2.0]))
        a, b, c = (rational(ball.rad()) for ball in numbers_of(map_))
        exact = a / 4 + 2 * b + c
        assert exact <= rational(found) <= exact * (1 + Fraction(1, 2**100))
        scaled = explicit(ScaleShift(torch.tensor([0.3], dtype=torch.float64), None, roundings=2), (1,), (1,))
        (found,) = scaled.doubt(balls([5.0]))
        exact = 5 * rational(next(iter(numbers_of(scaled))).rad())
        assert exact <= rational(found) <= exact * (1 + Fraction(1, 2**100))


def numbers_of(map_: Map) -> list[arb]:
    """All balls of an operator."""
    arrays = (*(block.matrix for block in map_.blocks), map_.scale, map_.bias)
    return [ball for array in arrays if array is not None for ball in array.ravel()]


def rational(value: arb) -> Fraction:
    """An exact ball."""
    assert value.is_exact()
    mantissa, exponent = value.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def value_of(map_: Map, x: list[Fraction], number: Callable[[arb], Fraction]) -> list[Fraction]:
    """b + s K x, with a rational ``number`` for each ball."""
    out = [Fraction(0)] * map_.sizes[1]
    for block in map_.blocks:
        ones = np.array([[Fraction(1)]], dtype=object)
        k = ones if block.matrix is None else np.vectorize(number, otypes=[object])(block.matrix)
        for sources, targets in zip(block.inputs, block.outputs, strict=True):
            for i, target in enumerate(targets):
                if target >= 0:
                    out[target] += sum(k[i, j] * x[s] for j, s in enumerate(sources) if s >= 0)
    if map_.scale is not None:
        out = [number(s) * y for s, y in zip(map_.scale, out, strict=True)]
    return out if map_.bias is None else [y + number(b) for b, y in zip(map_.bias, out, strict=True)]
