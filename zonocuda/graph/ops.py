"""The operators of a network: what each computes, its linear part, and its adjoint.

Every operator works on tensors ``[B, *features]``: dimension 0 is a batch, and every dimension that an
operator names (``dim``, ``permutation``, ``pads``) counts the feature dimensions from 0.

An *affine* operator is y = A x + b. It offers three maps:

* ``apply(x)``             A x + b, the network's own computation;
* ``linear(x)``            A x, what happens to a generator;
* ``adjoint(v, shape)``    A^T v for the feature shape of x, what happens to a row of the dual pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.brief import brief_repr

HOPELESS = 2**62
"""Roundings of a constant about whose error nothing is known: no bound that uses it is finite."""

Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


def flat_pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """``((top, bottom), (left, right))`` in the order of ``torch.nn.functional.pad``: last dimension first."""
    return [amount for pair in reversed(pads) for amount in pair]


def _dims(dims: Sequence[int]) -> list[int]:
    """Feature dimensions as tensor dimensions (the batch comes first)."""
    return [d + 1 for d in dims]


@dataclass(frozen=True, eq=False)
class Op:
    """One operator of a network."""

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        cls.__repr__ = brief_repr  # type: ignore[method-assign]  # before a dataclass writes its own

    def apply(self, *inputs: Tensor) -> Tensor:
        """The operator itself: ``[B, *features]`` of every input to ``[B, *features]`` of the output."""
        raise NotImplementedError

    def execute(self, *inputs: Tensor) -> Tensor:
        """What the network computes, in the inputs' dtype: as :meth:`apply`, unless the network itself rounds here."""
        return self.apply(*inputs)

    @property
    def kind(self) -> str:
        """The operator's name in messages and results."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Input(Op):
    """The network's input."""


@dataclass(frozen=True, eq=False)
class Relu(Op):
    """max(x, 0), elementwise."""

    def apply(self, *inputs: Tensor) -> Tensor:
        return torch.relu(inputs[0])


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """y = A x + b of one input.

    ``roundings``: a k that bounds how far the network's constants c, in real arithmetic, are from those held here, h:
    |c - h| <= gamma_k |h| for every element of every constant, with gamma_k = k u / (1 - k u) and u = 2^-53, as k
    roundings to float64 give. It is 0 where the constants are a file's or a module's own; an importer that derives or
    folds them counts (:mod:`zonocuda.importers.constants.enclosure`), and the arithmetic that converts them to a dtype
    adds its own (:mod:`zonocuda.bounds.rounding.arithmetic`). It says nothing about the constants that the network's
    own execution has where it computes them itself, in its own precision: those are in
    :attr:`zonocuda.graph.Graph.executed`.

    ``doubt``: by the name of a constant, E in float64 such that |c - h| <= gamma_k |h| + E. Where constants cancel, a k
    alone would not say it.
    """

    roundings: int = field(default=0, kw_only=True)
    doubt: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    has_offset: ClassVar[bool] = False
    """Whether b can be nonzero."""

    def apply(self, *inputs: Tensor) -> Tensor:
        return self.linear(inputs[0])

    def linear(self, x: Tensor) -> Tensor:
        """A x."""
        raise NotImplementedError

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        """A^T v, for v ``[B, *output features]`` and the input's feature ``shape``."""
        raise NotImplementedError

    @property
    def has_constants(self) -> bool:
        """Whether A or b holds numbers of the network, which can be in error."""
        return any(isinstance(getattr(self, entry.name), Tensor) for entry in fields(self))

    def offset(self, shape: Shape, like: Tensor) -> Tensor:
        """b as ``[1, *output features]``, with the dtype and device of ``like``."""
        return self.apply(like.new_zeros((1, *shape)))


