"""Certificates: given where a theorem gives one, withheld where a gradient is known to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zonocuda import nonsmooth
from zonocuda.nonsmooth import programs
from zonocuda.nonsmooth.conventions import Convention
from zonocuda.nonsmooth.directions import Row, has_direction, independent
from zonocuda.nonsmooth.results import Certificate

FIRST = Convention()


def certificate(model: nn.Module, x: Tensor, a: Convention = FIRST) -> Certificate:
    """Of the gradient of the sum of the outputs."""
    report = nonsmooth.audit(model, x, lambda y: y.sum(), a=a, progress=False, batch_size=len(x))
    (only,) = report.dtypes[0].certificates
    return only


def linear(weight: list[list[float]], bias: list[float] | None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def relu_network(bias: bool = True) -> nn.Sequential:
    """Two neurons; the first is 0 for inputs on the diagonal."""
    return nn.Sequential(linear([[1.0, -1.0], [1.0, 1.0]], [0.0, 0.0] if bias else None), nn.ReLU())


DIAGONAL = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])


def test_without_a_tie_the_gradient_is_the_derivative() -> None:
    found = certificate(relu_network(), torch.tensor([[1.0, 2.0]]))
    assert (found.verdict, found.theorem) == ("differentiable", "chain rule")


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_bias_for_each_neuron_certifies_any_consistent_choice(alpha: float) -> None:
    found = certificate(relu_network(), DIAGONAL, Convention(relu=alpha))
    assert found.verdict == "subgradient"
    assert "Theorems 4 and 6" in found.theorem


@pytest.mark.parametrize("alpha", [-0.5, 1.5])
def test_a_choice_outside_of_the_one_sided_derivatives_is_not_certified(alpha: float) -> None:
    found = certificate(relu_network(), DIAGONAL, Convention(relu=alpha))
    assert found.verdict == "unknown"
    assert "lies outside of the one-sided derivatives" in found.reason


def test_without_a_bias_linearly_independent_inputs_certify() -> None:
    x = torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 1.0]])
    model = nn.Sequential(linear([[1.0, -1.0, 0.0]], None), nn.ReLU())
    found = certificate(model, x, Convention(relu=0.5))
    assert found.verdict == "subgradient"
    assert "Theorem 5" in found.theorem


def test_without_a_bias_dependent_inputs_of_one_side_have_a_direction() -> None:
    found = certificate(relu_network(bias=False), DIAGONAL)
    assert found.verdict == "subgradient"
    assert "Theorem 8" in found.theorem


def test_opposite_inputs_without_a_bias_are_not_certified_and_their_gradient_is_wrong() -> None:
    """f(w) = relu(w) + relu(-w) = |w| at w = 0: alpha = 0 gives 0, which is a subgradient by luck; alpha = 1 gives 0.

    g(w) = relu(w) - relu(-w) = w: alpha = 0 gives 0, and the derivative is 1: no theorem may say otherwise.
    """

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear([[0.0]], None)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.linear(x))
            return y[:1] - y[1:]

    model, x = Difference(), torch.tensor([[1.0], [-1.0]])
    assert torch.autograd.grad(model(x).sum(), model.linear.weight)[0].item() == 0  # the derivative is 1
    found = certificate(model, x)
    assert found.verdict == "unknown"
    assert "no direction was found" in found.reason


def test_a_shared_bias_is_not_a_bias_of_its_own() -> None:
    class Shared(nn.Module):
        """relu(b) - relu(-b) with one bias: b as a program, whose autodiff derivative at 0 is 0."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))
            self.weight = nn.Parameter(torch.zeros(1, 1))

        def forward(self, x: Tensor) -> Tensor:
            plus = torch.relu(nn.functional.linear(x, self.weight, self.bias))
            return plus - torch.relu(-nn.functional.linear(x, self.weight, self.bias))

    assert certificate(Shared(), torch.zeros(1, 1)).verdict == "unknown"


def test_two_functions_of_one_input_are_not_certified() -> None:
    """2 relu(y) - |y| is y; with ReLU'(0) = 0 and the right derivative of |y|, autodiff says -1."""

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear([[1.0]], [0.0])

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            return 2 * torch.relu(y) - torch.abs(y)

    found = certificate(Line(), torch.zeros(1, 1), Convention(abs=1.0))
    assert found.verdict == "unknown"
    assert "read by another recorded function" in found.reason


