"""Constants that a network computes from constants: float64 numbers, and how far the real ones may be from them.

An :class:`Enclosure` of a tensor a of real numbers is v with |a - v| <= e, elementwise. Every operation below takes
enclosures to an enclosure of its exact result: what the operands' errors become, and one error of its own, which is
zero where float64 computed the result exactly: for sums and products of two the rounding error is itself a float
(Knuth's TwoSum; Dekker's TwoProduct), and a sum of n terms that are multiples of g and stay below 2^53 g is exact in
any order. Other sums of n products err by gamma_n of the sum of magnitudes (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1); exponentials and powers are compared with :mod:`decimal`, which rounds correctly.

An *executed* enclosure is about the network's own execution instead, with its own type's unit roundoff u: v is rounded
to that type after each operation, as IEEE arithmetic rounds sums, products, quotients and roots of two; e covers other
orders of summation (gamma_n of the sum of magnitudes, and the rounding of v), for exponentials and powers 4 u (an
assumption: no library guarantees it), and what of this goes into the operations behind.

Errors are computed in float64 without subtraction; nonzero ones are at least 2^-500, so that no product of two
underflows, and the factor 1 + 2^-40 covers their rounding. Values keep their gradients, errors have none.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from zonocuda.graph import HOPELESS
from zonocuda.roundoff import gamma

_AS_EXECUTED: ContextVar[bool] = ContextVar("as executed", default=False)
_U = 2.0**-53
_LEAST = 2.0**-500
_SAFE = 2.0**450
_COVER = 1 + 2.0**-40
_DIGITS = decimal.Context(
    prec=40,
    Emax=10**9,
    Emin=-(10**9),
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


@dataclass(frozen=True, eq=False)
class Enclosure:
    """v and e, ``[*shape]`` in float64 each.

    Attributes:
        value: v.
        error: e; infinite where nothing is known.
        dtype: the type that the network's own constant has.
        executed: whether a is what the network's own execution has, in any order of summation, or real.
    """

    value: Tensor
    error: Tensor
    dtype: torch.dtype
    executed: bool = False

    @staticmethod
    def exact(tensor: Tensor, executed: bool = False) -> Enclosure:
        """A tensor of integers or floats, itself."""
        value = tensor.double()
        return Enclosure(value, torch.zeros_like(value, requires_grad=False), tensor.dtype, executed)

    def of(self, value: Tensor, error: Tensor) -> Enclosure:
        """Other numbers, of the same kind."""
        return replace(self, value=value, error=error)

    @property
    def shape(self) -> torch.Size:
        """Of v, as of a tensor; as are the following."""
        return self.value.shape

    def dim(self) -> int:
        """Number of dimensions."""
        return self.value.dim()

    def numel(self) -> int:
        """Number of elements."""
        return self.value.numel()

    def _moved(self, name: str, *args: Any) -> Enclosure:
        return self.of(getattr(self.value, name)(*args), getattr(self.error, name)(*args))

    def contiguous(self) -> Enclosure:
        """The same."""
        return self

    def expand(self, *shape: int) -> Enclosure:
        """Broadcast."""
        return self._moved("expand", *shape)

    def reshape(self, *shape: Any) -> Enclosure:
        """Row-major."""
        return self._moved("reshape", *shape)

    def permute(self, *dims: int) -> Enclosure:
        """With its dimensions in another order."""
        return self._moved("permute", *dims)

    def squeeze(self, dim: int) -> Enclosure:
        """Without a dimension of extent 1."""
        return self._moved("squeeze", dim)

    def unsqueeze(self, dim: int) -> Enclosure:
        """With a dimension of extent 1."""
        return self._moved("unsqueeze", dim)

    def t(self) -> Enclosure:
        """The transpose."""
        return self._moved("t")

    def __neg__(self) -> Enclosure:
        return self.of(-self.value, self.error)

    def typed(self, dtype: torch.dtype) -> Enclosure:
        """The same numbers, of another type in the network."""
        return replace(self, dtype=dtype)

    @property
    def is_exact(self) -> bool:
        """Whether the float64 numbers are the real ones."""
        return not bool((self.error != 0).any())

    @property
    def roundings(self) -> int:
        """The least k with e <= k u |v|, for float64's u: see :class:`zonocuda.graph.Affine`."""
        wrong = self.error != 0
        if not bool(wrong.any()):
            return 0
        count = float((self.error[wrong] * _COVER / (_U * self.value.detach()[wrong].abs())).max())
        return min(math.ceil(count), HOPELESS) if count <= HOPELESS else HOPELESS

    def held(self) -> Tensor:
        """v, in the network's own type where that holds it exactly and nothing is in error."""
        own = self.value.to(self.dtype)
        return own if self.is_exact and bool((own.double() == self.value).all()) else self.value


