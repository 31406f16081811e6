"""What stands in for torch's functions in a recorded pass, and which functions shift their output by a bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.nonsmooth.conventions import Kind
from zonocuda.nonsmooth.routing import Larger, Largest, LargestOfWindows, Line
from zonocuda.ops.library import NATIVE, dense_layout, is_channels_last
from zonocuda.ties import pair, pooled_length

if TYPE_CHECKING:
    from zonocuda.nonsmooth.session import Session

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Affine:
    """A linear layer, convolution or batch norm whose output a recorded function reads."""

    kind: str
    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    options: Mapping[str, Any]


def _line(session: Session, kind: Kind, x: Tensor, left: float, inplace: bool) -> Tensor:
    call, replayed = session.new_call(kind, x, left)
    dense, call.restore = dense_layout(x.clone() if inplace else x)
    y: Tensor = call.restore(Line.apply(dense, call, replayed, session.choose))  # type: ignore[no-untyped-call]
    result = x.copy_(y) if inplace else y
    session.remember(result, call)
    return result


def _relu(session: Session, input: Tensor, inplace: bool = False) -> Tensor:
    return _line(session, "relu", input, 0.0, inplace)


def _leaky(session: Session, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    if negative_slope < 0:
        return NotImplemented
    return _line(session, "leaky_relu", input, float(negative_slope), inplace)


def _abs(session: Session, input: Tensor) -> Any:
    return _line(session, "abs", input, -1.0, False)


def _maximum(session: Session, input: Tensor, other: Tensor) -> Tensor:
    call, replayed = session.new_call("maximum", input)
    a, b = (t.contiguous() for t in torch.broadcast_tensors(input, other))  # type: ignore[no-untyped-call]
    result: Tensor = Larger.apply(a, b, call, replayed, session.choose)  # type: ignore[no-untyped-call]
    return result


def _max(session: Session, input: Tensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    if isinstance(dim, Tensor) or "other" in other:
        return _maximum(session, input, other.get("other", dim))
    if other or (dim is not None and not isinstance(dim, int)) or input.numel() == 0:
        return NotImplemented
    call, replayed = session.new_call("max_all" if dim is None else "max", input)
    if dim is None:
        flat = input.reshape(1, -1, 1).contiguous()
        value: Tensor = Largest.apply(flat, call, replayed, session.choose)  # type: ignore[no-untyped-call]
        return value.reshape(())
    dim %= input.dim()
    outer, inner = input.shape[:dim], input.shape[dim + 1 :]
    columns = input.reshape(outer.numel(), input.shape[dim], inner.numel()).contiguous()
    value = Largest.apply(columns, call, replayed, session.choose)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        indices = torch.max(input, dim, keepdim).indices
    return torch.return_types.max((value.reshape(indices.shape), indices))


def _max_pool2d(
    session: Session,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        return NotImplemented
    call, replayed = session.new_call("max_pool", input)
    kernel, pad, gaps = _two(kernel_size), _two(padding), _two(dilation)
    step = kernel if stride is None or stride == [] else _two(stride)
    size = (input.shape[-2], input.shape[-1])
    output = tuple(pooled_length(size[i], kernel[i], step[i], pad[i], gaps[i], ceil_mode) for i in range(2))
    call.window = (size, kernel, step, pad, gaps, (output[0], output[1]))
    if is_channels_last(input):
        images = input.permute(0, 2, 3, 1)
        call.restore = lambda t: t.permute(0, 3, 1, 2)
    else:
        images = input.reshape(input.shape[:-2].numel(), *size, 1).contiguous()
        shape = (*input.shape[:-2], *output)
        call.restore = lambda t: t.reshape(shape)
    values = LargestOfWindows.apply(images, call, replayed, session.choose)  # type: ignore[no-untyped-call]
    return call.restore(values)


def _two(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return pair("an argument", value if isinstance(value, int) else tuple(value), 0)


def _own_line(session: Session, x: Tensor, left: float = 0.0, at_zero: float = 0.0) -> Tensor:
    kind: Kind = "relu" if left == 0 else "abs" if left == -1 else "leaky_relu"
    return _line(session, kind, x, left, False)


def _own_maximum(session: Session, a: Tensor, b: Tensor, first: float) -> tuple[Tensor]:
    return (_maximum(session, a, b),)


def _own_max(session: Session, x: Tensor, *weights: float) -> tuple[Tensor]:
    call, replayed = session.new_call("max", x)
    return (Largest.apply(x, call, replayed, session.choose),)  # type: ignore[no-untyped-call]


def _own_max_pool2d(
    session: Session, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, output: Any, *weights: float
) -> tuple[Tensor]:
    call, replayed = session.new_call("max_pool", x)
    pairs = (x.shape[1:3], kernel, stride, padding, dilation, output)
    call.window = tuple((int(p[0]), int(p[1])) for p in pairs)
    call.restore = lambda t: t.permute(0, 3, 1, 2)
    return (LargestOfWindows.apply(x, call, replayed, session.choose),)  # type: ignore[no-untyped-call]


def _inplace(handler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda session, *args, **kwargs: handler(session, *args, **kwargs, inplace=True)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Affine:
    return Affine("linear", input, weight, bias, {})


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Affine:
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Affine("conv2d", input, weight, bias, options)


def _batch_norm(
    input: Tensor, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, *_: Any, **__: Any
) -> Affine:
    return Affine("batch_norm", input, None, bias, {})


def _batch_norm_aten(input: Tensor, weight: Any, bias: Any, *_: Any, **__: Any) -> Affine:
    return Affine("batch_norm", input, None, bias, {})


HANDLERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu, aten.relu.default), _relu),
    **dict.fromkeys((F.relu_, torch.relu_, Tensor.relu_, aten.relu_.default), _inplace(_relu)),
    **dict.fromkeys((F.leaky_relu, torch._C._nn.leaky_relu, aten.leaky_relu.default), _leaky),
    **dict.fromkeys((F.leaky_relu_, torch._C._nn.leaky_relu_, aten.leaky_relu_.default), _inplace(_leaky)),
    **dict.fromkeys((torch.abs, Tensor.abs, torch.absolute, Tensor.absolute, aten.abs.default), _abs),
    **dict.fromkeys((torch.maximum, Tensor.maximum, aten.maximum.default), _maximum),
    **dict.fromkeys((torch.max, Tensor.max, aten.max.dim, aten.max.default), _max),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d, aten.max_pool2d.default), _max_pool2d),
    # The ops of zonocuda.nonsmooth: what they are asked for gives way to the convention of the pass.
    NATIVE.nonsmooth_relu.default: _own_line,
    NATIVE.nonsmooth_maximum.default: _own_maximum,
    NATIVE.nonsmooth_max.default: _own_max,
    NATIVE.nonsmooth_max_pool2d.default: _own_max_pool2d,
}
AFFINE: dict[Any, Callable[..., Affine]] = {
    **dict.fromkeys((F.linear, aten.linear.default), _linear),
    **dict.fromkeys((F.conv2d, torch.conv2d, aten.conv2d.default), _conv2d),
    F.batch_norm: _batch_norm,
    aten.batch_norm.default: _batch_norm_aten,
}
CONSTANTS: frozenset[Any] = frozenset(  # whose results do not depend on the values of what they are given
    {torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like}
    | {Tensor.new_zeros, Tensor.new_ones, Tensor.new_full, Tensor.new_empty}
)
LEAKS: frozenset[Any] = frozenset(  # by which values leave the program, or derivatives are changed
    (Tensor.tolist, Tensor.numpy, Tensor.data_ptr, Tensor.untyped_storage, Tensor.register_hook, Tensor.__dlpack__)
)
