"""Certificates against brute force: what is certified lies in the Clarke subdifferential of small networks.

The subdifferential is the convex hull of the limits of gradients. Around the parameters thousands of points are drawn,
at distances that differ by orders of magnitude from layer to layer; the routing of each (the signs, the winners) gives
one limit: the gradient at the parameters themselves along that routing. The parameters are small whole numbers, so that
ties are many and nothing is rounded. Whether a gradient lies in the hull is a linear program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Tensor, nn

from zonocuda import nonsmooth
from zonocuda.nonsmooth.conventions import Convention
from zonocuda.nonsmooth.results import Certificate

POINTS, RADIUS, ORDERS = 2000, 1e-3, 5
WINDOW = 2  # of poolings along the last axis, with stride 1


def windows_of(x: Tensor) -> Tensor:
    return torch.stack([x[..., i : x.shape[-1] - WINDOW + 1 + i] for i in range(WINDOW)], -1)


class Functions(Protocol):
    """The nonsmooth functions that a network is made of."""

    def line(self, x: Tensor, left: float) -> Tensor: ...
    def pool(self, x: Tensor) -> Tensor: ...


class Torch:
    """torch's own, which the audit sees."""

    def line(self, x: Tensor, left: float) -> Tensor:
        return torch.relu(x) if left == 0 else torch.abs(x) if left == -1 else F.leaky_relu(x, left)

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, (1, WINDOW), 1)


@dataclass
class Chosen:
    """The functions with the derivatives of a convention."""

    convention: Convention

    def line(self, x: Tensor, left: float) -> Tensor:
        if left == 0:
            return nonsmooth.relu(x, self.convention.relu)
        if left == -1:
            return nonsmooth.abs(x, self.convention.abs)
        return nonsmooth.leaky_relu(x, left, self.convention.leaky_relu)

    def pool(self, x: Tensor) -> Tensor:
        return nonsmooth.max_pool2d(x, (1, WINDOW), 1, ties=self.convention.max_pool)


@dataclass
class Deciding:
    """Notes the routing: signs and winners."""

    routes: list[Tensor] = field(default_factory=list)

    def line(self, x: Tensor, left: float) -> Tensor:
        self.routes.append(x.sign().long())
        return torch.where(x > 0, x, left * x)

    def pool(self, x: Tensor) -> Tensor:
        windows = windows_of(x)
        winner = windows.argmax(-1, keepdim=True)
        self.routes.append(winner)
        return windows.gather(-1, winner).squeeze(-1)


@dataclass
class Following:
    """Takes the routing that it is given; a line that was at 0 has the slope ``at_zero`` there, NaN: any."""

    routes: list[Tensor]
    at_zero: float = 0.0

    def line(self, x: Tensor, left: float) -> Tensor:
        sign = self.routes.pop(0)
        slope = torch.rand_like(x) if self.at_zero != self.at_zero else self.at_zero
        return torch.where(sign > 0, x, torch.where(sign < 0, left * x, slope * x))

    def pool(self, x: Tensor) -> Tensor:
        return windows_of(x).gather(-1, self.routes.pop(0)).squeeze(-1)


