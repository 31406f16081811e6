"""A counterexample counts only where the module computes it again, from the reported point, alone.

The point, the right output and the right verdict of every case are in its comment or its expression.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import zonocuda
from tests.importers.modules import Apply
from zonocuda.importers import NetworkMismatchError, UnsupportedNetworkError
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, VerifyResult, verify


def unsafe_above(bound: Fraction, lower: float = -1.0, upper: float = 1.0) -> Spec:
    """x in [lower, upper]; Y_0 >= bound is unsafe."""
    row = LinearConstraint({0: Fraction(-1)}, {}, bound)
    box = Box.exact([Fraction(lower)], [Fraction(upper)])
    return Spec(1, 1, (Region(box, ((row,),)),), (1,))


class InPlace(nn.Module):
    """x + 1, written to the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


class View(nn.Module):
    """The input itself, as a view of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:]


class Reused(nn.Module):
    """2 x, in a tensor that every call overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return x * 2
        kept = self.store.setdefault(len(x), torch.empty_like(x))
        return torch.mul(x, 2, out=kept)


@pytest.mark.parametrize(("module", "largest"), [(InPlace(), 2), (View(), 1), (Reused(), 2)])
def test_the_point_that_is_reported_is_the_one_that_was_executed(module: nn.Module, largest: int) -> None:
    found = verify(module, unsafe_above(Fraction(largest) - Fraction(1, 2)))
    assert found.verdict is Verdict.FALSIFIED
    assert found.counterexample is not None
    x, y = found.counterexample.x.item(), found.counterexample.y.item()
    assert -1 <= x <= 1
    own = module(torch.tensor([[x]])).item()
    assert y == own == (x + 1 if isinstance(module, InPlace) else x * largest)
    assert y >= largest - 0.5
    assert verify(module, unsafe_above(Fraction(largest) + Fraction(1, 100))).verdict is Verdict.VERIFIED


class Hostile(nn.Module):
    """x when it is traced and for ``calls`` calls; then something else."""

    def __init__(self, kind: str, calls: int = 0) -> None:
        super().__init__()
        self.kind, self.left = kind, calls
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return x * 1
        self.left -= 1
        if self.left >= 0:
            return x * 1
        if self.kind == "random":
            return x + 10 * torch.rand(x.shape, generator=self.generator)
        if self.kind == "drifts":
            return x + 10 - self.left
        if self.kind == "alternates":
            return x + 10 * (self.left % 2)
        if self.kind == "raises":
            raise KeyError("gone")
        if self.kind == "another shape":
            return torch.cat([x, x], 1)
        if self.kind == "another type":
            return [x, x]  # type: ignore[return-value]
        return x + 10  # for good


KINDS = ("random", "drifts", "alternates", "raises", "another shape", "another type", "for good")


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_that_changes_its_mind_is_never_falsified_by_what_it_did_once(kind: str) -> None:
    """Y_0 >= 5 cannot be reached by the identity on [-1, 1], which is what is traced and compared: 6 calls at the
    import and 19 on the box. What comes then is not the identity."""
    for calls in (0, 25):
        result = None
        try:
            result = verify(Hostile(kind, calls), unsafe_above(Fraction(5)))
        except (NetworkMismatchError, UnsupportedNetworkError):
            continue
        assert result.verdict is Verdict.VERIFIED


@pytest.mark.parametrize("kind", KINDS)
def test_a_counterexample_is_none_where_the_module_changes_its_mind(kind: str) -> None:
    """Y_0 >= 1/2 is reached by the identity; the first replay is another function."""
    with pytest.raises((NetworkMismatchError, UnsupportedNetworkError)):
        verify(Hostile(kind, 25), unsafe_above(Fraction(1, 2)))


