"""A Spec from commands that were read in bulk: bounds in arrays, regions and rows made when they are looked at.

What is compared is compared exactly: by the nearest float64, then by the side of it on which a decimal lies; where that
does not decide between two decimals, they are equal if their mantissas and exponents are. A file that needs more than
that, or is at fault, is left to the reader of single tokens, which means the same and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from zonocuda.specs.decimals import Decimals
from zonocuda.specs.spec import Box, LinearConstraint, Region, Spec
from zonocuda.specs.tokens import Atoms, Commands, Ints

Row = tuple[LinearConstraint, ...]

BLOCK = 1 << 16
"""Bounds that are compared together."""

Places = NDArray[Any] | slice
"""Of bounds: all of them for a slice, which copies nothing."""


class UndecidedError(Exception):
    """The file needs the reader of single tokens."""


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Bounds of single inputs: for each its comparison, the input, whether it is an upper one, and its number."""

    atom: Ints
    input: Ints
    upper: NDArray[np.bool_]
    number: Ints


def spec_of_commands(commands: Commands, rest: Sequence[tuple[int, LinearConstraint]]) -> Spec:
    """The property, as :func:`zonocuda.specs.regions.spec_of` would find it.

    Args:
        commands: with at most one disjunction of more than one term.
        rest: rows that are asserted besides, with their places in the text.

    Raises:
        UndecidedError: bounds that are missing, crossed, or too close to be told apart here, or variables not in order.
    """
    inputs, outputs = (_count(commands.declared[commands.declared % 2 == kind] // 2) for kind in (0, 1))
    atoms = commands.atoms
    if not len(commands.terms):
        first, size = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32)
    else:
        ((_, first, size),) = commands.terms
    used = np.concatenate([commands.common, _spread(first, size)])
    for side in (atoms.left[used], atoms.right[used]):
        for kind, count in ((0, inputs), (1, outputs)):
            named = side[(side >= 0) & (side % 2 == kind)] // 2
            if len(named) and named.max() >= count:
                raise UndecidedError
    numbers = atoms.numbers
    base = _tightest(numbers, _bounds(atoms, commands.common), inputs)
    term_of = np.repeat(np.arange(len(first), dtype=np.int32), size)
    own = _bounds(atoms, _spread(first, size))
    shared = [*rest]
    open_atoms = commands.common[~_is_closed(atoms, commands.common)]
    places = commands.asserted_at[~_is_closed(atoms, commands.common)]
    shared += [(int(p), row_of(atoms, int(a))) for p, a in zip(places, open_atoms, strict=True)]
    shared.sort(key=lambda pair: pair[0])
    groups = _groups(numbers, base, own, term_of[_is_bound(atoms, _spread(first, size))], len(first), inputs)
    lower, upper = _ends(numbers, base[0], False), _ends(numbers, base[1], True)
    return Spec(inputs, outputs, Regions(atoms, first, size, tuple(row for _, row in shared), lower, upper, *groups))


def _count(declared: NDArray[Any]) -> int:
    """How many variables there are; they are numbered from 0."""
    ordered = np.sort(declared)
    if not len(ordered) or not bool((ordered == np.arange(len(ordered))).all()):
        raise UndecidedError
    return len(ordered)


def _spread(first: Ints, size: Ints) -> Ints:
    """The atoms of terms, one after the other."""
    start = np.repeat(first - (np.cumsum(size) - size), size)
    return (start + np.arange(len(start))).astype(np.int32)


def _is_bound(atoms: Atoms, chosen: Ints) -> NDArray[np.bool_]:
    """Whether comparisons are of an input and a number."""
    left, right = atoms.left[chosen], atoms.right[chosen]
    on_left, on_right = (left >= 0) & (left % 2 == 0), (right >= 0) & (right % 2 == 0)
    result: NDArray[np.bool_] = (on_left & (right < 0)) | (on_right & (left < 0))
    return result


def _is_closed(atoms: Atoms, chosen: Ints) -> NDArray[np.bool_]:
    """Whether comparisons are bounds of inputs and no more: a strict one is also a row."""
    return _is_bound(atoms, chosen) & (atoms.operator[chosen] < 2)


def _bounds(atoms: Atoms, chosen: Ints) -> _Bounds:
    chosen = chosen[_is_bound(atoms, chosen)]
    left, right = atoms.left[chosen], atoms.right[chosen]
    on_left = left >= 0
    upper = (atoms.operator[chosen] % 2 == 0) == on_left
    return _Bounds(chosen, np.where(on_left, left, right) // 2, upper, -1 - np.where(on_left, right, left))


def _same(numbers: Decimals, a: Ints, b: Ints) -> NDArray[np.bool_]:
    """Whether numbers are equal; raises UndecidedError where that is not known here."""
    level = (numbers.nearest[a] == numbers.nearest[b]) & (numbers.side[a] == numbers.side[b])
    level &= a != b
    exactly = (numbers.mantissa[a] == numbers.mantissa[b]) & (numbers.exponent[a] == numbers.exponent[b])
    inexact = level & (numbers.side[a] != 0)
    if numbers.others and bool((inexact & (numbers.mantissa[a] == 0) & (numbers.mantissa[b] == 0)).any()):
        raise UndecidedError
    if bool((inexact & ~exactly).any()):
        raise UndecidedError
    result: NDArray[np.bool_] = level | (a == b)
    return result


def _less(numbers: Decimals, a: Ints, b: Ints) -> NDArray[np.bool_]:
    """Whether a < b; raises UndecidedError where that is not known here."""
    same = _same(numbers, a, b)
    first, second = numbers.nearest[a], numbers.nearest[b]
    result: NDArray[np.bool_] = ~same & ((first < second) | ((first == second) & (numbers.side[a] < numbers.side[b])))
    return result


def _runs(numbers: Decimals, key: NDArray[np.int64], number: Ints, upper: NDArray[np.bool_]) -> Places:
    """Of bounds with equal keys the place of the tightest one, in the order of the keys."""
    if bool((key[1:] > key[:-1]).all()):
        return slice(None)  # they are in order
    order = np.argsort(key, kind="stable")
    if bool((np.diff(key[order]) > 0).all()):
        return order
    sign = np.where(upper, 1.0, -1.0)
    order = np.lexsort((numbers.side[number] * sign, numbers.nearest[number] * sign, key))
    ordered = key[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    later = np.flatnonzero(~begins)
    if len(later):  # those that do not begin a run must differ from the one before, or be the same
        _same(numbers, number[order[later]], number[order[later - 1]])
    result: NDArray[np.int64] = order[begins]
    return result


def _tightest(numbers: Decimals, bounds: _Bounds, inputs: int) -> tuple[Ints, Ints]:
    """The numbers of the tightest lower and upper bounds ``[inputs]``, -1 where there is none."""
    best = np.full((2, inputs), -1, dtype=np.int32)
    chosen = _runs(numbers, bounds.input.astype(np.int64) * 2 + bounds.upper, bounds.number, bounds.upper)
    best[bounds.upper[chosen].astype(np.int8), bounds.input[chosen]] = bounds.number[chosen]
    both = (best >= 0).all(0)
    if bool(_less(numbers, best[1, both], best[0, both]).any()):
        raise UndecidedError  # an empty box
    return best[0], best[1]


def _ends(numbers: Decimals, chosen: Ints, upper: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds rounded outward, and to nearest; NaN where there is none."""
    nearest = np.where(chosen >= 0, numbers.nearest[chosen], np.nan)
    side = np.where(chosen >= 0, numbers.side[chosen], 0)
    outward = np.nextafter(nearest, np.inf if upper else -np.inf)
    return np.where((side > 0) if upper else (side < 0), outward, nearest), nearest


def _groups(
    numbers: Decimals, base: tuple[Ints, Ints], own: _Bounds, term: Ints, terms: int, inputs: int
) -> tuple[Any, ...]:
    """Terms with equal boxes together, in the order of their first one.

    Returns:
        The terms in the order of their groups, where each group ends, the bounds of each group's box that are not those
        of ``base`` (input, upper, outward, nearest), and where each group's end.
    """
    key = term.astype(np.int64)
    for factor, addend in ((inputs, own.input), (2, own.upper)):
        key *= factor
        key += addend
    chosen = _runs(numbers, key, own.number, own.upper)
    del key
    term, upper, number, place = term[chosen], own.upper[chosen], own.number[chosen], own.input[chosen]
    known = np.where(upper, base[1][place], base[0][place])
    is_new = known < 0
    there = np.flatnonzero(~is_new)
    tighter = np.where(
        upper[there], _less(numbers, number[there], known[there]), _less(numbers, known[there], number[there])
    )
    is_new[there] = tighter
    del known, there, tighter, chosen
    if not is_new.all():
        term, upper, number, place = term[is_new], upper[is_new], number[is_new], place[is_new]
    del is_new
    _check_sides(numbers, base, term, upper, number, place, terms)

    size = np.bincount(term, minlength=terms) if terms else np.zeros(0, dtype=np.int64)
    stop = np.cumsum(size)
    del term
    if numbers.others and bool(np.isin(number, np.fromiter(numbers.others, dtype=np.int32)).any()):
        raise UndecidedError
    group, heads = _alike(numbers, place, upper, number, stop - size, size)
    if len(heads) == terms:
        return np.arange(terms, dtype=np.int32), np.arange(1, terms + 1), place, upper, number, stop
    bounds = _spread((stop - size)[heads].astype(np.int32), size[heads].astype(np.int32))
    return (
        np.argsort(group, kind="stable").astype(np.int32),
        np.cumsum(np.bincount(group)),
        place[bounds],
        upper[bounds],
        number[bounds],
        np.cumsum(size[heads]),
    )


def _alike(
    numbers: Decimals,
    place: Ints,
    upper: NDArray[np.bool_],
    number: Ints,
    begin: NDArray[np.int64],
    size: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each term the number of its group, of those whose bounds are equal, in the order of their first one; and that
    first one for each group.

    Unequal sums of mixed numbers show that terms differ; where sums are equal, the bounds are compared.
    """

    def columns(chosen: Places) -> Iterator[NDArray[Any]]:
        yield place[chosen]
        yield upper[chosen]
        yield numbers.exponent[number[chosen]]
        yield numbers.mantissa[number[chosen]]

    if not len(place):
        return np.zeros(len(size), dtype=np.int64), np.zeros(min(1, len(size)), dtype=np.int64)
    total = np.zeros(len(place) + 1, dtype=np.uint64)
    mixed = total[1:]
    for column in columns(slice(None)):
        mixed ^= column.astype(np.int64).view(np.uint64)
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    np.cumsum(total, out=total)
    key = total[begin + size] - total[begin]
    _, heads, inverse = np.unique(key, return_index=True, return_inverse=True)
    if len(heads) == len(size):
        return np.arange(len(size)), np.arange(len(size))
    order = np.argsort(heads)
    rank = np.empty(len(heads), dtype=np.int64)
    rank[order] = np.arange(len(heads))
    group, heads = rank[inverse.ravel()], heads[order]
    rest = np.setdiff1d(np.arange(len(size)), heads)
    first = heads[group[rest]]
    if bool((size[rest] != size[first]).any()):
        raise UndecidedError
    own, other = (_spread(begin[t].astype(np.int32), size[t].astype(np.int32)) for t in (rest, first))
    for one, another in zip(columns(own), columns(other), strict=True):
        if bool((one != another).any()):
            raise UndecidedError
    return group, heads


def _check_sides(
    numbers: Decimals, base: tuple[Ints, Ints], term: Ints, upper: Any, number: Ints, place: Ints, terms: int
) -> None:
    """Every term bounds what the base leaves open, and no bounds cross; raises UndecidedError."""
    missing = np.stack([base[0] < 0, base[1] < 0])
    needed = missing[upper.astype(np.int8), place]
    if not bool((np.bincount(term[needed], minlength=terms) == int(missing.sum())).all()):
        raise UndecidedError
    paired = np.flatnonzero((term[1:] == term[:-1]) & (place[1:] == place[:-1]))  # a lower and an upper bound
    alone = np.ones(len(term), dtype=bool)
    alone[paired], alone[paired + 1] = False, False
    other = np.where(upper, base[0][place], base[1][place])
    low, high = np.where(upper, other, number)[alone], np.where(upper, number, other)[alone]
    low, high = np.concatenate([low, number[paired]]), np.concatenate([high, number[paired + 1]])
    if any(bool(_less(numbers, high[i : i + BLOCK], low[i : i + BLOCK]).any()) for i in range(0, len(low), BLOCK)):
        raise UndecidedError


def row_of(atoms: Atoms, a: int) -> LinearConstraint:
    """The row of a comparison."""
    sides: tuple[dict[int, Fraction], dict[int, Fraction]] = ({}, {})
    constant = Fraction(0)
    operator = int(atoms.operator[a])
    for term, sign in ((int(atoms.left[a]), 1), (int(atoms.right[a]), -1)):
        signed = Fraction(sign if operator % 2 == 0 else -sign)
        if term < 0:
            constant = signed * atoms.numbers.exact(-1 - term)
        else:
            sides[term % 2][term // 2] = signed
    return LinearConstraint(sides[1], sides[0], constant, operator >= 2)


class Regions(Sequence[Region]):
    """Regions that are made when they are looked at; the last one is kept."""

    def __init__(
        self,
        atoms: Atoms,
        first: Ints,
        size: Ints,
        shared: Row,
        lower: tuple[NDArray[np.float64], NDArray[np.float64]],
        upper: tuple[NDArray[np.float64], NDArray[np.float64]],
        members: Ints,
        member_stop: NDArray[np.int64],
        place: Ints,
        is_upper: NDArray[np.bool_],
        number: Ints,
        bound_stop: NDArray[np.int64],
    ) -> None:
        self._atoms, self._first, self._size, self._shared = atoms, first, size, shared
        self._lower, self._upper = lower, upper
        self._members, self._member_stop = members, member_stop
        self._place, self._is_upper, self._number = place, is_upper, number
        self._bound_stop = bound_stop
        self._last: tuple[int, Region] | None = None

    def __repr__(self) -> str:
        return f"Regions({len(self)})"

    def __len__(self) -> int:
        return len(self._member_stop)

    @overload
    def __getitem__(self, index: int) -> Region: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Region, ...]: ...
    def __getitem__(self, index: int | slice) -> Region | tuple[Region, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"region {index} of {len(self)}")
        if self._last is None or self._last[0] != position:
            self._last = position, Region(self._box(position), tuple(self._disjuncts(position)))
        return self._last[1]

    def _box(self, position: int) -> Box:
        run = slice(int(self._bound_stop[position - 1]) if position else 0, int(self._bound_stop[position]))
        ends = [end.copy() for end in (*self._lower, *self._upper)]
        for upper in (0, 1):
            chosen = self._is_upper[run] == upper
            place = self._place[run][chosen]
            found = _ends(self._atoms.numbers, self._number[run][chosen], bool(upper))
            ends[2 * upper][place], ends[2 * upper + 1][place] = found
        low, near_low, high, near_high = map(torch.from_numpy, ends)
        return Box(low, high, near_low.float(), near_high.float())

    def _disjuncts(self, position: int) -> Iterator[Row]:
        begin = int(self._member_stop[position - 1]) if position else 0
        for t in self._members[begin : int(self._member_stop[position])].tolist():
            chosen = np.arange(self._first[t], self._first[t] + self._size[t], dtype=np.int32)
            own = chosen[~_is_closed(self._atoms, chosen)]
            yield (*self._shared, *(row_of(self._atoms, a) for a in own.tolist()))
