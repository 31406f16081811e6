"""Evaluation of a module's operators on its parameters, buffers and numbers alone, in real arithmetic.

As :mod:`zonocuda.importers.onnx.constants` does for files: in float64, differentiably, with an error. What a number in
the module's code is to the operators is said in :mod:`zonocuda.importers.constants.call`; its rounding, as any other
conversion to a type that does not hold it, is the module's own, and its result the constant of the network.

An operator is of one of these kinds, and of no other:

* it *makes* tensors, from numbers alone or from a tensor's shape;
* it *moves* numbers, those of its code among them, and their errors with them;
* it *casts*;
* it *contracts*: every result is an operand or its negative (a maximum), and errs as little as they do;
* it *selects* along a dimension (``sort``, ``topk``, ``max`` with indices): its values contract, its indices are those
  of the real numbers where they are further apart than their errors, and undecided where not;
* it *computes*, by a rule of :mod:`zonocuda.importers.constants.rules`;
* it *decides* (comparisons, casts to integers): what rounding could decide is refused;
* nothing is known of it: the errors of its results are infinite, its integers undecided.

What only moves, casts, contracts or selects among the module's own tensors is torch's own result, but for limits
(``clamp``) in 16 bits, which have two readings. All results leave
through :meth:`zonocuda.importers.constants.call.ConstantCall.results`, which holds them against what torch declares.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.call import ConstantCall, Undecided, computed_with, each
from zonocuda.importers.constants.enclosure import Enclosure
from zonocuda.importers.constants.rules import ARITHMETIC, CONTRACTIONS
from zonocuda.importers.errors import refuse


def enclose(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operator computes from tensors, enclosures and numbers, in the structure that torch declares.

    A tensor where its own type holds the result exactly, else an enclosure; ``Undecided`` where nothing may depend on
    the result.

    Raises:
        UnsupportedNetworkError: an argument is undecided, or rounding decides a result that is not a float.
    """
    call = ConstantCall(node, args, kwargs)
    name = call.name
    if call.is_complex:
        return call.undecided("complex numbers are not supported")
    if name in _MAKING:
        return call.results(_made(call))
    if name in _FILLING:
        return call.results(_filled(call))
    if call.dtype is None:
        return call.results(_decision(call))
    if name in ARITHMETIC:
        return call.results(ARITHMETIC[name](call))
    narrow = torch.finfo(call.dtype).bits < 32 and name in CONTRACTIONS
    if call.plain and name in _EXACT and not narrow and not call["accumulate"]:
        return call.results(call.run())
    if name in CONTRACTIONS:
        return call.results(CONTRACTIONS[name](call))
    if name in _CASTS:
        return call.results(call.stored(call["self"]))
    if name in _MOVING and not call["accumulate"]:
        return call.results(_moved(call))
    if name in SELECTING:
        return call.results(_selected(call))
    return call.unknown()


def may_round(node: fx.Node) -> bool:
    """Whether torch's own result on constants may be another than the real one: where it computes, or is not known."""
    name = str(node.target).removeprefix("aten.")
    own = _EXACT | _FILLING | (_MAKING - _PROGRESSIONS)
    return node.target is not operator.getitem and name not in own


def makes(target: str) -> bool:
    """Whether an operator makes tensors from numbers alone, or from a tensor's shape and type."""
    return target.removeprefix("aten.") in _MAKING


# ---- from numbers and shapes alone -----------------------------------------------------------------------------------


def _made(call: ConstantCall) -> Any:
    if call.name in _EMPTY:
        made = call.run()
        return (
            enclosure.unknown(torch.zeros_like(made), made.dtype) if call.dtype else Undecided("it is not written to")
        )
    if call.dtype is None or call.name not in _PROGRESSIONS:
        return call.run()
    made = Enclosure.exact(call.run())
    return enclosure.hull(made, *(_progression(call, made, dtype) for dtype in {call.dtype, torch.float64}))


