"""A call of an ATen operator on constants: its arguments as torch reads them, its results as torch declares them.

A number in a module's code is a double that torch rounds to a type before it computes. Which one is the kernel's
choice, and the network's meaning where the kernels agree. Where they do not, an enclosure holds every reading:

* in float32 and float64, the result's type; an exponent (``x ** 0.3``) is float32 to some kernels, a double to others;
* in float16 and bfloat16, the result's type or float32, in which most kernels compute; so are tensors without
  dimensions, which kernels treat as numbers;
* what is stored and not computed with (``full``, ``masked_fill``, padding) is rounded to the type that it is stored in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.enclosure import Enclosure
from zonocuda.importers.errors import refuse

_NUMBER = bool | int | float


@dataclass(frozen=True)
class Undecided:
    """Integers, or other results without an enclosure, that nothing may depend on; ``why`` says it in an error."""

    why: str


def check_decided(arguments: Any) -> None:
    """Refuse arguments with an undecided part.

    Raises:
        UnsupportedNetworkError: there is one.
    """
    for leaf in flat(arguments):
        if isinstance(leaf, Undecided):
            refuse(leaf.why)


class ConstantCall:
    """An operator and its arguments, by the names of its schema.

    Attributes:
        name: the operator's, ``add.Tensor``.
        declared: the tensors that torch declares as results, without numbers; or a tuple of them.
        dtype: the type of the first floating-point result; None where there is none.
        device: that of the results.

    Raises:
        UnsupportedNetworkError: an argument is undecided.
    """

    def __init__(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        target: Any = node.target
        self._target = target
        self.name = str(target).removeprefix("aten.")
        self._schema = target._schema.arguments
        defaults = {entry.name: entry.default_value for entry in self._schema if entry.has_default_value()}
        positional = dict(zip((entry.name for entry in self._schema), args, strict=False))
        self._given = {**positional, **kwargs}
        self._arguments = {**defaults, **self._given}
        self.declared: Any = node.meta["val"]
        tensors = [t for t in flat(self.declared) if isinstance(t, Tensor)]
        self.dtype: torch.dtype | None = next((t.dtype for t in tensors if t.is_floating_point()), None)
        self.device = next((t.device for t in tensors), torch.device("cpu"))
        check_decided(self._arguments)

    @property
    def operands(self) -> list[Tensor | Enclosure]:
        """All tensors among the arguments."""
        return [leaf for leaf in flat(self._arguments) if isinstance(leaf, Tensor | Enclosure)]

    @property
    def plain(self) -> bool:
        """Whether the operands are tensors that the module itself holds."""
        return not any(isinstance(leaf, Enclosure) for leaf in self.operands)

    @property
    def is_complex(self) -> bool:
        """Whether complex numbers enter or leave."""
        tensors = [*self.operands, *(leaf for leaf in flat(self.declared) if isinstance(leaf, Tensor))]
        return any(t.dtype.is_complex for t in tensors)

    def __getitem__(self, name: str) -> Any:
        """An argument as it is; None for one that the operator does not have."""
        return self._arguments.get(name)

    def __call__(self, name: str) -> Enclosure:
        """A tensor or a number that the operator computes with, in the result's type."""
        return computed_with(self[name], self._type(), self.device)

    def exponents(self, name: str) -> list[Enclosure]:
        """Every reading of an exponent."""
        found, own = self[name], self._type()
        if not _is_scalar(found):
            return [self(name)]
        readings: list[Enclosure] = []
        for dtype in (*_types(own), torch.float64):
            reading = _converted(found, dtype, self.device).typed(own)
            if not any(torch.equal(reading.value, other.value) for other in readings):
                readings.append(reading)
        return readings

    def stored(self, found: Any) -> Any:
        """A tensor or a number that the operator moves, in the result's type; a list of them; None for None."""
        if found is None:
            return None
        if isinstance(found, tuple | list):
            return [self.stored(part) for part in found]
        return _converted(found, self._type(), self.device)

    def one(self) -> Enclosure:
        """1."""
        return _converted(1, self._type(), self.device)

    def _type(self) -> torch.dtype:
        assert self.dtype is not None
        return self.dtype

    def run(self, replaced: Mapping[str, Any] | None = None) -> Any:
        """What torch computes from the module's own numbers, or with others in their place."""
        arguments = {**self._arguments, **(replaced or {})}
        own = {name: each(_own, found) for name, found in arguments.items()}
        positional = [own[entry.name] for entry in self._schema if not entry.kwarg_only]
        named = {e.name: own[e.name] for e in self._schema if e.kwarg_only and e.name in self._given}
        return self._target(*positional, **named)

    def reduced(self) -> tuple[Enclosure, tuple[int, ...], bool]:
        """What is reduced, over which dimensions, and whether they stay."""
        x, dims = self("self"), self["dim"]
        listed = [dims] if isinstance(dims, int) else dims
        rank = x.dim()
        every = tuple(range(rank))
        return x, tuple(sorted({dim % rank for dim in listed})) if listed and rank else every, bool(self["keepdim"])

    def unknown(self) -> Any:
        """Results about which nothing is known, of the values that torch computes."""
        return self.results(each(lambda t: enclosure.unknown(t, t.dtype) if _is_float(t) else _LOST, self.run()))

    def undecided(self, why: str) -> Any:
        """No results."""
        return each(lambda _: Undecided(why), self.declared)

    def results(self, found: Any) -> Any:
        """What flat: for every tensor that torch declares, one of that type and shape, or an inexact enclosure of
        one, or nothing that may be used.

        Raises:
            UnsupportedNetworkError: a result is another.
        """
        if isinstance(self.declared, tuple | list):
            return tuple(_result(*pair) for pair in zip(found, self.declared, strict=True))
        return _result(found, self.declared)


