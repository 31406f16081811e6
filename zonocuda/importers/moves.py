"""Operators that only move values, whatever they are called: a map of places, written with operators of the graph.

Places are numbers in a tensor of the result's shape: p > 0 is element p - 1 of the sources, flattened one after the
other; 0 is a zero; p < 0 is element -p - 1 of a list of constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zonocuda.graph import Add, Gather, ScaleShift
from zonocuda.importers import lowering
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse


def rearrange(
    builder: GraphBuilder, name: str, sources: Sequence[Value], constants: Numbers | None, places: Tensor
) -> Value:
    """The tensor of features ``places.shape`` whose elements are where ``places`` (int64) says.

    Where every value stays at its place, as under a mask: products with masks of 0 and 1, and sums, all of them exact.
    Where positions of one source are selected along each dimension by itself: selections. Else one selection from the
    flattened sources.
    """
    starts = [0]
    for source in sources:
        starts.append(starts[-1] + math.prod(source.shape))
    used = [i for i in range(len(sources)) if bool(((places > starts[i]) & (places <= starts[i + 1])).any())]
    if not used:
        refuse("its result does not depend on the input")
    own = [torch.where((places > starts[i]) & (places <= starts[i + 1]), places - starts[i], 0) for i in used]
    values = [sources[i] for i in used]
    shift = None if constants is None or not bool((places < 0).any()) else _shift(constants, places)
    if all(_stays(value, part) for value, part in zip(values, own, strict=True)):
        return _masked(builder, name, values, own, shift)
    if len(values) == 1 and bool((places > 0).all()):
        index = _by_dimension(values[0], own[0])
        if index is not None:
            return _selected(builder, name, values[0], index)
    return _gathered(builder, name, values, own, shift)


def gather(constants: Numbers, places: Tensor) -> Numbers:
    """Elements of a flat list of constants."""
    if isinstance(constants, Enclosure):
        return constants.of(*(t[places.to(t.device)] for t in (constants.value, constants.error)))
    return constants[places.to(constants.device)]


def _shift(constants: Numbers, places: Tensor) -> Numbers:
    """The constants where they belong, 0 elsewhere."""
    found = gather(constants, (-places - 1).clamp(min=0))
    here = (places < 0).to(found.value.device if isinstance(found, Enclosure) else found.device)
    if isinstance(found, Enclosure):
        return found.of(torch.where(here, found.value, 0.0), torch.where(here, found.error, 0.0))
    return torch.where(here, found, torch.zeros((), dtype=found.dtype, device=found.device))


def _stays(value: Value, part: Tensor) -> bool:
    """Whether the elements that are there are at the places that they have in ``value``."""
    if value.shape != tuple(part.shape):
        return False
    identity = torch.arange(1, part.numel() + 1, device=part.device).reshape(part.shape)
    return bool(((part == identity) | (part == 0)).all())


def _masked(
    builder: GraphBuilder, name: str, values: Sequence[Value], own: Sequence[Tensor], shift: Numbers | None
) -> Value:
    total: Value | None = None
    for count, (value, part) in enumerate(zip(values, own, strict=True), start=1):
        last = count == len(values)
        here = part > 0
        mask = None if bool(here.all()) else here.to(torch.float32)
        label = name if len(values) == 1 else f"{name}/{count}"
        held = builder.constants(scale=mask, shift=shift if last else None)
        changes = any(constant is not None for constant in (held["scale"], held["shift"]))
        term = builder.emit(label, ScaleShift(**held), value) if changes else value
        total = term if total is None else builder.emit(name if last else f"{name}/sum", Add(), total, term)
    assert total is not None
    return total


def _by_dimension(value: Value, part: Tensor) -> list[list[int]] | None:
    """The positions along each dimension, where the result is a selection along each dimension."""
    if part.dim() != len(value.shape) or not part.numel():
        return None
    rest, found = part - 1, []
    for dim, extent in reversed(list(enumerate(value.shape))):
        coordinate, rest = rest % extent, rest // extent
        line = coordinate[tuple(slice(None) if d == dim else 0 for d in range(part.dim()))]
        if not bool((coordinate == line.reshape([-1 if d == dim else 1 for d in range(part.dim())])).all()):
            return None
        found.append([int(i) for i in line])
    return found[::-1]


def _selected(builder: GraphBuilder, name: str, x: Value, index: Sequence[Sequence[int]]) -> Value:
    dims = [dim for dim, picked in enumerate(index) if list(picked) != list(range(x.shape[dim]))]
    for dim in dims:
        x = lowering.select(builder, name if dim == dims[-1] else f"{name}/{dim}", x, dim, index[dim])
    return x


def _gathered(
    builder: GraphBuilder, name: str, values: Sequence[Value], own: Sequence[Tensor], shift: Numbers | None
) -> Value:
    flat, start = [], 0
    places = torch.zeros_like(own[0])
    for count, (value, part) in enumerate(zip(values, own, strict=True)):
        size = math.prod(value.shape)
        flat.append(lowering.reshape(builder, f"{name}/flat{count}", value, (size,)))
        places = torch.where(part > 0, part + start, places)
        start += size
    x = lowering.concat(builder, f"{name}/all", flat, 0)
    if bool((places == 0).any()):
        x = lowering.pad(builder, f"{name}/zero", x, ((0, 1),))
        places = torch.where(places == 0, start + 1, places)
    shape = tuple(places.shape)
    steps = ["select"] + ["shape"] * (len(shape) != 1) + ["shift"] * (shift is not None)
    names = {step: name if step == steps[-1] else f"{name}/{step}" for step in steps}
    x = builder.emit(names["select"], Gather(0, tuple((places.flatten() - 1).tolist())), x)
    x = lowering.reshape(builder, names.get("shape", name), x, shape)
    return x if shift is None else builder.emit(name, ScaleShift(**builder.constants(scale=None, shift=shift)), x)
