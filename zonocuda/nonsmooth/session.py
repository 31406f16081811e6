"""Runs a program with its nonsmooth functions replaced by recorded ones, whose derivatives are chosen afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zonocuda.nonsmooth.conventions import Convention, Kind
from zonocuda.nonsmooth.handlers import AFFINE, CONSTANTS, HANDLERS, LEAKS, Affine
from zonocuda.nonsmooth.routing import RECORDED, Call
from zonocuda.nonsmooth.smooth import is_smooth

_Stamp = tuple[int, torch.Size, tuple[int, ...]]


def _stamp(tensor: Tensor) -> _Stamp:
    """Changes when a tensor is overwritten or reshaped in place."""
    return tensor._version, tensor.shape, tensor.stride()


class Session(TorchFunctionMode):
    """One forward pass that is recorded, or replayed along ``replayed``; its graph gives gradients for any choice."""

    def __init__(self, convention: Convention, other: Convention, replayed: Sequence[Call] | None = None) -> None:
        super().__init__()
        self.convention, self.other, self.replayed = convention, other, replayed
        self.switched: frozenset[int] = frozenset()  # the calls that use the other convention
        self.calls: list[Call] = []
        self.unrecorded: Counter[str] = Counter()
        self.uses: Counter[int] = Counter()  # how often each parameter is read
        self._sources: dict[int, tuple[Affine | Call, _Stamp]] = {}
        self._alive: list[object] = []  # what `_sources` names by id
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
        if not any(_is_differentiable(t) for t in tensors):
            return func(*args, **kwargs)
        handler = HANDLERS.get(func) if torch.is_grad_enabled() else None
        result = NotImplemented
        if handler is not None:
            with self._silent():
                result = handler(self, *args, **kwargs)
        if result is NotImplemented:
            before = self.unrecorded.total()
            result = func(*args, **kwargs)
            if self.unrecorded.total() == before and (func in LEAKS or (func not in CONSTANTS and _cuts_off(result))):
                self.unrecorded[resolve_name(func) or str(func)] += 1
        if result is None or any(isinstance(t, Tensor) for t in tree_leaves(result)):  # not a question for a shape
            self.uses.update({id(t) for t in tensors if t.requires_grad and t.is_leaf})
        if func in AFFINE and isinstance(result, Tensor) and result.requires_grad:
            self.remember(result, AFFINE[func](*args, **kwargs))
        return result

    @contextmanager
    def _silent(self) -> Iterator[None]:
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def saw(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An operation below torch's functions is executed: reported where a derivative goes into it and may not come
        out as the chain rule has it.
        """
        if self._quiet or is_smooth(op, args, kwargs):
            return
        if any(isinstance(t, Tensor) and _is_differentiable(t) for t in tree_leaves((args, kwargs))):
            self.unrecorded[op._schema.name.removeprefix("aten::")] += 1

    def look_back(self, result: Tensor) -> None:
        """Reports the autograd functions behind ``result`` that torch did not write: their derivatives are anyone's."""
        seen, waiting = set(), [result.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            if isinstance(node, BackwardCFunction) and node._forward_cls not in RECORDED:
                self.unrecorded[f"autograd.Function {node._forward_cls.__name__}"] += 1

    def remember(self, tensor: Tensor, source: Affine | Call) -> None:
        """Notes where a tensor, as it is now, comes from."""
        self._alive.append(tensor)
        self._sources[id(tensor)] = source, _stamp(tensor)

    def source_of(self, tensor: Tensor) -> Affine | Call | None:
        """Where it comes from, if that was noted and nothing was written into it since."""
        source, stamp = self._sources.get(id(tensor), (None, None))
        return source if stamp == _stamp(tensor) else None

    def new_call(self, kind: Kind, x: Tensor, left: float = 0.0) -> tuple[Call, Call | None]:
        """The next call, and the recorded one that it has to follow.

        Raises:
            RuntimeError: the replay took another path through the program.
        """
        where = self._modules[-1]
        position = self._seen[where, kind]
        self._seen[where, kind] += 1
        call = Call(len(self.calls), f"{where}:{kind}" + (f"#{position}" if position else ""), kind, left)
        call.source = self.source_of(x)
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
        self._session.saw(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_differentiable(t: Tensor) -> bool:
    return t.requires_grad and t.is_floating_point()


def _cuts_off(result: Any) -> bool:
    """Whether a function of something differentiable has a result that no derivative comes back from."""
    return any(isinstance(t, Tensor) and not t.requires_grad for t in tree_leaves(result))
