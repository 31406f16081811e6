"""What a module's numbers, casts and choices mean, where torch itself leaves it open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.importers.constant_programs import exact, root
from tests.importers.module_programs import TYPES, default_dtype, nearest, power
from tests.importers.ratios import ratio
from tests.thorough import few
from zonocuda.graph import HOPELESS, Linear, ScaleShift
from zonocuda.importers import NetworkMismatchError, NetworkOverflowError, UnsupportedNetworkError, from_module
from zonocuda.importers.aten import constants as aten_constants
from zonocuda.importers.constants.call import ConstantCall
from zonocuda.importers.constants.enclosure import Enclosure, cast, hull

VALUES = [0.1, -2.7, 1.5, 0.3]


@pytest.fixture(params=few(2, TYPES), ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """torch's default type, which is no part of what a network means."""
    with default_dtype(request.param):
        yield request.param


class Shifted(nn.Module):
    """x plus what is computed from a vector, once for each way of computing it."""

    def __init__(self, computes: Sequence[Callable[[Tensor], Tensor]], dtype: torch.dtype, out: torch.dtype) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros((), dtype=out))  # the first parameter tells the type of the input
        self.vector = nn.Parameter(torch.tensor(VALUES, dtype=torch.float64).to(dtype))
        self.computes = computes

    def forward(self, x: Tensor) -> Tensor:
        for compute in self.computes:
            x = x + compute(self.vector).to(self.own.dtype)
        return x


def shifts(
    computes: Sequence[Callable[[Tensor], Tensor]], dtype: torch.dtype, out: torch.dtype | None = None
) -> list[ScaleShift]:
    """The operators of a module whose vector has ``dtype``, on inputs of type ``out``."""
    found = [node.op for node in from_module(Shifted(computes, dtype, out or dtype), (4,)).nodes[1:]]
    assert len(found) == len(computes)
    assert all(isinstance(op, ScaleShift) for op in found)
    return [op for op in found if isinstance(op, ScaleShift)]


def shift(compute: Callable[[Tensor], Tensor], dtype: torch.dtype, out: torch.dtype | None = None) -> ScaleShift:
    """The one operator of a module that computes one constant."""
    return shifts([compute], dtype, out)[0]


def holds(op: ScaleShift, true: object) -> bool:
    assert op.shift is not None
    return ratio(op.shift, np.asarray(true, dtype=object), op.doubt.get("shift")) <= op.roundings < HOPELESS


def held(dtype: torch.dtype) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    return exact(torch.tensor(VALUES, dtype=torch.float64).to(dtype).double().numpy())


NUMBERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[object, Fraction], object]]] = {
    "w * n": (lambda w: w * 0.1, lambda w, n: w * n),
    "w - n": (lambda w: w - 0.1, lambda w, n: w - n),
    "n - w": (lambda w: 0.1 - w, lambda w, n: n - w),
    "w / n": (lambda w: w / 0.1, lambda w, n: w / n),
    "n / w": (lambda w: 0.1 / w, lambda w, n: n / w),
    "alpha": (lambda w: torch.add(w, w, alpha=0.1), lambda w, n: w + n * w),
    "addmm": (
        lambda w: torch.addmm(w, w[None], torch.eye(4, dtype=w.dtype), alpha=0.1, beta=0.1)[0],
        lambda w, n: w * n + w * n,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_is_rounded_to_the_type_that_the_operator_computes_in(
    dtype: torch.dtype, default: torch.dtype
) -> None:
    number = nearest(Fraction(0.1), dtype)
    ops = shifts([compute for compute, _ in NUMBERS.values()], dtype)
    for op, (name, (_, truth)) in zip(ops, NUMBERS.items(), strict=True):
        assert holds(op, truth(held(dtype), number)), name
        assert op.roundings <= 16, name
        assert not op.doubt, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_number_in_16_bits_has_two_readings(dtype: torch.dtype, default: torch.dtype) -> None:
    """Kernels compute in float32, with the number in that type; an exported network holds it in 16 bits."""
    ops = shifts([compute for compute, _ in NUMBERS.values()], dtype, torch.float32)
    for op, (name, (_, truth)) in zip(ops, NUMBERS.items(), strict=True):
        for reading in (dtype, torch.float32):
            assert holds(op, truth(held(dtype), nearest(Fraction(0.1), reading))), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exponent_has_two_readings(dtype: torch.dtype, default: torch.dtype) -> None:
    """As a double, which torch's kernels for the CPU use, and in the base's type."""
    op = shift(lambda w: w.abs() ** 0.3, dtype)
    for reading in (dtype, torch.float64):
        assert holds(op, power(abs(held(dtype)), nearest(Fraction(0.3), reading)))
    own = torch.tensor([3e30], dtype=torch.float32)
    double = own.double() ** 0.3
    assert (own**0.3).double() != own.double() ** torch.tensor(0.3).double(), "no kernel here takes it as a double"
    assert abs((own**0.3).double() - double) < 2.0**-23 * double


@pytest.mark.parametrize("var", [0.0, 1e-5, 1.0])
def test_the_eps_of_a_batch_normalisation_has_two_readings(var: float, default: torch.dtype) -> None:
    module = nn.BatchNorm1d(3, dtype=torch.float32).eval()
    assert module.running_var is not None
    module.running_var.fill_(var)
    op = from_module(module, (3,)).nodes[-1].op
    assert isinstance(op, ScaleShift)
    assert op.scale is not None
    for eps in (Fraction(1e-5), nearest(Fraction(1e-5), torch.float32)):
        true = np.array([1 / root(Fraction(float(v)) + eps) for v in module.running_var], dtype=object)
        assert ratio(op.scale, true, op.doubt.get("scale")) <= op.roundings <= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_progressions_have_the_readings_of_their_kernels(dtype: torch.dtype, default: torch.dtype) -> None:
    """start + i step of doubles, of numbers in the type, and rounded to the type."""
    ops = [
        shift(lambda w: w * 0 + torch.linspace(0.1, 1.1, 4, dtype=w.dtype), dtype),
        shift(lambda w: w * 0 + torch.arange(0.1, 1.2, 1 / 3, dtype=w.dtype), dtype),
    ]
    for reading in (dtype, torch.float64):
        first, last, step = (nearest(Fraction(v), reading) for v in (0.1, 1.1, 1 / 3))
        assert holds(ops[0], [first + i * (last - first) / 3 for i in range(4)])
        assert holds(ops[1], [first + i * step for i in range(4)])
    assert holds(ops[0], exact(torch.linspace(0.1, 1.1, 4, dtype=dtype).double().numpy()))
    assert holds(ops[1], exact(torch.arange(0.1, 1.2, 1 / 3, dtype=dtype).double().numpy()))


def test_progressions_of_integers_are_exact(default: torch.dtype) -> None:
    op = shift(
        lambda w: torch.linspace(0, 6, 4, dtype=w.dtype) + torch.arange(0.0, 4.0, dtype=w.dtype) + 0 * w, torch.float32
    )
    assert op.shift is not None
    assert op.shift.tolist() == [0, 3, 6, 9]
    assert (op.roundings, op.doubt) == (0, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_made_of_numbers_has_the_type_that_it_is_made_in(dtype: torch.dtype, default: torch.dtype) -> None:
    """Without a type, torch's default one, as the module itself computes."""
    op = shift(lambda w: torch.full_like(w, 0.1) + torch.full((4,), 0.1) + torch.arange(4) / 2, dtype)
    filled = nearest(Fraction(0.1), dtype) + nearest(nearest(Fraction(0.1), torch.float32), default)
    filled = filled if default != torch.float64 else nearest(Fraction(0.1), dtype) + Fraction(0.1)
    assert op.shift is not None
    sums = [filled + Fraction(i, 2) for i in range(4)]
    if torch.promote_types(dtype, default) == dtype:
        assert holds(op, sums)
    else:  # the module rounds the sum, a float64 number, to float32
        assert holds(op, [nearest(value, dtype) for value in sums])


def test_a_comparison_rounds_its_number_as_torch_does() -> None:
    """float32(0.1) is above 0.1, and torch calls neither the larger."""
    op = shift(lambda w: torch.where(w > 0.1, w * 0 + 1, w * 0 + 2), torch.float32)
    assert op.shift is not None
    assert op.shift.tolist() == [2, 2, 1, 1]


def test_a_comparison_of_computed_constants_rounds_its_number_too() -> None:
    """w + w is exact, and twice float32(0.1) is float32(0.2)."""
    op = shift(lambda w: torch.where(w + w > 0.2, w * 0 + 1, w * 0 + 2)[2:].repeat(2), torch.float32)
    assert op.shift is not None
    assert op.shift.tolist() == [1, 1, 1, 1]
    with pytest.raises(UnsupportedNetworkError, match="compares constants that rounding cannot tell apart"):
        shift(lambda w: torch.where((w / 3) * 3 > 0.1, w, -w), torch.float32)


def test_a_comparison_in_16_bits_that_its_reading_decides_is_refused() -> None:
    """bfloat16(0.1) is above float32(0.1)."""
    with pytest.raises(UnsupportedNetworkError, match="compares constants that rounding cannot tell apart"):
        shift(lambda w: torch.where(w > 0.1, w, -w), torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("source", "target", "numbers"),
    [
        (torch.float16, torch.bfloat16, [1 + 2.0**-10, 2.0**-24]),
        (torch.bfloat16, torch.float16, [2.0**-30, 1 + 2.0**-7]),
        (torch.float32, torch.bfloat16, [0.1, 1.0]),
    ],
)
def test_a_cast_rounds_where_the_type_does_not_hold_the_number(
    source: torch.dtype, target: torch.dtype, numbers: list[float]
) -> None:
    """float16 and bfloat16, of one width, hold different numbers."""
    tensor = torch.tensor(numbers, dtype=torch.float64).to(source)
    found = cast(Enclosure.exact(tensor), target)
    assert found.is_exact
    assert found.dtype == target
    assert [Fraction(v) for v in found.value.tolist()] == [nearest(Fraction(v), target) for v in tensor.tolist()]
    assert found.value.tolist() != tensor.tolist()


def test_a_cast_to_16_bits_encloses_a_rounding_by_way_of_float32() -> None:
    """1 + 2^-11 + 2^-40 is nearer to 1 + 2^-10; as a float32 number it is a tie, and even is 1."""
    found = cast(Enclosure.exact(torch.tensor([1 + 2.0**-11 + 2.0**-40], dtype=torch.float64)), torch.float16)
    assert abs(found.value - 1) <= found.error
    assert abs(found.value - (1 + 2.0**-10)) <= found.error


def test_a_hull_holds_what_its_parts_hold() -> None:
    one = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = hull(Enclosure(one, one / 8, torch.float32), Enclosure(one + 0.1, one / 4, torch.float32))
    assert (found.value - found.error <= one - one / 8).all()
    assert (found.value + found.error >= one + 0.1 + one / 4).all()


SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda w: w.max(0, keepdim=True)[0],
    "min": lambda w: w.min(0, keepdim=True)[0],
    "sort": lambda w: w.sort(0)[0][-1:],
    "sort, stable": lambda w: w.sort(dim=0, stable=True, descending=True)[0][:1],
    "topk": lambda w: w.topk(2, 0)[0][:1],
    "median": lambda w: w.median(0, keepdim=True)[0],
    "median of all": lambda w: w.median(),
    "kthvalue": lambda w: w.kthvalue(2, 0, keepdim=True)[0],
    "cummax": lambda w: w.cummax(0)[0][-1:],
    "cummin": lambda w: w.cummin(0)[0][-1:],
    "msort": lambda w: w.msort()[-1:],
    "aminmax": lambda w: w.aminmax(dim=0, keepdim=True)[1],
    "max of all": lambda w: w.max(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_selected_stays_enclosed(dtype: torch.dtype) -> None:
    """The square of what is selected among squares, which float32 and float64 round."""

    def squared(select: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda w: select(w * w) * select(w * w)

    squares = held(dtype) ** 2
    order = np.argsort(squares)
    ops = shifts([squared(select) for select in SELECTIONS.values()], dtype)
    for op, (name, select) in zip(ops, SELECTIONS.items(), strict=True):
        ranks = torch.empty(4, dtype=torch.int64)
        ranks[order.tolist()] = torch.arange(4)
        assert holds(op, squares[order[int(select(ranks).flatten()[0])]] ** 2), name
        assert op.roundings <= 16, name


def test_what_is_selected_among_parameters_is_exact() -> None:
    for op, (name, select) in zip(shifts(list(SELECTIONS.values()), torch.float32), SELECTIONS.items(), strict=True):
        assert op.shift is not None
        assert op.shift.dtype == torch.float32, name
        assert (op.roundings, op.doubt) == (0, {}), name
        assert op.shift.flatten()[0] == select(torch.tensor(VALUES)).flatten()[0], name


def test_errors_of_what_is_selected_are_those_of_its_row() -> None:
    """A row of large numbers says nothing about one of small ones."""
    op = shift(lambda w: (torch.stack([w, 1e6 * w]) / 3).sort(1)[0][0], torch.float32)
    assert holds(op, np.sort(held(torch.float32)) / 3)
    assert all((error <= 1e-15).all() for error in op.doubt.values())


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "indices of a sort": lambda w: w.gather(0, (torch.ones_like(w) / 3 * w.sign().abs()).sort(0)[1]),
    "indices of a maximum": lambda w: w[(w * 0 + w[:1] * w[:1]).max(0, keepdim=True)[1]],
    "argmax": lambda w: w[(w * 0 + w[:1] * w[:1]).argmax(0, keepdim=True)],
    "an item": lambda w: w * (w * w).sum().item(),
    "integers": lambda w: w + (torch.ones_like(w) / 3 * 3).long(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_rounding_may_decide_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedNetworkError, match=r"round"):
        shift(REFUSED[name], torch.float32)


def test_indices_that_rounding_does_not_decide_are_those_of_the_real_numbers() -> None:
    op = shift(lambda w: w[(w * w).argsort()] + w[(w * w).max(0, keepdim=True)[1]], torch.float32)
    own = held(torch.float32)
    assert holds(op, own[np.argsort(own * own)] + own[np.argmax(own * own)])


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "a spectrum": lambda w: torch.fft.fft(w).abs(),
    "the real part of a spectrum": lambda w: torch.fft.ifft(torch.fft.fft(w)).real,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_complex_numbers_compute_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedNetworkError, match="complex numbers are not supported"):
        shift(UNKNOWN[name], torch.float32)


def test_a_sum_that_the_modules_own_precision_misses_is_no_mismatch() -> None:
    """1e8 + 1 - 1e8 is 1; float32 computes 0, as the module does."""

    def compute(w: Tensor) -> Tensor:
        return w * 0 + torch.tensor([[1e8, 1.0], [-1e8, 0.0], [0.0, 0.0]], dtype=w.dtype).sum(0).sum()

    op = shift(compute, torch.float32)
    assert holds(op, [Fraction(1)] * 4)


def test_a_structure_that_rounding_decides_is_refused() -> None:
    """Of 1 + 2^-30 and 1 the larger is the first; in float32 they are equal, and the module takes the other."""

    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([2.0**-30, 0.0], dtype=torch.float32))

        def forward(self, x: Tensor) -> Tensor:
            return x[:, torch.argsort(self.w + 1, stable=True)]

    with pytest.raises(UnsupportedNetworkError, match="rounding decides them"):
        from_module(Ordered(), (2,))


def test_every_result_is_held_against_what_torch_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that gives float64 numbers for a float32 constant does not get through."""
    rules = {**aten_constants.ARITHMETIC, "mul.Tensor": lambda call: call("self").value * 2}
    monkeypatch.setattr(aten_constants, "ARITHMETIC", rules)
    with pytest.raises(UnsupportedNetworkError, match=r"is torch.float64 \[4\], where torch declares torch.float32"):
        shift(lambda w: w * 2, torch.float32)


def test_a_number_rounded_to_the_default_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would find it."""
    real = ConstantCall.__call__

    def by_way_of_the_default(call: ConstantCall, name: str) -> Enclosure:
        found = call[name]
        if isinstance(found, float):
            call._arguments[name] = float(torch.tensor(found))
        return real(call, name)

    monkeypatch.setattr(ConstantCall, "__call__", by_way_of_the_default)
    with pytest.raises(NetworkMismatchError, match="in real arithmetic"):
        shift(lambda w: w * 0.1, torch.float64)


def test_a_linear_layer_of_a_scaled_weight_keeps_its_meaning_under_every_default_type(default: torch.dtype) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([VALUES], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.w * 0.1)

    (op,) = (node.op for node in from_module(Scaled(), (4,)).nodes[1:])
    assert isinstance(op, Linear)
    assert ratio(op.weight, held(torch.float64)[None] * Fraction(0.1), op.doubt.get("weight")) <= op.roundings <= 16


class HalfProduct(nn.Module):
    """x plus a product that float16 does not hold, though the real one is small beside what the sum's type holds."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(()))
        self.factor = nn.Parameter(torch.full((3,), 300.0, dtype=torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.own + (self.factor * self.factor).to(x.dtype)


def test_a_constant_that_overflows_as_executed_is_said_to() -> None:
    with pytest.raises(NetworkOverflowError, match=r"its shift\[0\] is not finite as executed \(90000 in real"):
        from_module(HalfProduct().eval(), (3,))