def _progression(call: ConstantCall, made: Enclosure, dtype: torch.dtype) -> Enclosure:
    """start + i step of numbers in a type; torch rounds this in one place or another, and not always alike."""

    def number(found: float) -> Enclosure:
        return computed_with(found, dtype, made.value.device).typed(made.dtype)

    start, count = number(call["start"] or 0), made.numel()
    if call.name == "linspace.default":
        step = enclosure.divide(enclosure.add(number(call["end"]), start, -1), number(max(count - 1, 1)))
    else:
        step = number(1 if call["step"] is None else call["step"])
    index = torch.arange(count, dtype=torch.float64, device=made.value.device)
    return enclosure.add(start, enclosure.multiply(step, made.of(index, torch.zeros_like(index))))


def _filled(call: ConstantCall) -> Any:
    """The shape of one tensor with the numbers of another, broadcast and rounded to its type."""
    if call.dtype is None:
        return _decision(call)
    found = call.stored(call["src" if call.name == "copy.default" else "value"])
    shape = call.declared.shape
    return found.of(found.value.expand(shape), found.error.expand(shape))


# ---- results that are floats -----------------------------------------------------------------------------------------


def _moved(call: ConstantCall) -> Any:
    """The operator on the values, and on the errors; those of numbers in the code are 0."""
    assert call.dtype is not None
    found = {name: call.stored(call[name]) for name in _DATA if call[name] is not None}

    def through(pick: Callable[[Enclosure], Tensor]) -> Any:
        given = {name: each(lambda e: pick(e).contiguous(), part) for name, part in found.items()}
        numbers = {name: part.item() for name, part in given.items() if isinstance(call[name], int | float)}
        return call.run(given | numbers)

    values, errors = through(lambda part: part.value), through(lambda part: part.error)
    if isinstance(values, Tensor):
        return Enclosure(values, errors, call.dtype)
    return tuple(Enclosure(*pair, call.dtype) for pair in zip(values, errors, strict=True))


def _selected(call: ConstantCall) -> Any:
    """Values err by the largest error along the dimension."""
    x = call("self")
    dims = _dims(call, x)
    found = call.run({"self": x.value})
    worst = x.error.amax(dims, keepdim=True)

    def result(part: Tensor) -> Any:
        if not part.is_floating_point():
            return part if _apart(x, dims) else Undecided("rounding may decide the order of constants that it sorts")
        error = (
            worst if part.dim() == x.dim() else worst.reshape([n for d, n in enumerate(worst.shape) if d not in dims])
        )
        return x.of(part, error.expand(part.shape))

    return each(result, list(found) if isinstance(found, tuple | list) else found)


def _dims(call: ConstantCall, x: Enclosure) -> tuple[int, ...]:
    """The dimensions along which an operator selects."""
    dims = 0 if call.name == "msort.default" else call["dim"]
    if dims is None or dims == [] or not x.dim():
        return tuple(range(x.dim()))
    return tuple(dim % x.dim() for dim in ([dims] if isinstance(dims, int) else dims))


def _apart(x: Enclosure, dims: tuple[int, ...]) -> bool:
    """Whether the real numbers along a dimension are in the order of x's, and no two of them equal."""
    value, error = x.value.detach(), 2 * x.error.amax(dims, keepdim=True) * (1 + 2.0**-40)
    if len(dims) != 1:
        value, error, dims = value.flatten(), error.flatten(), (0,)
    return bool((value.sort(dims[0])[0].diff(dim=dims[0]) > error).all())


# ---- results that are not --------------------------------------------------------------------------------------------


def _decision(call: ConstantCall) -> Any:
    """Booleans, integers, or no tensor at all.

    Raises:
        UnsupportedNetworkError: rounding could decide them.
    """
    kind = call.name.split(".")[0]
    if kind in _COMPARISONS and any(leaf.dtype.is_floating_point for leaf in call.operands):
        return _comparison(call, _COMPARISONS[kind])
    if call.plain:
        return call.run()
    if call.name in _CASTS:
        return _cast(call["self"], call.declared.dtype)
    if kind in _ORDERS:
        x = call["self"]
        if not _apart(x, _dims(call, x)):
            refuse("rounding may decide the order of constants that it compares")
        return call.run({"self": x.value})
    refuse("its result, not of floats, depends on constants that are computed and may be rounded")


