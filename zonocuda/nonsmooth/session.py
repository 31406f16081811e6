"""Runs a program with its nonsmooth functions replaced by recorded ones, whose derivatives are chosen afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zonocuda.nonsmooth.conventions import Convention, Kind
from zonocuda.nonsmooth.routing import Call, Larger, Largest, LargestOfWindows, Line
from zonocuda.ops.library import dense_layout, is_channels_last
from zonocuda.ties import pair, pooled_length

aten = torch.ops.aten
# Operations with kinks or jumps, and comparisons, that are not recorded. One that gets something that wants a gradient
# is reported.
_UNRECORDED = frozenset(
    """
    relu relu_ leaky_relu leaky_relu_ clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ hardtanh hardtanh_
    hardswish hardswish_ hardsigmoid hardsigmoid_ hardshrink softshrink threshold threshold_ _prelu_kernel
    rrelu_with_noise abs abs_ max amax aminmax min amin maximum minimum fmax fmin cummax cummin sort topk kthvalue
    median nanmedian max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
    fractional_max_pool2d where gt ge lt le eq ne sign sgn round floor ceil trunc remainder fmod heaviside
    _local_scalar_dense linalg_vector_norm
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, eq=False)
class Affine:
    """A linear layer, convolution or batch norm whose output a recorded function reads."""

    kind: str
    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    options: Mapping[str, Any]


class Session(TorchFunctionMode):
    """One forward pass that is recorded, or replayed along ``replayed``; its graph gives gradients for any choice."""

    def __init__(self, convention: Convention, other: Convention, replayed: Sequence[Call] | None = None) -> None:
        super().__init__()
        self.convention, self.other, self.replayed = convention, other, replayed
        self.switched: frozenset[int] = frozenset()  # the calls that use the other convention
        self.calls: list[Call] = []
        self.unrecorded: Counter[str] = Counter()
        self.uses: Counter[int] = Counter()  # how often each parameter is read
        self.sources: dict[int, Affine | Call] = {}
        self._alive: list[object] = []  # what `sources` names by id
        self._modules: list[str] = ["(top)"]
        self._seen: Counter[tuple[str, str]] = Counter()
        self._quiet = 0

    def choose(self, call: Call) -> Convention:
        """The convention of a call in the backward pass that runs now."""
        return self.other if call.index in self.switched else self.convention

    @contextmanager
    def running(self, module: nn.Module) -> Iterator[None]:
        """Records what runs inside, and in which submodule of ``module``."""
        hooks = []
        for name, child in module.named_modules():
            where = name or "(top)"
            hooks.append(child.register_forward_pre_hook(lambda *_, where=where: self._modules.append(where)))
            hooks.append(child.register_forward_hook(lambda *_: self._leave(), always_call=True))
        try:
            with self, _Watch(self):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self) -> None:
        self._modules.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        differentiable = torch.is_grad_enabled() and any(t.requires_grad and t.is_floating_point() for t in tensors)
        handler = _HANDLERS.get(func) if differentiable else None
        if handler is not None:
            with self._silent():
                result = handler(self, *args, **kwargs)
            if result is not NotImplemented:
                return result
        if differentiable:
            result = func(*args, **kwargs)
            if any(isinstance(t, Tensor) for t in tree_leaves(result)):  # not a question for a shape
                self.uses.update({id(t) for t in tensors if t.requires_grad and t.is_leaf})
            if func in _AFFINE:
                self.remember(result, _AFFINE[func](*args, **kwargs))
            return result
        with self._silent():
            return func(*args, **kwargs)

    @contextmanager
    def _silent(self) -> Iterator[None]:
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def saw(self, name: str) -> None:
        """An operation below torch's functions was executed."""
        if not self._quiet and name in _UNRECORDED:
            self.unrecorded[name] += 1

    def remember(self, tensor: Tensor, source: Affine | Call) -> None:
        """Notes where a tensor comes from."""
        self._alive.append(tensor)
        self.sources[id(tensor)] = source

    def new_call(self, kind: Kind, x: Tensor, left: float = 0.0) -> tuple[Call, Call | None]:
        """The next call, and the recorded one that it has to follow.

        Raises:
            RuntimeError: the replay took another path through the program.
        """
        where = self._modules[-1]
        position = self._seen[where, kind]
        self._seen[where, kind] += 1
        call = Call(len(self.calls), f"{where}:{kind}" + (f"#{position}" if position else ""), kind, left)
        call.source = self.sources.get(id(x))
        replayed = None
        if self.replayed is not None:
            if call.index >= len(self.replayed) or self.replayed[call.index].layer != call.layer:
                raise RuntimeError(
                    f"audit: {call.layer} is reached in another order when the routing is replayed; the model's "
                    "control flow depends on its values, and cannot be audited"
                )
            replayed = self.replayed[call.index]
        self.calls.append(call)
        return call, replayed


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells the session of every operation that is executed."""

    def __init__(self, session: Session) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._session = session

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten":
            self._session.saw(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


# ---- handlers: what stands in for torch's functions ------------------------------------------------------------------


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


_HANDLERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu, aten.relu.default), _relu),
    **dict.fromkeys((F.relu_, torch.relu_, Tensor.relu_, aten.relu_.default), _inplace(_relu)),
    **dict.fromkeys((F.leaky_relu, torch._C._nn.leaky_relu, aten.leaky_relu.default), _leaky),
    **dict.fromkeys((F.leaky_relu_, torch._C._nn.leaky_relu_, aten.leaky_relu_.default), _inplace(_leaky)),
    **dict.fromkeys((torch.abs, Tensor.abs, torch.absolute, Tensor.absolute, aten.abs.default), _abs),
    **dict.fromkeys((torch.maximum, Tensor.maximum, aten.maximum.default), _maximum),
    **dict.fromkeys((torch.max, Tensor.max, aten.max.dim, aten.max.default), _max),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d, aten.max_pool2d.default), _max_pool2d),
}
_AFFINE: dict[Any, Callable[..., Affine]] = {
    **dict.fromkeys((F.linear, aten.linear.default), _linear),
    **dict.fromkeys((F.conv2d, torch.conv2d, aten.conv2d.default), _conv2d),
    F.batch_norm: _batch_norm,
    aten.batch_norm.default: _batch_norm_aten,
}
