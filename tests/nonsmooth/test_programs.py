"""The notebook's programs: zero everywhere, with the exact derivatives of the fact list."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zonocuda.nonsmooth import programs

# Derivative with x1 = 1.14 everywhere, by dtype: half a unit in the last place of 1.14 (fp16: one unit is 2^-10).
COMPENSATION = {torch.float16: -(2.0**-12), torch.bfloat16: 0.0, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
EACH_DTYPE = pytest.mark.parametrize("dtype", programs.DTYPES, ids=str)


@EACH_DTYPE
def test_equal_inputs_are_compensation(dtype: torch.dtype) -> None:
    for program, sign in ((programs.zero, 1), (programs.zero_relu, -1)):
        rows = programs.table(program, programs.equal_inputs)[dtype]
        assert rows == [(0.0, sign * COMPENSATION[dtype])] * len(programs.POINTS)


@EACH_DTYPE
def test_different_inputs_are_bifurcation_at_zero_alone(dtype: torch.dtype) -> None:
    for program, sign in ((programs.zero, -1), (programs.zero_relu, 1)):
        rows = programs.table(program, programs.different_inputs)[dtype]
        assert rows == [(0.0, sign * 1.5 if t == 0 else 0.0) for t in programs.POINTS]


@EACH_DTYPE
@pytest.mark.parametrize("program", [programs.zero, programs.zero_relu])
def test_the_programs_are_zero_for_many_numbers(program: programs.Program, dtype: torch.dtype) -> None:
    """Small whole numbers, with which no operation rounds; with others zero_relu may round its mean."""
    for _ in range(50):
        t, x = torch.randint(-8, 9, (1,)).to(dtype), torch.randint(-8, 9, (4,)).to(dtype)
        assert program(t, x).item() == 0


def derivative(f: programs.Callable[[Tensor], Tensor], t: float, dtype: torch.dtype) -> float:
    leaf = torch.tensor(t, dtype=dtype, requires_grad=True)
    return torch.autograd.grad(f(leaf), leaf)[0].item()


@EACH_DTYPE
@pytest.mark.parametrize(("function", "at_zero"), [(torch.relu, 0.0), (programs.relu2, 1.0), (programs.relu3, 0.5)])
def test_three_relus_differ_at_zero_alone(
    function: programs.Callable[[Tensor], Tensor], at_zero: float, dtype: torch.dtype
) -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.25, 3.0], dtype=dtype)
    assert torch.equal(function(x), torch.relu(x))
    assert [derivative(function, t, dtype) for t in x.tolist()] == [0, 0, at_zero, 1, 1]


@EACH_DTYPE
@pytest.mark.parametrize("s", [0.0, 1.0, 3.0, -2.0])
def test_identity_has_the_derivative_one_minus_s_at_zero(s: float, dtype: torch.dtype) -> None:
    for t in (-1.5, 0.0, 2.0):
        assert programs.identity(torch.tensor(t, dtype=dtype), s).item() == t
        assert derivative(lambda u: programs.identity(u, s), t, dtype) == (1 - s if t == 0 else 1)


@EACH_DTYPE
def test_compensation_moves_the_derivative_where_it_is_told_to(dtype: torch.dtype) -> None:
    f = lambda t: t * t  # noqa: E731
    moved = programs.compensation(f, at=(0.5, 2.0), amount=7.0)
    for t in (-1.0, 0.0, 0.5, 1.0, 2.0):
        assert moved(torch.tensor(t, dtype=dtype)).item() == t * t
        assert derivative(moved, t, dtype) == 2 * t + (7 if t in (0.5, 2.0) else 0)


def test_zero_relu_wants_four_numbers() -> None:
    with pytest.raises(ValueError, match=r"zero_relu: x must have shape \[4\], got \[3\]"):
        programs.zero_relu(torch.ones(1), torch.ones(3))
