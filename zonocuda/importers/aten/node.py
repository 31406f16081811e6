"""One ATen operator of a traced module while it is converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from zonocuda.graph.ops import Shape
from zonocuda.importers import lowering
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.call import check_decided, each, flat, rounded
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse


class AtenNode:
    """A call whose arguments have been converted and bound to the names of the operator's schema.

    An argument is a ``Value``, a constant tensor, a number, a text, None, or a list of those.
    """

    def __init__(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], builder: GraphBuilder) -> None:
        self.name = node.name
        self.builder = builder
        self.traced: Any = node.meta["val"]
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        self._target: Any = target
        self._schema = target._schema.arguments
        self.names = tuple(argument.name for argument in self._schema)
        """Of the arguments."""
        defaults = {a.name: a.default_value for a in self._schema if a.has_default_value()}
        self._given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        self._arguments = {**defaults, **self._given}
        check_decided(self._arguments)

    def __getitem__(self, name: str) -> Any:
        return self._arguments[name]

    def get(self, name: str, default: Any) -> Any:
        """An argument that not every overload has."""
        return self._arguments.get(name, default)

    def is_value(self, name: str) -> bool:
        """Whether an argument depends on the input."""
        return isinstance(self._arguments[name], Value)

    def value(self, name: str) -> Value:
        """An argument that depends on the input."""
        found = self._arguments[name]
        if not isinstance(found, Value):
            refuse(f"its argument {name!r} must depend on the input")
        return found

    def numbers(self, name: str) -> Numbers:
        """As :meth:`constant`, of what becomes a constant of an operator as it is."""
        found = self._arguments[name]
        return enclosure.cast(found, self.dtype) if isinstance(found, Enclosure) else self.constant(name)

    def weights(self, name: str) -> Numbers:
        """As :meth:`tensor`, of what becomes a constant of an operator as it is."""
        found = self._arguments[name]
        return found if isinstance(found, Enclosure) else self.tensor(name)

    def optional_weights(self, name: str) -> Numbers | None:
        """As :meth:`weights`, or None."""
        return None if self._arguments[name] is None else self.weights(name)

    def constant(self, name: str) -> Tensor:
        """An argument that is a tensor or a number, as a tensor of the result's type.

        Numbers and tensors of another type are rounded to it, as torch does when it computes.
        """
        found = self._arguments[name]
        if isinstance(found, bool | int | float):
            return rounded(found, self.dtype)
        if isinstance(found, Enclosure):
            return self.builder.charge(enclosure.cast(found, self.dtype))
        return self.tensor(name).to(self.dtype)

    def number(self, name: str) -> float:
        """A number as the result's type holds it."""
        return self.rounded(self._arguments[name])

    def rounded(self, number: float) -> float:
        """A number as the result's type holds it."""
        return float(rounded(number, self.dtype))

    def tensor(self, name: str) -> Tensor:
        """An argument that is a constant tensor, itself; the node's operators are charged where it was rounded."""
        found = self._arguments[name]
        if isinstance(found, Enclosure):
            return self.builder.charge(found)
        if not isinstance(found, Tensor):
            refuse(f"its argument {name!r} must be constant")
        return found

    def stored(self, found: Any) -> Numbers:
        """A constant that the operator moves, a tensor or a number, in the result's type."""
        if isinstance(found, bool | int | float):
            return rounded(found, self.dtype)
        if isinstance(found, Enclosure):
            return enclosure.cast(found, self.dtype)
        if not isinstance(found, Tensor):
            refuse("an argument is neither a tensor nor a number")
        return found.to(self.dtype)

    def leaves(self, name: str) -> list[Any]:
        """The tensors of an argument, which may be a list of them; what depends on the input, too."""
        return [leaf for leaf in flat(self._arguments[name]) if isinstance(leaf, Tensor | Enclosure | Value)]

    def run(self, replaced: Mapping[str, Any]) -> Any:
        """What torch computes with other arguments in the place of some, on the CPU."""
        given = {**self._arguments, **replaced}
        own = {name: each(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, given[name]) for name in given}
        positional = [own[entry.name] for entry in self._schema if not entry.kwarg_only]
        named = {e.name: own[e.name] for e in self._schema if e.kwarg_only and e.name in self._given}
        return self._target(*positional, **named)

    def optional_tensor(self, name: str) -> Tensor | None:
        """A constant tensor, or None."""
        return None if self._arguments[name] is None else self.tensor(name)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the (first) result, which must be float32 or float64."""
        dtype = (self.traced[0] if isinstance(self.traced, tuple | list) else self.traced).dtype
        if dtype not in (torch.float32, torch.float64):
            refuse(f"its result is {dtype}; float32 and float64 are supported")
        assert isinstance(dtype, torch.dtype)
        return dtype

    def ints(self, name: str, count: int) -> Shape:
        """A number, or a list of 1 or ``count`` numbers, as ``count`` numbers."""
        found = self._arguments[name]
        numbers = [found] if isinstance(found, int) else list(found)
        return tuple(numbers * count if len(numbers) == 1 else numbers)

    def dim(self, name: str, value: Value) -> int:
        """The feature dimension that an argument names."""
        return lowering.feature_dim(self.builder, self._arguments[name], self.builder.full_rank(value))

    def dims(self, name: str, value: Value) -> Shape:
        """The feature dimensions that an argument names; naming none means all, the batch included."""
        found = self._arguments[name]
        if found is None or found == []:
            refuse("it works on all dimensions, the batch included")
        listed = [found] if isinstance(found, int) else found
        return lowering.feature_dims(self.builder, listed, self.builder.full_rank(value))