def _comparison(call: ConstantCall, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """In the type that torch compares in, to which it rounds a number."""
    pair = call["self"], call["other"]
    bare = [torch.empty(p.shape, dtype=p.dtype, device="meta") if isinstance(p, Enclosure) else p for p in pair]
    dtype = torch.result_type(*bare)
    if call.plain and torch.finfo(dtype).bits >= 32:
        found: Tensor = call.run()
        return found
    left, right = (computed_with(part, dtype, call.device) for part in pair)
    gap = enclosure.add(left, right, -1)
    value = gap.value.detach()
    if not bool(((value.abs() > gap.error) | ((gap.error == 0) & value.isfinite())).all()):
        refuse("it compares constants that rounding cannot tell apart")
    return function(value, torch.zeros_like(value))


def _cast(x: Enclosure, dtype: torch.dtype) -> Tensor:
    """To integers or booleans."""
    value = x.value.detach()
    if dtype == torch.bool:
        found, decided = value != 0, (value.abs() > x.error) | (x.error == 0)
    else:
        step = enclosure.step(torch.trunc, x, dtype)
        found, decided = step.value.detach().to(dtype), (step.error == 0) & (value.abs() < torch.iinfo(dtype).max)
    if not bool(decided.all()):
        refuse(f"it casts constants to {dtype} that rounding cannot tell from other numbers")
    return found


# ---- the operators of each kind --------------------------------------------------------------------------------------


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EMPTY = _names(
    "empty.memory_format empty_like.default empty_permuted.default empty_strided.default new_empty.default "
    "new_empty_strided.default"
)
_PROGRESSIONS = _names("arange.default arange.start arange.start_step linspace.default")
_MAKING = (
    _EMPTY
    | _PROGRESSIONS
    | _names(
        "eye.default eye.m full.default full_like.default new_full.default new_ones.default new_zeros.default "
        "ones.default ones_like.default scalar_tensor.default zeros.default zeros_like.default"
    )
)
_FILLING = _names("copy.default fill.Scalar fill.Tensor")
_CASTS = _names("_to_copy.default to.device to.dtype to.dtype_layout type_as.default")
_MOVING = _names(
    "alias.default block_diag.default cat.default channel_shuffle.default chunk.default clone.default "
    "column_stack.default concat.default constant_pad_nd.default contiguous.default detach.default diag.default "
    "diag_embed.default diagonal.default diagonal_scatter.default dstack.default embedding.default expand.default "
    "flatten.using_ints flip.default fliplr.default flipud.default gather.default hstack.default index.Tensor "
    "index_fill.int_Scalar index_fill.int_Tensor index_put.default index_select.default lift_fresh_copy.default "
    "masked_fill.Scalar masked_fill.Tensor pad.default permute.default pixel_shuffle.default pixel_unshuffle.default "
    "repeat.default repeat_interleave.self_int reshape.default roll.default rot90.default scatter.src scatter.value "
    "select.int select_scatter.default slice.Tensor slice_scatter.default split.Tensor split_with_sizes.default "
    "squeeze.default squeeze.dim squeeze.dims stack.default t.default take.default tile.default transpose.int "
    "tril.default triu.default unbind.int unflatten.int unfold.default _unsafe_view.default unsqueeze.default "
    "view.default vstack.default where.Scalar where.ScalarOther where.ScalarSelf where.self"
)
_DATA = ("self", "other", "src", "tensors", "value", "values", "weight")
"""The arguments of those that move which hold what they move."""
SELECTING = _names(
    "amax.default amin.default aminmax.default cummax.default cummin.default kthvalue.default max.default max.dim "
    "median.default median.dim min.default min.dim msort.default sort.default sort.stable topk.default"
)
_ORDERS = _names("argmax argmin argsort")
_COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **dict.fromkeys(("eq",), torch.eq),
    **dict.fromkeys(("ge", "greater_equal"), torch.ge),
    **dict.fromkeys(("gt", "greater"), torch.gt),
    **dict.fromkeys(("le", "less_equal"), torch.le),
    **dict.fromkeys(("lt", "less"), torch.lt),
    **dict.fromkeys(("ne", "not_equal"), torch.ne),
}
_EXACT = CONTRACTIONS.keys() | _CASTS | _MOVING | SELECTING | _names("mode.default")
"""What computes nothing."""