Numbers: TypeAlias = Tensor | Enclosure
"""Constants of a network that meet its input: its own, or what it computes."""


@contextmanager
def executed_roundings() -> Iterator[None]:
    """Inside, the errors of real numbers also cover what an execution in the network's own types has in their place.

    Every operation then errs by 4 u |v| more, and a sum of n terms by gamma_n of its magnitudes, with u of the type of
    the result: what the executed roundings of a chain of operations can explain.
    """
    token = _AS_EXECUTED.set(True)
    try:
        yield
    finally:
        _AS_EXECUTED.reset(token)


def covers_execution() -> bool:
    """Whether this runs inside :func:`executed_roundings`."""
    return _AS_EXECUTED.get()


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def add(a: Enclosure, b: Enclosure, sign: int = 1) -> Enclosure:
    """a + sign b."""
    value = a.value + sign * b.value
    x, y, z = a.value.detach(), sign * b.value.detach(), value.detach()
    part = z - x
    own = ((x - (z - part)) + (y - part)).abs()  # TwoSum
    return _enclosure(value, a.error + b.error, own, a)


def multiply(a: Enclosure, b: Enclosure) -> Enclosure:
    """a b, elementwise."""
    value = a.value * b.value
    x, y = a.value.detach(), b.value.detach()
    error = _grown(a.error) * (_grown(y.abs()) + b.error) + _grown(x.abs()) * _grown(b.error)
    exact = (x == 0) | (y == 0) | (_safe(x, y) & (_product_error(x, y, value.detach()) == 0))
    return _enclosure(value, error, _one_rounding(value, exact), a)


def divide(a: Enclosure, b: Enclosure) -> Enclosure:
    """a / b, elementwise; about a quotient by what may be zero nothing is known."""
    x, y = a.value.detach(), b.value.detach()
    least = (y.abs() - b.error).clamp(min=0)
    value = a.value / b.value
    q = value.detach()
    error = (_grown(a.error) + _grown(q.abs()) * _grown(b.error)) / least
    error = torch.where(least > 0, error, math.inf)
    exact = (x == 0) | (_safe(q, y) & (q * y == x) & (_product_error(q, y, x) == 0))
    return _enclosure(value, error, _one_rounding(value, exact), a)


def square_root(a: Enclosure) -> Enclosure:
    """The square root: |sqrt(x) - sqrt(v)| <= |x - v| / sqrt(v), and float64's root is rounded correctly.

    About the root of what may be negative nothing is known.
    """
    x = a.value.detach()
    value = a.value.sqrt()
    root = value.detach()
    exact = (x == 0) | (_safe(root) & (root * root == x) & (_product_error(root, root, x) == 0))
    error = torch.where(a.error > 0, _grown(a.error) / root, 0.0)
    error = torch.where(x >= a.error, error, math.inf)
    return _enclosure(value, error, _one_rounding(value, exact), a)


def exponential(a: Enclosure) -> Enclosure:
    """exp a: |exp(x) - exp(v)| <= exp(v) (exp(e) - 1)."""
    value = a.value.exp()
    own = _distance(value, lambda x: x.exp(_DIGITS), a.value) + _assumed(value, a)
    error = (_grown(value.detach()) + own) * torch.expm1(a.error * _COVER)
    return _enclosure(value, error, own, a, ordered=False)