class Batchwise(nn.Module):
    """x alone; in a larger batch, with what the others do to it."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() or len(x) == 1:
            return x * 1
        return x + x.abs().max()


def test_a_module_that_depends_on_the_batch_is_refused() -> None:
    with pytest.raises(NetworkMismatchError):
        verify(Batchwise(), unsafe_above(Fraction(3, 2)))


TRAINING: dict[str, nn.Module] = {
    "dropout": nn.Sequential(nn.Dropout(0.5), nn.Flatten()),
    "batch norm": nn.Sequential(nn.BatchNorm1d(1), nn.Flatten()),
    "a dropout of its own": Apply(lambda x: nn.functional.dropout(x, 0.5, True)),
    "random numbers": Apply(lambda x: x + torch.rand(1)),
    "batch statistics": Apply(lambda x: nn.functional.batch_norm(x, None, None, training=True)),
}


@pytest.mark.parametrize("name", TRAINING)
def test_a_module_in_training_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedNetworkError):
        verify(TRAINING[name].train(), unsafe_above(Fraction(5)))


class Counts(nn.Module):
    """x, and a buffer that counts."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        if not (self.hidden and torch.compiler.is_exporting()):
            self.calls += 1
        return x * 1


def test_a_module_that_writes_to_its_buffer_is_refused_where_torch_sees_it() -> None:
    with pytest.raises(UnsupportedNetworkError, match="writes to its buffer 'calls'"):
        verify(Counts(hidden=False), unsafe_above(Fraction(5)))
    assert verify(Counts(hidden=True), unsafe_above(Fraction(5))).verdict is Verdict.VERIFIED


def test_a_float64_module_is_replayed_at_the_point_itself() -> None:
    """y = (x - 0.1) 2^40 in float64: at the float32 next to 0.1 it is 1638.4; in float32 it would be 0."""
    module = nn.Linear(1, 1).double()
    with torch.no_grad():
        module.weight.fill_(2.0**40)
        module.bias.fill_(-0.1 * 2.0**40)
    point = torch.tensor(0.1).item()
    spec = unsafe_above(Fraction(1000), point, point)
    found = verify(module, spec)
    assert found.verdict is Verdict.FALSIFIED
    assert found.counterexample is not None
    assert found.counterexample.y.dtype == torch.float64
    assert found.counterexample.y.item() == point * 2.0**40 - 0.1 * 2.0**40


def test_what_the_caller_sets_for_torch_does_not_change_the_verdict() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
    values = module(torch.linspace(-1, 1, 201).reshape(-1, 1)).flatten()
    attained = unsafe_above(Fraction(values.max().item()) - Fraction(1, 1000))
    safe = unsafe_above(Fraction(values.max().item()) + Fraction(1, 10))

    def verdicts() -> list[Verdict]:
        found: list[VerifyResult] = [verify(module, spec, effort="max") for spec in (attained, safe)]
        return [one.verdict for one in found]

    expected = [Verdict.FALSIFIED, Verdict.VERIFIED]
    with torch.inference_mode():
        assert verdicts() == expected
    with torch.no_grad():
        assert verdicts() == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert verdicts() == expected
    with torch.device("meta"):
        assert verdicts() == expected
    before = torch.get_default_dtype()
    for dtype in (torch.float64, torch.float16):
        torch.set_default_dtype(dtype)
        try:
            assert verdicts() == expected
        finally:
            torch.set_default_dtype(before)


def test_bounds_under_inference_mode_are_those_outside() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    plain = zonocuda.Zonotope.from_ball(torch.zeros(1, 3), 0.3)
    expected = zonocuda.compute_bounds(module, plain).lower
    optimised = zonocuda.optimize_bounds(module, plain, torch.eye(2)).lower
    with torch.inference_mode():
        zonotope = zonocuda.Zonotope.from_ball(torch.zeros(1, 3), 0.3)
        assert torch.equal(zonocuda.compute_bounds(module, zonotope).lower, expected)
        found = zonocuda.optimize_bounds(module, zonotope, torch.eye(2))
        assert torch.equal(found.lower, optimised)
    for mode in ("dual", "forward"):  # what inference mode made, outside
        zonocuda.optimize_bounds(module, zonotope, torch.eye(2), mode=mode)  # type: ignore[arg-type]
