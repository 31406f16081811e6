"""What torch needs to know of an op: its shapes without data, its derivative, and itself on one batch more.

The autograd formula works in ``torch.autograd`` and in the transforms of ``torch.func`` (``grad``, ``vjp``, ``jacrev``,
and any nesting with ``vmap``) alike: each level of a transform records a level of derivatives, as it does for torch's
own ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd.function import _SingleLevelFunction

from zonocuda.ops.library import LIBRARY, NATIVE

Dims = tuple[int | None, ...]


def fake(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers what gives the op's outputs without data.

    From here for all ops: torch looks up the file of whoever registers, which takes milliseconds for each new one.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        torch.library.register_fake(f"zonocuda::{name}", function)
        return function

    return register


def differentiable(
    name: str,
    backward: Callable[..., tuple[Tensor | None, ...]],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
) -> None:
    """Registers an op's derivative, as ``torch.library.register_autograd`` does, for ``torch.func`` as well.

    Args:
        name: of the op.
        backward: from the context and the gradients of the outputs to those of the inputs.
        setup_context: from the context, the inputs and the outputs; saves what ``backward`` needs.
    """
    op = getattr(NATIVE, name).default

    def below(keyset: Any, args: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def forward(ctx: Any, *args: Any) -> Any:
        *given, keyset = args
        with torch.enable_grad():  # off inside an autograd.Function, and so for the outer levels of nested transforms
            output = below(keyset, tuple(given))
        setup_context(ctx, tuple(given), output)
        return output

    def backward_of_all(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        ctx.needs_input_grad = needed[:-1]
        try:
            return *backward(ctx, *grads), None
        finally:
            ctx.needs_input_grad = needed

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward_of_all)}
    formula = type(name, (_SingleLevelFunction,), methods)

    def kernel(keyset: Any, *args: Any) -> Any:
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*args)):
            return below(keyset, args)
        if not torch._C._are_functorch_transforms_active():
            return formula.apply(*args, keyset)  # type: ignore[attr-defined]
        with enable_single_level_autograd_function():  # of the level whose derivatives are recorded right here
            return formula.apply(*args, keyset)  # type: ignore[attr-defined]

    LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)


def refuse_double_backward(name: str) -> None:
    """Registers an autograd formula of ``_<name>_backward`` that says it has none."""

    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise RuntimeError(
            f"{name}: double backward is not supported; use the reference backend for second derivatives"
        )

    differentiable(f"_{name}_backward", backward, lambda ctx, inputs, output: None)


def batched(name: str, arguments: Dims, outputs: Sequence[int]) -> None:
    """Registers what ``torch.vmap`` does with an op: the dimension that it maps over becomes part of the op's batch.

    Args:
        name: of the op.
        arguments: for each argument the position of its batch, into which the mapped dimension is folded. None: it has
            none (or is no tensor), and where it is mapped over itself the op is called once for each entry.
        outputs: for each output the position of its batch.
    """
    op = getattr(NATIVE, name).default

    def rule(info: Any, in_dims: Dims, *args: Any) -> tuple[Any, Any]:
        count = info.batch_size
        known = (*arguments, *[None] * (len(args) - len(arguments)))
        if any(_is_mapped(a, dim) and at is None for a, dim, at in zip(args, in_dims, known, strict=True)):
            return _one_by_one(op, count, in_dims, args)
        folded = [
            a if at is None or not isinstance(a, Tensor) else _fold(a, dim, at, count)
            for a, dim, at in zip(args, in_dims, known, strict=True)
        ]
        found = op(*folded)
        if isinstance(found, Tensor):
            return _unfold(found, outputs[0], count), outputs[0]
        return tuple(_unfold(t, at, count) for t, at in zip(found, outputs, strict=True)), tuple(outputs)

    torch.library.register_vmap(f"zonocuda::{name}", rule, lib=LIBRARY)


def elementwise(name: str, tensors: int) -> None:
    """Registers what ``torch.vmap`` does with an op of tensors of one shape: the mapped dimension is one more of them.

    Args:
        name: of the op.
        tensors: how many arguments are such tensors; they come first.
    """
    op = getattr(NATIVE, name).default

    def rule(info: Any, in_dims: Dims, *args: Any) -> tuple[Any, Any]:
        shared = [
            (a.unsqueeze(0).expand(info.batch_size, *a.shape) if dim is None else a.movedim(dim, 0)).contiguous()
            for a, dim in zip(args[:tensors], in_dims, strict=False)
        ]
        found = op(*shared, *args[tensors:])
        return found, 0 if isinstance(found, Tensor) else (0,) * len(found)

    torch.library.register_vmap(f"zonocuda::{name}", rule, lib=LIBRARY)


def one_by_one(name: str) -> None:
    """Registers that ``torch.vmap`` calls an op, whose outputs sum over its batch, once for each entry."""
    op = getattr(NATIVE, name).default

    def rule(info: Any, in_dims: Dims, *args: Any) -> tuple[Any, Any]:
        return _one_by_one(op, info.batch_size, in_dims, args)

    torch.library.register_vmap(f"zonocuda::{name}", rule, lib=LIBRARY)


def _is_mapped(argument: Any, dim: Any) -> bool:
    """Whether vmap maps over an argument; of a list of numbers it says a list."""
    return isinstance(argument, Tensor) and dim is not None


def _fold(t: Tensor, dim: int | None, at: int, count: int) -> Tensor:
    spread = t.unsqueeze(at).expand(*t.shape[:at], count, *t.shape[at:]) if dim is None else t.movedim(dim, at)
    return spread.flatten(at, at + 1).contiguous()


def _unfold(t: Tensor, at: int, count: int) -> Tensor:
    return t.reshape(*t.shape[:at], count, t.shape[at] // count, *t.shape[at + 1 :])


def _one_by_one(op: Any, count: int, in_dims: Dims, args: tuple[Any, ...]) -> tuple[Any, Any]:
    pairs = list(zip(args, in_dims, strict=True))
    found = [
        op(*(a.select(dim, i).contiguous() if _is_mapped(a, dim) else a for a, dim in pairs)) for i in range(count)
    ]
    if isinstance(found[0], Tensor):
        return torch.stack(found), 0
    return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])
