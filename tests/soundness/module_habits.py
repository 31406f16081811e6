"""Random modules with bad habits: they write to their input, to views of it and to what they returned before.

Each has a twin that computes the same and writes nowhere. What ``verify`` says of the module must be true of the twin:
no point of the box is unsafe where it is ``verified``; where it is ``falsified``, the point that is reported lies in
the box, is unsafe, and has the output that is reported, bit for bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify

INPUTS = 2
Step = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""What the module does, and its twin."""


def habits(rng: random.Random) -> dict[str, Step]:
    """Steps by name, with constants of their own."""
    c, k = rng.choice((-1.5, -0.25, 0.5, 2.0)), rng.randrange(INPUTS)
    rest = torch.ones(INPUTS)
    rest[k] = 0
    weight = torch.tensor([[rng.choice((-1.0, 0.5, 2.0)) for _ in range(INPUTS)] for _ in range(INPUTS)])
    kept: dict[tuple[int, torch.dtype], Tensor] = {}

    def column(x: Tensor) -> Tensor:
        x[:, k] = c
        return x

    def slice_of(x: Tensor) -> Tensor:
        x[:, k].sub_(c)
        return x

    def view(x: Tensor) -> Tensor:
        x.view(-1).mul_(c)
        return x

    def reused(x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return x * c
        return torch.mul(x, c, out=kept.setdefault((len(x), x.dtype), torch.empty_like(x)))

    def only(x: Tensor) -> Tensor:
        return (1 - rest).to(x.dtype)

    return {
        "add_": (lambda x: x.add_(c), lambda x: x + c),
        "mul_": (lambda x: x.mul_(c), lambda x: x * c),
        "relu_": (torch.relu_, torch.relu),
        "column": (column, lambda x: x * rest.to(x.dtype) + c * only(x)),
        "slice": (slice_of, lambda x: x - c * only(x)),
        "view": (view, lambda x: x * c),
        "reused": (reused, lambda x: x * c),
        "linear": (lambda x: x @ weight.to(x.dtype), lambda x: x @ weight.to(x.dtype)),
        "alias": (lambda x: x[:], lambda x: x),
    }


class Habits(nn.Module):
    """Steps one after the other, and the sum of the features."""

    def __init__(self, steps: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x.sum(1, keepdim=True)


def never_above(bound: float) -> Spec:
    """x in [-1, 1]^2; Y_0 >= bound is unsafe."""
    row = LinearConstraint({0: Fraction(-1)}, {}, Fraction(bound))
    box = Box.exact([Fraction(-1)] * INPUTS, [Fraction(1)] * INPUTS)
    return Spec(INPUTS, 1, (Region(box, ((row,),)),), (INPUTS,))


def trial(seed: int, shift: float = 0.0) -> tuple[str, str]:
    """One module and one property: what was said, and what is wrong with it (nothing, if that is empty).

    ``shift``: the twin computes this much more; that some trial sees it says that they can fail.
    """
    rng = random.Random(f"habits {seed}")
    drawn = [rng.choice(list(habits(rng).items())) for _ in range(rng.randint(1, 4))]
    names = [name for name, _ in drawn]
    module, twin = (Habits([pair[side] for _, pair in drawn]).eval() for side in (0, 1))
    grid = torch.cartesian_prod(*(torch.linspace(-1, 1, 17) for _ in range(INPUTS)))
    with torch.no_grad():
        largest = float(twin(grid.double()).max()) + shift
    bound = largest - shift + rng.choice((-0.5, -0.125, 0.125, 0.5))
    try:
        result = verify(module, never_above(bound), input_shape=(INPUTS,), timeout=20.0)
    except ValueError as error:
        return f"refused: {type(error).__name__}", ""
    wrong = ""
    if result.verdict is Verdict.VERIFIED and bound <= largest:
        wrong = f"verified below {bound}, but {largest} is attained"
    if result.verdict is Verdict.FALSIFIED:
        found = result.counterexample
        assert found is not None
        with torch.no_grad():
            own = twin(found.x[None].clone()) + shift
        if not (float(found.x.abs().max()) <= 1 and float(own) >= bound and float(found.y) == float(own)):
            wrong = f"falsified at {found.x.tolist()} with {found.y.tolist()}, where the twin has {own.tolist()}"
    return str(result.verdict), f"seed {seed}, {names}, bound {bound}: {wrong}" if wrong else ""