class Rearrangement(Affine):
    """An affine operator whose every output is one of its inputs, each used at most once, or a constant."""


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    """y = W x + b on the last feature dimension; ``weight`` is ``[out, in]``, ``bias`` ``[out]`` or None."""

    weight: Tensor
    bias: Tensor | None = None
    has_offset: ClassVar[bool] = True

    def apply(self, *inputs: Tensor) -> Tensor:
        return F.linear(inputs[0], self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        return v @ self.weight


@dataclass(frozen=True, eq=False)
class ScaleShift(Affine):
    """y = scale * x + shift, elementwise; both broadcast against the feature dimensions. None: 1 and 0."""

    scale: Tensor | None
    shift: Tensor | None
    has_offset: ClassVar[bool] = True

    def apply(self, *inputs: Tensor) -> Tensor:
        out = self.linear(inputs[0])
        return out if self.shift is None else out + self.shift

    def linear(self, x: Tensor) -> Tensor:
        return x if self.scale is None else x * self.scale

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        return self.linear(v)


@dataclass(frozen=True, eq=False)
class Reduce(Affine):
    """Sum (or mean) over the feature dimensions ``dims``."""

    dims: Shape
    mean: bool
    keepdim: bool

    def linear(self, x: Tensor) -> Tensor:
        reduce = torch.mean if self.mean else torch.sum
        return reduce(x, dim=_dims(self.dims), keepdim=self.keepdim)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        if not self.keepdim:
            kept = [1 if d in self.dims else n for d, n in enumerate(shape)]
            v = v.reshape(v.shape[0], *kept)
        count = math.prod(shape[d] for d in self.dims) if self.mean else 1
        return v.expand(v.shape[0], *shape) / count


@dataclass(frozen=True, eq=False)
class Expand(Affine):
    """Broadcast to the feature shape ``shape``."""

    shape: Shape

    def linear(self, x: Tensor) -> Tensor:
        missing = len(self.shape) - (x.dim() - 1)
        return x.reshape(x.shape[0], *[1] * missing, *x.shape[1:]).expand(x.shape[0], *self.shape)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        padded = (1,) * (len(self.shape) - len(shape)) + shape
        dims = [d + 1 for d, (n, m) in enumerate(zip(padded, self.shape, strict=True)) if n != m]
        if dims:
            v = v.sum(dim=dims, keepdim=True)
        return v.reshape(v.shape[0], *shape)


@dataclass(frozen=True, eq=False)
class Reshape(Rearrangement):
    """Row-major reshape of the features to ``shape``."""

    shape: Shape

    def linear(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        return v.reshape(v.shape[0], *shape)


@dataclass(frozen=True, eq=False)
class Transpose(Rearrangement):
    """Permutation of the feature dimensions: output dimension i is input dimension ``permutation[i]``."""

    permutation: Shape

    def linear(self, x: Tensor) -> Tensor:
        return x.permute(0, *_dims(self.permutation))

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        inverse = sorted(range(len(self.permutation)), key=self.permutation.__getitem__)
        return v.permute(0, *_dims(inverse))


@dataclass(frozen=True, eq=False)
class Cast(Rearrangement):
    """Rounding to the floating-point type ``target``, which does not hold all values that may come: y = fl(x).

    fl(x) = x + d with |d| <= u |x| + eta / 2 for |x| <= max; u, eta and max are the type's unit roundoff, least
    positive number and largest number. Conversions to 16-bit types may round twice, by way of float32: 2^-12 of that
    bound more covers it. The affine part is the identity; who counts rounding adds d (:meth:`error`).
    """

    target: torch.dtype

    def execute(self, *inputs: Tensor) -> Tensor:
        return inputs[0].to(self.target).to(inputs[0].dtype)

    def linear(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        return v

    @property
    def largest(self) -> float:
        """max."""
        return torch.finfo(self.target).max

    def error(self, size: Tensor) -> Tensor:
        """At least |d| where |x| <= ``size``, but for three roundings of its own; infinite where fl(x) may be so."""
        info = torch.finfo(self.target)
        unit = info.eps / 2 * (1 if info.bits > 16 else 1 + 2**-12)
        found = torch.where(size > 0, unit * size + unit * info.tiny, size)  # eta / 2 = u tiny
        return found.masked_fill(~(size <= info.max), math.inf)


@dataclass(frozen=True, eq=False)
class Pad(Rearrangement):
    """Constant padding: (begin, end) for every feature dimension."""

    pads: Pads
    value: float = 0.0
    has_offset: ClassVar[bool] = True

    @property
    def has_constants(self) -> bool:
        return self.value != 0

    def apply(self, *inputs: Tensor) -> Tensor:
        return F.pad(inputs[0], flat_pads(self.pads), value=self.value)

    def linear(self, x: Tensor) -> Tensor:
        return F.pad(x, flat_pads(self.pads))

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        return F.pad(v, [-amount for amount in flat_pads(self.pads)])


@dataclass(frozen=True, eq=False)
class Gather(Affine):
    """Selection along one feature dimension: output position i is input position ``index[i]`` (nonnegative)."""

    dim: int
    index: tuple[int, ...]

    def linear(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim + 1, torch.tensor(self.index, device=x.device))

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        out = v.new_zeros((v.shape[0], *shape))
        return out.index_add(self.dim + 1, torch.tensor(self.index, device=v.device), v)


@dataclass(frozen=True, eq=False)
class Add(Op):
    """x + sign * y of two inputs of one shape; ``sign`` is 1 or -1."""

    sign: int = 1

    def apply(self, *inputs: Tensor) -> Tensor:
        x, y = inputs
        return x + y if self.sign == 1 else x - y


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Concatenation of the inputs along one feature dimension."""

    dim: int

    def apply(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=self.dim + 1)
