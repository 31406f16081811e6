"""ATen operators that only move values of the input and constants: torch itself moves the numbers of their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zonocuda.importers import lowering, moves
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.call import each
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse

_SAMPLE = 2.0**40
"""What tells the places of one sample of a batch from those of the next; float64 is exact to 2^53."""

_DATA = ("self", "input", "other", "src", "source", "tensors", "value", "values")
"""The arguments that hold what is moved."""


class _Places:
    """The places of values and of constants: see :mod:`zonocuda.importers.moves`."""

    def __init__(self, node: AtenNode) -> None:
        self._node = node
        self.values: list[Value] = []
        self._starts: list[int] = []
        self._size = 0
        self._constants: list[Numbers] = []
        self._count = 0

    def of(self, found: Any) -> Any:
        """Places in the shape of an argument; a number for a number."""
        if isinstance(found, Value):
            return self._value(found)
        if found is None:
            return None
        if isinstance(found, bool | int | float) and found == 0:
            return 0.0
        constant = self._node.stored(found)
        first = self._count + 1
        self._constants.append(constant.reshape(-1))
        self._count += constant.numel()
        if isinstance(found, bool | int | float):
            return -float(first)
        return -torch.arange(first, self._count + 1, dtype=torch.float64, device="cpu").reshape(constant.shape)

    def _value(self, found: Value) -> Tensor:
        names = [value.node for value in self.values]
        if found.node not in names:
            self.values.append(found)
            self._starts.append(self._size)
            self._size += torch.Size(found.shape).numel()
            names.append(found.node)
        start = self._starts[names.index(found.node)]
        count = torch.Size(found.shape).numel()
        own = torch.arange(start + 1, start + count + 1, dtype=torch.float64, device="cpu").reshape(1, *found.shape)
        return torch.cat([own + sample * _SAMPLE for sample in range(self._node.builder.batch)])

    @property
    def constants(self) -> Numbers | None:
        """All constants, one after the other."""
        if not self._constants:
            return None
        if not any(isinstance(part, Enclosure) for part in self._constants):
            return torch.cat([part for part in self._constants if isinstance(part, Tensor)])
        parts = [part if isinstance(part, Enclosure) else Enclosure.exact(part) for part in self._constants]
        executed = any(part.executed for part in parts)
        values, errors = torch.cat([p.value for p in parts]), torch.cat([p.error for p in parts])
        return Enclosure(values, errors, parts[0].dtype, executed)

    def sample(self, found: Tensor) -> Tensor:
        """The places of one sample of a result, where those of the others are alike.

        Raises:
            UnsupportedNetworkError: the batch does not come first, or its samples are mixed.
        """
        batch = self._node.builder.batch
        if not found.dim() or found.shape[0] != batch:
            refuse(f"its result, of shape {list(found.shape)} for a batch of {batch}, does not keep the batch first")
        first, constants = found[0], self.constants
        if bool((first >= _SAMPLE).any()):
            refuse("it works on the batch dimension")
        for number, other in enumerate(found[1:], start=1):
            if bool((torch.where(other > 0, other - number * _SAMPLE, 0.0) != first.clamp(min=0)).any()):
                refuse("it works on the batch dimension")
            if constants is not None:
                _check_alike(constants, first, other)
        if len(found) > 1 and bool((first < 0).any()) and bool((found[1:].clamp(max=0) != first.clamp(max=0)).any()):
            self._node.builder.depends_on_batch = True
        return first.long()


def _check_alike(constants: Numbers, first: Tensor, other: Tensor) -> None:
    """Whether two samples of a batch have the same constants."""
    padded = [
        torch.cat([numbers.new_zeros(1), numbers.detach()])
        for numbers in ((constants.value, constants.error) if isinstance(constants, Enclosure) else (constants,))
    ]
    one, two = ((-places).clamp(min=0).long() for places in (first, other))
    if not all(torch.equal(numbers[one], numbers[two]) for numbers in padded):
        refuse("the samples of a batch meet different constants")


def move(node: AtenNode) -> Any:
    """An operator that moves what it is given, decided by torch's own kernel on the places of the elements.

    Raises:
        UnsupportedNetworkError: where to is decided by the input, or samples of a batch are mixed.
    """
    if node.get("accumulate", False):
        refuse("it accumulates")
    places = _Places(node)
    given: dict[str, Any] = {}
    for name in node.names:
        if name in _DATA:
            given[name] = each(places.of, node[name])
        elif not all(isinstance(leaf, Tensor) for leaf in node.leaves(name)):
            refuse(f"its argument {name!r} depends on the input, or on rounding; it must be constant")
    found = node.run(given)
    if isinstance(found, tuple | list):
        labels = [f"{node.name}/{count}" for count in range(len(found))]
        return tuple(_moved(node, label, places, part) for label, part in zip(labels, found, strict=True))
    return _moved(node, node.name, places, found)


def _moved(node: AtenNode, name: str, places: _Places, found: Tensor) -> Value | Numbers:
    if not bool((found > 0).any()):
        constants = places.constants
        if constants is None:
            return torch.zeros(found.shape, dtype=node.dtype, device="cpu")
        zero = torch.zeros(1, dtype=node.dtype, device="cpu")
        start = Enclosure.exact(zero) if isinstance(constants, Enclosure) else zero
        return moves.gather(_joined(start, constants), -found.long())
    return moves.rearrange(node.builder, name, places.values, places.constants, places.sample(found))


def _joined(first: Numbers, second: Numbers) -> Numbers:
    if isinstance(first, Enclosure) and isinstance(second, Enclosure):
        return second.of(torch.cat([first.value, second.value]), torch.cat([first.error, second.error]))
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return torch.cat([first, second])


# ---- concatenations, whose parts stay apart --------------------------------------------------------------------------


def cat(node: AtenNode) -> Value:
    """Concatenation of tensors, some of which may be constant, along a feature dimension."""
    parts = node["tensors"]
    first = next(part for part in parts if isinstance(part, Value))
    return _concat(node, parts, node.builder.full_rank(first), node["dim"])


def hstack(node: AtenNode) -> Value:
    """Concatenation along dimension 1, of vectors along their only one."""
    return _concat(node, node["tensors"], 2, 1)


def column_stack(node: AtenNode) -> Value:
    """Vectors become columns; concatenation along dimension 1."""
    builder = node.builder

    def column(count: int, part: Any) -> Any:
        if isinstance(part, Value):
            name = f"{node.name}/column{count}"
            return part if part.shape else lowering.reshape(builder, name, part, (1,))
        return part.unsqueeze(-1) if part.dim() == 1 else part

    return _concat(node, [column(*entry) for entry in enumerate(node["tensors"])], 2, 1)


def stack(node: AtenNode) -> Value:
    """Concatenation along a new dimension."""
    builder, parts = node.builder, node["tensors"]
    rank = builder.full_rank(next(part for part in parts if isinstance(part, Value))) + 1
    dim = lowering.feature_dim(builder, node["dim"], rank)

    def widened(count: int, part: Any) -> Any:
        if isinstance(part, Value):
            shape = (*part.shape[:dim], 1, *part.shape[dim:])
            return lowering.reshape(builder, f"{node.name}/part{count}", part, shape)
        return part.unsqueeze(dim + builder.batched)

    return _concat(node, [widened(*entry) for entry in enumerate(parts)], rank, node["dim"])


def _concat(node: AtenNode, parts: list[Any], rank: int, dim: int) -> Value:
    """Parts of ``rank`` dimensions."""
    feature = lowering.feature_dim(node.builder, dim, rank)
    found: list[Value | Numbers] = []
    for part in parts:
        if isinstance(part, Value):
            found.append(part)
            continue
        constant = node.stored(part)
        if constant.dim() == 1 and constant.numel() == 0:  # which torch leaves out
            continue
        if constant.dim() != rank:
            refuse(f"a constant of shape {list(constant.shape)} does not fit")
        found.append(lowering.without_batch(node.builder, constant))
    return lowering.concat_with_constants(node.builder, node.name, found, feature)


# ---- maps that window domains follow ---------------------------------------------------------------------------------


def _pixel_shuffle(node: AtenNode) -> Value:
    return _shuffled(node, node["upscale_factor"], apart=False)


def _pixel_unshuffle(node: AtenNode) -> Value:
    return _shuffled(node, node["downscale_factor"], apart=True)


def _shuffled(node: AtenNode, r: int, apart: bool) -> Value:
    x = node.value("self")
    if len(x.shape) != 3:
        refuse(f"features {x.shape} are no maps [C, height, width]")
    c, h, w = x.shape
    inner = (c, h // r, r, w // r, r) if apart else (c // (r * r), r, r, h, w)
    order = (0, 2, 4, 1, 3) if apart else (0, 3, 1, 4, 2)
    return _through(node, x, inner, order)


def _channel_shuffle(node: AtenNode) -> Value:
    x, groups = node.value("self"), node["groups"]
    inner = (groups, x.shape[0] // groups, *x.shape[1:])
    return _through(node, x, inner, (1, 0, *range(2, len(inner))))


def _through(node: AtenNode, x: Value, inner: tuple[int, ...], order: tuple[int, ...]) -> Value:
    """Features in another shape, permuted, in the shape of the result."""
    builder, name = node.builder, node.name
    split = lowering.reshape(builder, f"{name}/split", x, inner)
    swapped = lowering.permute(builder, f"{name}/swap", split, (0, *(dim + 1 for dim in order)))
    return lowering.reshape(builder, name, swapped, tuple(node.traced.shape[1:]))


_FUNCTIONS: dict[Callable[[AtenNode], Any], str] = {
    cat: "cat.default concat.default concatenate.default",
    stack: "stack.default",
    hstack: "hstack.default",
    column_stack: "column_stack.default",
    _pixel_shuffle: "pixel_shuffle.default",
    _pixel_unshuffle: "pixel_unshuffle.default",
    _channel_shuffle: "channel_shuffle.default native_channel_shuffle.default",
    move: "block_diag.default copy.default diag_embed.default diagonal.default "
    "diagonal_scatter.default dstack.default fill.Tensor flip.default fliplr.default flipud.default gather.default "
    "im2col.default index.Tensor index_copy.default index_fill.int_Scalar index_fill.int_Tensor index_put.default "
    "masked_fill.Scalar masked_fill.Tensor masked_scatter.default repeat.default repeat_interleave.self_int "
    "roll.default rot90.default scatter.src scatter.value select_scatter.default slice_scatter.default tile.default "
    "tril.default triu.default unbind.int unfold.default upsample_nearest1d.vec upsample_nearest2d.vec "
    "upsample_nearest3d.vec upsample_nearest1d.default upsample_nearest2d.default upsample_nearest3d.default "
    "_upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.vec "
    "_upsample_nearest_exact1d.default _upsample_nearest_exact2d.default _upsample_nearest_exact3d.default "
    "vstack.default",
}
MOVES: dict[str, Callable[[AtenNode], Any]] = {
    f"aten.{name}": function for function, names in _FUNCTIONS.items() for name in names.split()
}