_LOST = Undecided("it reads what an operator on constants computes beside numbers whose error is not known")


def _result(found: Any, declared: Any) -> Any:
    if isinstance(found, Undecided) or not isinstance(declared, Tensor):
        return found
    if not all(isinstance(extent, int) for extent in declared.shape):
        refuse("the shape of its result depends on constants")
    if not isinstance(found, Tensor | Enclosure) or (found.dtype, found.shape) != (declared.dtype, declared.shape):
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor | Enclosure) else type(found).__name__
        refuse(f"its constant result is {what}, where torch declares {declared.dtype} {list(declared.shape)}")
    if isinstance(found, Tensor):
        return found
    held = found.held()
    return held if held.dtype == found.dtype and found.is_exact else found


def flat(entry: Any) -> list[Any]:
    """All parts of nested lists, tuples and dictionaries."""
    if isinstance(entry, Mapping):
        entry = tuple(entry.values())
    return [leaf for part in entry for leaf in flat(part)] if isinstance(entry, tuple | list) else [entry]


def each(function: Callable[[Any], Any], entry: Any) -> Any:
    """A function of every part of nested lists and tuples."""
    return [each(function, part) for part in entry] if isinstance(entry, tuple | list) else function(entry)


def rounded(number: float, dtype: torch.dtype) -> Tensor:
    """A number of the module's code in a type, as torch converts it: integers are 64-bit ones before."""
    wide = torch.int64 if isinstance(number, int) else torch.float64
    return torch.tensor(number, dtype=wide, device="cpu").to(dtype)


def computed_with(found: Any, dtype: torch.dtype, device: torch.device) -> Enclosure:
    """A tensor or a number that an operator computes with in ``dtype``: the readings that the module's docstring lists.

    Raises:
        UnsupportedNetworkError: it is neither.
    """
    types = _types(dtype) if _is_scalar(found) else [dtype]
    readings = [_converted(found, reading, device) for reading in types]
    return enclosure.hull(*(reading.typed(dtype) for reading in readings))


def _types(dtype: torch.dtype) -> list[torch.dtype]:
    """Those in which kernels read a number where the result has ``dtype``."""
    return [dtype] if torch.finfo(dtype).bits >= 32 else [dtype, torch.float32]


def _converted(found: Any, dtype: torch.dtype, device: torch.device) -> Enclosure:
    if isinstance(found, Enclosure):
        cast = enclosure.cast(found, dtype)
        return cast.of(cast.value.to(device), cast.error.to(device))
    if isinstance(found, _NUMBER):
        found = rounded(found, dtype)
    if not isinstance(found, Tensor):
        refuse(f"an argument, {found!r}, is neither a tensor nor a number")
    return Enclosure.exact(found.to(device, dtype))


def _is_scalar(found: Any) -> bool:
    return isinstance(found, _NUMBER) or (isinstance(found, Tensor | Enclosure) and found.dim() == 0)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _own(leaf: Any) -> Any:
    return leaf.value.to(leaf.dtype) if isinstance(leaf, Enclosure) else leaf