def power(a: Enclosure, exponent: Enclosure) -> Enclosure:
    """a ** y, elementwise: with r = e / (|v| - e), |log(x / v)| <= r and |x^y - v^y| <= |v^y| (exp(|y| r) - 1).

    Nothing is known where the exponent was rounded, or where a may be zero and was rounded.
    """
    base, y = _broadcast(a.value, exponent.value)
    error = a.error.expand(base.shape)
    if not exponent.is_exact:
        return a.of(torch.pow(base, y), torch.full_like(error, math.inf))
    spread = a.of(base, error)
    simple: dict[float, Callable[[Enclosure], Enclosure]] = {
        0.5: square_root,
        1.0: lambda b: b,
        2.0: lambda b: multiply(b, b),
    }
    common = float(y.flatten()[0]) if y.numel() and bool((y == y.flatten()[0]).all()) else math.nan
    if abs(common) in simple and not a.executed:
        result = simple[abs(common)](spread)
        return result if common > 0 else divide(a.of(torch.ones_like(base), torch.zeros_like(error)), result)
    value = torch.pow(base, y)

    def exactly(x: decimal.Decimal, y: decimal.Decimal) -> decimal.Decimal:
        return decimal.Decimal(1) if y == 0 else _DIGITS.power(x, y)

    own = _distance(value, exactly, base, y) + _assumed(value, a)
    least = (base.detach().abs() - error).clamp(min=0)
    ratio = torch.where(error > 0, error / least, 0.0)
    propagated = (_grown(value.detach().abs()) + own) * torch.expm1(y.detach().abs() * ratio * _COVER)
    return _enclosure(value, torch.where(error > 0, propagated, 0.0), own, a, ordered=False)


def matmul(a: Enclosure, b: Enclosure) -> Enclosure:
    """The product of matrices (vectors, stacks of matrices)."""
    value = torch.matmul(a.value, b.value)
    x, y = _grown(a.value.detach().abs()), _grown(b.value.detach().abs())
    terms, size = x.shape[-1], torch.matmul(x, y)
    error = torch.zeros_like(size)
    if not (a.is_exact and b.is_exact):
        error = torch.matmul(_grown(a.error), y + b.error) + torch.matmul(x, _grown(b.error))
    own = _sum_error(terms, size, _unit(a.value) * _unit(b.value), a)
    return _enclosure(value, error * (1 + 2 * _gamma(terms)), own, a, ordered=False)


def total(a: Enclosure, dims: Sequence[int], keepdim: bool) -> Enclosure:
    """The sum over dimensions."""
    if not dims:
        return a
    value, error, size = (t.sum(tuple(dims), keepdim) for t in (a.value, a.error, _grown(a.value.detach().abs())))
    terms = math.prod(a.value.shape[dim] for dim in dims)
    own = _sum_error(terms, size, _unit(a.value), a)
    return _enclosure(value, error * (1 + 2 * _gamma(terms)), own, a, ordered=False)


def mean(a: Enclosure, dims: Sequence[int], keepdim: bool) -> Enclosure:
    """The mean over dimensions: their sum divided by their number."""
    count = math.prod(a.value.shape[dim] for dim in dims)
    return divide(total(a, dims, keepdim), a.of(a.value.new_tensor(float(count)), a.error.new_zeros(())))


def product(a: Enclosure, dims: Sequence[int], keepdim: bool) -> Enclosure:
    """The product over dimensions, one factor after the other; of executions, in any order."""
    terms = math.prod(a.value.shape[dim] for dim in dims)
    for dim in sorted(dims, reverse=True):
        one = a.of(a.value.new_ones(()), a.error.new_zeros(()))
        factors = zip(a.value.unbind(dim), a.error.unbind(dim), strict=True)
        result = reduce(multiply, (a.of(*factor) for factor in factors), one)
        a = a.of(result.value.unsqueeze(dim), result.error.unsqueeze(dim)) if keepdim else result
    if a.executed and terms > 1:
        own = 2 * _gamma(terms, _unit_roundoff(a)) * a.value.detach().abs() + torch.finfo(a.dtype).tiny
        a = _enclosure(a.value, a.error, own, a, ordered=False)
    return a