def test_relu2_minus_relu_is_not_certified() -> None:
    """The identically zero program with the derivative 1."""

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear([[1.0]], [0.0])

        def forward(self, x: Tensor) -> Tensor:
            return nonsmooth_zero(self.linear(x))

    def nonsmooth_zero(t: Tensor) -> Tensor:
        return torch.relu(-t) + t - torch.relu(t)

    model = Zero()
    assert torch.autograd.grad(model(torch.zeros(1, 1)).sum(), model.linear.bias)[0].item() == 1
    assert certificate(model, torch.zeros(1, 1)).verdict == "unknown"


class Program(nn.Module):
    """A function of the output y of a linear layer, which is 0 for both samples."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = linear([[1.0]], [0.0])
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


class Reversed(torch.autograd.Function):
    """The identity, with a derivative of -1."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


def without_gradient(y: Tensor) -> Tensor:
    with torch.no_grad():
        return (y > 0).to(y.dtype)


def hooked(y: Tensor) -> Tensor:
    y.register_hook(lambda grad: 2 * grad)
    return y


def turned(y: Tensor) -> Tensor:
    """relu(y) - relu(-y), which is y, with the sign of the second sample written into y in place."""
    y = torch.relu(y.mul_(torch.tensor([[1.0], [-1.0]])))
    return y[:1] - y[1:]


NOT_DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": lambda y: y * y.detach(),
    "data": lambda y: y * y.data,
    "a mask behind detach": lambda y: y * (y.detach() > 0),
    "a mask without gradients": lambda y: y * without_gradient(y),
    "a branch on a list": lambda y: y if y.tolist()[0][0] > 0 else 2 * y,
    "a branch on a number": lambda y: y if y.sum() > 0 else 2 * y,
    "argmax": lambda y: torch.cat([y, -y], 1).gather(1, torch.cat([y, -y], 1).argmax(1, keepdim=True)),
    "an integer": lambda y: y + y.long(),
    "selu": F.selu,
    "elu with another slope": lambda y: F.elu(y, 0.5),
    "prelu": lambda y: F.prelu(y, torch.full((1,), 0.25)),
    "norm": torch.norm,
    "std": lambda y: y.std(),
    "cdist": lambda y: torch.cdist(y, torch.zeros(1, 1)),
    "a root of 0": lambda y: y.square().sqrt(),
    "an autograd function": Reversed.apply,
    "a hook": hooked,
    "an output overwritten": turned,
}


@pytest.mark.parametrize("name", NOT_DERIVATIVES)
def test_programs_whose_autodiff_derivative_may_be_wrong_are_not_certified(name: str) -> None:
    found = certificate(Program(NOT_DERIVATIVES[name]), torch.zeros(2, 1))
    assert found.verdict == "unknown"


@pytest.mark.parametrize("program", [programs.zero, programs.zero_relu])
def test_the_zero_programs_are_not_certified_where_their_derivative_is_wrong(program: programs.Program) -> None:
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.t = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return program(self.t, x[0])

    assert programs.derivative(program, 0.0, torch.tensor([1.0, 2.0, 3.0, 4.0]))[1] != 0
    assert certificate(Zero(), torch.tensor([[1.0, 2.0, 3.0, 4.0]])).verdict == "unknown"


SMOOTH: dict[str, nn.Module] = {
    "transformer": nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True, activation="gelu"),
    "convolutions": nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten()
    ),
    "activations": nn.Sequential(nn.LayerNorm(8), nn.ELU(), nn.CELU(0.5), nn.Softplus(), nn.Mish(), nn.Softmax(-1)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_programs_are_differentiable(name: str) -> None:
    found = certificate(nn.Sequential(nn.Linear(8, 8), SMOOTH[name]), torch.randn(3, 5, 8))
    assert found.verdict == "differentiable", found.reason


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (lambda y: nonsmooth.relu(y, 0.5), torch.relu),
        (lambda y: nonsmooth.leaky_relu(y, 0.25, 1.0), lambda y: F.leaky_relu(y, 0.25)),
        (lambda y: nonsmooth.abs(y, 0.5), torch.abs),
        (lambda y: nonsmooth.maximum(y, -y, 1.0), lambda y: torch.maximum(y, -y)),
        (lambda y: nonsmooth.max(y, 0, "last"), lambda y: torch.max(y, 0).values),
        (
            lambda y: nonsmooth.max_pool2d(y.reshape(1, 1, 2, 1), (2, 1), ties="even"),
            lambda y: F.max_pool2d(y.reshape(1, 1, 2, 1), (2, 1)),
        ),
    ],
)
def test_functions_with_a_chosen_derivative_are_audited_as_torchs(
    ours: Callable[[Tensor], Tensor], torchs: Callable[[Tensor], Tensor]
) -> None:
    reports = [
        nonsmooth.audit(Program(f), torch.zeros(2, 1), lambda y: y.square().sum() + 3 * y.sum(), progress=False)
        for f in (ours, torchs)
    ]
    mine, theirs = (r["float32"] for r in reports)
    assert (mine.total, mine.layers, mine.unrecorded) == (theirs.total, theirs.layers, {})
    assert mine.total.ties > 0
    assert mine.certificates[0].verdict in (theirs.certificates[0].verdict, "unknown")