Program = Callable[[Functions, Sequence[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """A scalar program of functions, parameters and data."""

    program: Program
    parameters: tuple[Tensor, ...]
    x: Tensor

    def gradient(self, functions: Functions) -> Tensor:
        leaves = [p.clone().requires_grad_() for p in self.parameters]
        value = self.program(functions, leaves, self.x)
        grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    def gradients(self, points: Sequence[Tensor], routes: Sequence[Tensor], at_zero: float = 0.0) -> Tensor:
        """One for each point, along the routing of the same place."""

        def value(point: Sequence[Tensor], route: Sequence[Tensor]) -> Tensor:
            return self.program(Following([*route], at_zero), point, self.x)

        grads = torch.func.vmap(torch.func.grad(value), randomness="different")(tuple(points), tuple(routes))
        return torch.cat([g.flatten(1) for g in grads], 1)

    def limits(self, generator: torch.Generator) -> Tensor:
        """The limits of gradients that were found, one in a row."""
        points = []
        for p in self.parameters:
            orders = torch.randint(ORDERS, (POINTS, *[1] * p.dim()), generator=generator)
            step = torch.randn(POINTS, *p.shape, generator=generator, dtype=p.dtype)
            points.append(p + RADIUS * 10.0**-orders * step)

        def route(*point: Tensor) -> list[Tensor]:
            deciding = Deciding()
            self.program(deciding, point, self.x)
            return deciding.routes

        routes = torch.func.vmap(route)(*points)
        keys = torch.cat([r.flatten(1) for r in routes], 1)
        chosen = np.unique(keys.numpy(), axis=0, return_index=True)[1]
        points, routes = [p[chosen] for p in points], [r[chosen] for r in routes]
        # A line may be at 0 on a whole neighbourhood, as one whose inputs are 0: there its slope changes nothing.
        near = [self.gradients(points, routes, at_zero) for at_zero in (0.0, 1.0, *[np.nan] * 3)]
        smooth = torch.stack([(g - near[0]).abs().amax(1) for g in near]).amax(0) <= 1e-12
        here = [p.expand(len(chosen), *p.shape) for p in self.parameters]
        return torch.unique(self.gradients(here, routes)[smooth], dim=0)

    def certificate(self, convention: Convention) -> Certificate:
        report = nonsmooth.audit(
            _Module(self),
            self.x,
            lambda y: y,
            a=convention,
            dtypes=(self.x.dtype,),
            progress=False,
            batch_size=len(self.x),
        )
        return report.dtypes[0].certificates[0]


class _Module(nn.Module):
    """The problem, for the audit."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.weights = nn.ParameterList([nn.Parameter(p.clone()) for p in problem.parameters])

    def forward(self, x: Tensor) -> Tensor:
        return self.problem.program(Torch(), list(self.weights), x)


def distance(point: Tensor, corners: Tensor) -> float:
    """How far a point lies from the convex hull of the rows of ``corners``, in the maximum norm."""
    count, length = corners.shape
    g = corners.numpy().T
    result = linprog(
        np.r_[np.zeros(count), 1.0],
        A_ub=np.block([[g, -np.ones((length, 1))], [-g, -np.ones((length, 1))]]),
        b_ub=np.r_[point.numpy(), -point.numpy()],
        A_eq=np.r_[np.ones(count), 0.0][None],
        b_eq=[1.0],
        method="highs",
    )
    assert result.status == 0
    return float(result.fun)


# ---- families of programs --------------------------------------------------------------------------------------------


def whole(generator: torch.Generator, *size: int, most: int = 1) -> Tensor:
    return torch.randint(-most, most + 1, size, generator=generator).double()


def dense(left: float, bias: bool, residual: bool = False) -> Callable[[torch.Generator], Problem]:
    """Two hidden layers; the outputs of a minibatch, weighted with both signs, and one square."""

    def make(generator: torch.Generator) -> Problem:
        count = int(torch.randint(1, 4, (), generator=generator))
        weights = [whole(generator, 2, 3), whole(generator, 3, 2), whole(generator, 3, 3)]
        biases = [whole(generator, 2), whole(generator, 3)] if bias else []
        mix = whole(generator, count, 3, most=2)

        def program(f: Functions, p: Sequence[Tensor], x: Tensor) -> Tensor:
            first, second = (p[3], p[4]) if bias else (None, None)
            y = f.line(F.linear(x, p[0], first), left)
            z = f.line(F.linear(y, p[1], second), left)
            z = F.linear(z + x if residual else z, p[2])
            return (mix * z).sum() + z.square().sum() / 4

        return Problem(program, (*weights, *biases), whole(generator, count, 3))

    return make


def convolution(line: bool, bias: bool) -> Callable[[torch.Generator], Problem]:
    """A convolution, perhaps ReLU, max pooling with windows that overlap, and a linear layer."""

    def make(generator: torch.Generator) -> Problem:
        count = int(torch.randint(1, 3, (), generator=generator))
        parameters = [whole(generator, 2, 1, 1, 2), whole(generator, 1, 2 * 2)]
        mix = whole(generator, count, 1, most=2)

        def program(f: Functions, p: Sequence[Tensor], x: Tensor) -> Tensor:
            y = F.conv2d(x, p[0], p[2] if bias else None)
            y = f.pool(f.line(y, 0.0) if line else y)
            return (mix * F.linear(y.flatten(1), p[1])).sum()

        biases = [whole(generator, 2)] if bias else []
        return Problem(program, (*parameters, *biases), whole(generator, count, 1, 1, 4))

    return make


def careless(generator: torch.Generator) -> Problem:
    """Programs that look like layers: weights used twice, biases that other layers read, outputs overwritten."""
    kind = int(torch.randint(5, (), generator=generator))
    sign = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    mix = whole(generator, 2, 2, most=2)

    def program(f: Functions, p: Sequence[Tensor], x: Tensor) -> Tensor:
        y = F.linear(x, p[0], p[1])
        if kind == 0:  # the bias moves the two samples in opposite directions
            y = f.line(y.mul(1).mul_(sign) if isinstance(f, Deciding | Following) else y.mul_(sign), 0.0)
        elif kind == 1:  # the same layer twice
            y = f.line(y, 0.0) - f.line(F.linear(-x, p[0], p[1]), 0.0)
        elif kind == 2:  # an earlier layer reads the later one's bias
            first = f.line(F.linear(x + f.line(p[3], -1.0) - 1, p[0], p[1]), 0.0)
            y = f.line(F.linear(first, p[2], p[3]), 0.0)
        elif kind == 3:  # a layer and its opposite
            y = f.line(y, 0.0) - f.line(-y, 0.0)
        else:  # two functions of one layer
            y = 2 * f.line(y, 0.0) - f.line(y, -1.0)
        return (mix * y).sum()

    parameters = (
        whole(generator, 2, 2),
        whole(generator, 2),
        whole(generator, 2, 2),
        -torch.ones(2, dtype=torch.float64),
    )
    return Problem(program, parameters, whole(generator, 2, 2))


RELUS = [Convention(relu=a) for a in (0.0, 0.25, 1.0)]
POOLS = [Convention(relu=a, max_pool=t) for a in (0.0, 1.0) for t in ("first", "last", "even")]  # type: ignore[arg-type]
FAMILIES: dict[str, tuple[Callable[[torch.Generator], Problem], list[Convention]]] = {
    "relu with biases": (dense(0.0, True), RELUS),
    "relu without biases": (dense(0.0, False), RELUS),
    "residual with biases": (dense(0.0, True, residual=True), RELUS),
    "leaky relu with biases": (dense(0.5, True), [Convention(leaky_relu=a) for a in (None, 0.75, 1.0)]),
    "leaky relu without biases": (dense(0.5, False), [Convention(leaky_relu=a) for a in (None, 0.75, 1.0)]),
    "abs with biases": (dense(-1.0, True), [Convention(abs=a) for a in (-1.0, 0.0, 1.0)]),
    "abs without biases": (dense(-1.0, False), [Convention(abs=a) for a in (-1.0, 0.0, 1.0)]),
    "pooling": (convolution(False, True), POOLS),
    "relu and pooling": (convolution(True, True), POOLS),
    "relu and pooling without biases": (convolution(True, False), POOLS),
    "careless": (careless, [Convention(relu=0.0), Convention(relu=0.0, abs=1.0), Convention(relu=1.0)]),
}
ALWAYS_RIGHT = {name for name in FAMILIES if name.endswith("with biases")}  # by Theorem 4


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_certified_lies_in_the_subdifferential(family: str) -> None:
    make, conventions = FAMILIES[family]
    found: Counter[tuple[str, bool]] = Counter()
    for seed in range(75 if family == "careless" else 40 if "pooling" in family else 13):
        generator = torch.Generator().manual_seed(seed)
        problem = make(generator)
        corners = problem.limits(generator)
        convention = conventions[seed % len(conventions)]
        gradient = problem.gradient(Chosen(convention))
        inside = distance(gradient, corners) < 1e-6
        given = problem.certificate(convention)
        found[given.verdict, inside] += 1
        assert inside or given.verdict == "unknown", (seed, given)
        if given.verdict == "differentiable":
            assert torch.equal(corners, gradient.expand_as(corners)), seed
        if family in ALWAYS_RIGHT:
            assert given.verdict != "unknown", (seed, given)
    assert found["subgradient", True] > 0 or family == "careless"
    assert found["unknown", False] > 0 or family in ALWAYS_RIGHT, "nothing that a certificate could be wrong about"


def test_the_hull_tells_a_subgradient_from_what_is_none() -> None:
    """|w| - 2 relu(w) + w is 0; with 0 for both derivatives at 0, autodiff says 1."""

    def program(f: Functions, p: Sequence[Tensor], x: Tensor) -> Tensor:
        return (f.line(p[0] * x, -1.0) - f.line(p[0] * x, 0.0) * 2 + p[0] * x).sum()

    problem = Problem(program, (torch.zeros(1, dtype=torch.float64),), torch.ones(1, 1, dtype=torch.float64))
    corners = problem.limits(torch.Generator().manual_seed(0))
    assert torch.equal(corners, torch.zeros(1, 1, dtype=torch.float64))
    assert distance(problem.gradient(Chosen(Convention(relu=0.0, abs=0.0))), corners) == pytest.approx(1)
    single = Problem(lambda f, p, x: f.line(p[0] * x, -1.0).sum(), problem.parameters, problem.x)
    corners = single.limits(torch.Generator().manual_seed(0))
    assert sorted(corners.flatten().tolist()) == [-1, 1]
    assert distance(single.gradient(Chosen(Convention(abs=0.5))), corners) == pytest.approx(0)
    assert distance(single.gradient(Chosen(Convention(abs=1.5))), corners) == pytest.approx(0.5)