def norm(a: Enclosure, dims: Sequence[int], keepdim: bool) -> Enclosure:
    """The Euclidean norm over dimensions."""
    return square_root(total(multiply(a, a), dims, keepdim))


# ---- what does not compute -------------------------------------------------------------------------------------------


def contract(function: Callable[..., Tensor], *operands: Enclosure) -> Enclosure:
    """An elementwise function without rounding that errs by at most the largest error of its operands (max, say)."""
    error = torch.stack(_broadcast(*(a.error for a in operands))).amax(0)
    value = function(*(a.value for a in operands))
    return operands[0].of(value, error.expand(value.shape))


def step(function: Callable[[Tensor], Tensor], a: Enclosure, dtype: torch.dtype) -> Enclosure:
    """An increasing function that the network itself asks for, without error of its own: rounding to a type, or to
    integers."""
    value = function(a.value)
    ends = ((a.value.detach() + sign * a.error, a.error.new_tensor(sign * math.inf)) for sign in (-1, 1))
    below, above = (function(torch.nextafter(end, outside)) for end, outside in ends)
    spread = torch.maximum(above - value.detach(), value.detach() - below)
    return replace(a.of(value, torch.where(a.error == 0, 0.0, spread * _COVER)), dtype=dtype)


def cast(a: Enclosure, dtype: torch.dtype) -> Enclosure:
    """A conversion to a floating-point type: the network asks for a rounding where that does not hold its own."""
    if holds(dtype, a.dtype):
        return a.typed(dtype)
    if torch.finfo(dtype).bits < 32:  # torch rounds to float32 first: where that decides, both results are enclosed
        value, info = a.value.detach(), torch.finfo(torch.float32)
        off = (info.eps * value.abs() + info.tiny).masked_fill(value.float().double() == value, 0.0)
        a = a.of(a.value, torch.maximum(a.error, off))
    return step(lambda t: t.to(dtype).double(), a, dtype)


def holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether every number of one floating-point type is one of another's."""
    wide, narrow = torch.finfo(dtype), torch.finfo(other)
    return wide.eps <= narrow.eps and wide.max >= narrow.max and wide.tiny * wide.eps <= narrow.tiny * narrow.eps


def hull(first: Enclosure, *others: Enclosure) -> Enclosure:
    """One enclosure of what any of several encloses."""
    error = first.error
    for other in others:
        off = _grown((other.value - first.value).detach().abs())
        error = torch.maximum(error, _grown((off + other.error) * _COVER))
    return first.of(first.value, error)


def unknown(value: Tensor, dtype: torch.dtype) -> Enclosure:
    """Numbers about whose error nothing is known."""
    wide = value.double()
    return Enclosure(wide, torch.full_like(wide, math.inf, requires_grad=False), dtype)


# ---- parts -----------------------------------------------------------------------------------------------------------


def _enclosure(value: Tensor, propagated: Tensor, own: Tensor, a: Enclosure, ordered: bool = True) -> Enclosure:
    """The result of an operation on ``a``; ``ordered``: an execution rounds it once."""
    error = propagated + own
    if a.executed:
        value = value.to(a.dtype).double()
        if ordered:  # IEEE arithmetic is exact but for its one rounding, which float64 and then the type do alike
            error = propagated
        size, info = value.detach().abs() + error, torch.finfo(a.dtype)
        error = error + (info.eps * size + info.tiny).masked_fill(error == 0, 0.0)
    elif _AS_EXECUTED.get():
        info, size = torch.finfo(a.dtype), value.detach()
        exact = (error == 0) & (size.to(a.dtype).double() == size)
        error = error + (2 * info.eps * size.abs() + info.tiny).masked_fill(exact, 0.0)
    return a.of(value, _grown(error.detach() * _COVER))