def pooled(weight: list[float], x: list[list[float]], bias: bool = True) -> tuple[nn.Sequential, Tensor]:
    """A 1x1 convolution of two channels, ReLU and pooling over two pixels."""
    conv = nn.Conv2d(len(x), 1, 1, bias=bias)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(weight).reshape(1, -1, 1, 1))
        if bias:
            conv.bias.zero_()
    return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d((1, 2))), torch.tensor(x).reshape(1, len(x), 1, 2)


def test_a_tie_of_different_inputs_has_a_direction() -> None:
    model, x = pooled([1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]])
    for rule in ("first", "last"):
        found = certificate(model, x, Convention(max_pool=rule))  # type: ignore[arg-type]
        assert found.verdict == "subgradient"
        assert "Theorem 8" in found.theorem


def test_an_even_share_is_beyond_theorem_8() -> None:
    model, x = pooled([1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]])
    assert "picks one winner" in certificate(model, x, Convention(max_pool="even")).reason


def test_equal_inputs_and_dead_windows_are_interchangeable() -> None:
    for weight, values in ((1.0, [[2.0, 2.0]]), (-1.0, [[2.0, 3.0]])):
        model, x = pooled([weight], values)
        assert certificate(model, x).verdict == "subgradient"
        assert bool((model[:2](x) == (2 if weight > 0 else 0)).all())


def test_choices_that_contradict_each_other_have_no_direction() -> None:
    """Two windows that are mirror images: no direction makes the first pixel of both the larger one."""
    conv = nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.zero_()
    x = torch.tensor([[[[1.0, 2.0, 2.0, 1.0]], [[2.0, 1.0, 1.0, 2.0]]]])
    found = certificate(nn.Sequential(conv, nn.MaxPool2d((1, 2))), x)
    assert found.verdict == "unknown"
    assert "no direction was found" in found.reason


# ---- the linear algebra ----------------------------------------------------------------------------------------------


def rank(rows: Tensor) -> int:
    """By elimination over the rationals."""
    matrix = [[Fraction(v) for v in row] for row in rows.tolist()]
    found = 0
    for column in range(rows.shape[1]):
        pivot = next((i for i in range(found, len(matrix)) if matrix[i][column] != 0), None)
        if pivot is None:
            continue
        matrix[found], matrix[pivot] = matrix[pivot], matrix[found]
        for i in range(found + 1, len(matrix)):
            factor = matrix[i][column] / matrix[found][column]
            matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[found], strict=True)]
        found += 1
    return found


@pytest.mark.parametrize("seed", range(20))
def test_independence_is_that_of_exact_elimination(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    if seed % 2:
        rows[5] = rows[1] * 0.5 - rows[3] * 2  # powers of two: nearly exact, but rounding may make it independent
    assert independent(rows) == (rank(rows) == 6)


def test_independence_sees_the_last_bit_and_exact_multiples() -> None:
    row = torch.tensor([1.0, 0.1, 1e-300, 1e300], dtype=torch.float64)
    assert not independent(torch.stack([row, row * 2]))
    other = row * 2
    other[1] = np.nextafter(0.2, 1)
    assert independent(torch.stack([row, other]))
    assert not independent(torch.zeros(1, 3))
    assert not independent(torch.ones(3, 2))
    assert not independent(torch.tensor([[float("nan"), 1.0]]))


def test_a_direction_is_found_where_there_is_one_and_never_else() -> None:
    a, b = np.array([1.0, 0.1]), np.array([-0.5, 3.0])
    assert has_direction([Row(a), Row(b)])
    assert not has_direction([Row(a), Row(-a)])
    assert not has_direction([Row(np.zeros(2))])
    assert not has_direction([Row(a, 1.0, a, 1.0)])
    assert has_direction([Row(a, 1.0, a, 0.5)])
    third = -(a + b)
    assert not has_direction([Row(a), Row(b), Row(third)])