def _unit_roundoff(a: Enclosure) -> float:
    return torch.finfo(a.dtype).eps / 2 if a.executed or _AS_EXECUTED.get() else _U


def _assumed(value: Tensor, a: Enclosure) -> Tensor:
    """What is assumed of a function that an execution takes from a library."""
    cost = 4 * _unit_roundoff(a) * value.detach().abs()
    return cost if a.executed else torch.zeros_like(cost)


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    spread: tuple[Tensor, ...] = torch.broadcast_tensors(*tensors)  # type: ignore[no-untyped-call]
    return spread


def _grown(x: Tensor) -> Tensor:
    """Nonnegative numbers, those between 0 and 2^-500 replaced by it; a NaN stays."""
    return torch.where(x > 0, x.clamp(min=_LEAST), x)


def _one_rounding(value: Tensor, exact: Tensor) -> Tensor:
    return (_U * value.detach().abs()).clamp(min=_LEAST).masked_fill(exact, 0.0)


def _safe(*operands: Tensor) -> Tensor:
    """Where products of two, and of their halves, neither overflow nor underflow."""
    inside = [(x.abs() <= _SAFE) & (x.abs() >= 1 / _SAFE) for x in operands]
    return torch.stack(_broadcast(*inside)).all(0)


def _product_error(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """x y - p for p = fl(x y), where :func:`_safe` holds (Dekker's TwoProduct with Veltkamp's splitting)."""
    (xh, xl), (yh, yl) = _split(x), _split(y)
    return ((xh * yh - p) + xh * yl + xl * yh) + xl * yl


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    scaled = 134217729.0 * x
    high = scaled - (scaled - x)
    return high, x - high


def _gamma(terms: int, u: float = _U) -> float:
    return gamma(terms + 1, u) * _COVER


def _sum_error(terms: int, size: Tensor, unit: float, a: Enclosure) -> Tensor:
    """The error of sums of so many products, whose magnitudes add up to ``size``, multiples of ``unit`` each; of
    executions, their distance from the sum in float64."""
    u = _unit_roundoff(a)
    if not size.numel() or float(size.max()) * (1 + 2 * _gamma(terms)) < unit / u:
        return torch.zeros_like(size)
    relative = _gamma(terms, u) + (_gamma(terms) if a.executed else 0.0)
    return torch.where(size > 0, (relative * (1 + 2 * _gamma(terms)) * size).clamp(min=_LEAST), size)


def _unit(x: Tensor) -> float:
    """The largest power of two of which all numbers are multiples; 0 for numbers too small to tell."""
    nonzero = x.detach()[x.detach() != 0]
    if not nonzero.numel():
        return 1.0
    if not bool(nonzero.isfinite().all()):
        return 0.0
    mantissa, exponent = torch.frexp(nonzero)
    digits = (mantissa * 2.0**53).long()
    lowest = torch.frexp((digits & -digits).double())[1] - 1
    least = int((exponent.long() - 53 + lowest).min())
    return math.ldexp(1.0, least) if least > -500 else 0.0


def _distance(value: Tensor, function: Callable[..., decimal.Decimal], *operands: Tensor) -> Tensor:
    """At least the distance of each value from a function that :mod:`decimal` computes to 40 digits; infinite where it
    is not a real number."""
    columns: Any = [t.detach().flatten().tolist() for t in (value, *operands)]
    errors = []
    for found, *row in zip(*columns, strict=True):
        if not all(map(math.isfinite, (found, *row))):
            errors.append(math.inf)
            continue
        _DIGITS.clear_flags()
        try:
            true = function(*map(decimal.Decimal, row))
        except decimal.DecimalException:
            errors.append(math.inf)
            continue
        off = _DIGITS.subtract(decimal.Decimal(found), true).copy_abs()
        doubt = true.copy_abs() if _DIGITS.flags[decimal.Inexact] else decimal.Decimal(0)
        errors.append(float(off + doubt.scaleb(-38)) * _COVER)
    return value.detach().new_tensor(errors).reshape(value.shape)
