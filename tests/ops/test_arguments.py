"""What an op cannot take is one class of error, whose text names the op and no place in its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zonocuda import ops
from zonocuda.ops.errors import argument_error

C, G = torch.zeros(2, 3), torch.zeros(2, 4, 3)
INDEX = torch.tensor([0, 1, 2])
P, CORNERS = torch.zeros(1, 2, 1, 2, 2), torch.zeros(2, 2, dtype=torch.int64)

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "half": (lambda: ops.relu(C.half(), G.half()), "relu: dtype must be float32 or float64, got"),
    "integers": (lambda: ops.concretize(C.int(), G.int()), "concretize: dtype must be"),
    "another dtype": (lambda: ops.relu(C, G.double()), "relu: center must have the other tensors' dtype"),
    "slope's dtype": (lambda: ops.relu(C, G, C.double()), "relu: slope must have the other tensors' dtype"),
    "another device": (lambda: ops.relu(C.to("meta"), G), "relu: all tensors must be on one device, got meta and cpu"),
    "slope's device": (lambda: ops.relu(C, G, C.to("meta")), "relu: all tensors must be on one device"),
    "index's device": (lambda: ops.diagonal_linear(C, INDEX.to("meta"), C), "diagonal_linear: all tensors must be on"),
    "sparse": (lambda: ops.relu(C.to_sparse(), G), "relu: tensors must be dense, got one of layout torch.sparse_coo"),
    "shape": (lambda: ops.concretize(C, G[:1]), "concretize: generators must have shape"),
    "no batch": (lambda: ops.concretize(C[0, 0], G), "concretize: generators must have shape"),
    "slope's shape": (lambda: ops.relu(C, G, torch.zeros(5)), "relu: slope must broadcast to shape [2, 3], got [5]"),
    "upper's shape": (lambda: ops.relu_relaxation(C, G), "relu_relaxation: upper must broadcast to shape"),
    "rows": (lambda: ops.dual_relu(C, C, C), "dual_relu: rows must have shape"),
    "slopes": (lambda: ops.dual_relu(G, C, C, C), "dual_relu: negative must have shape"),
    "scale": (lambda: ops.scale(G, C[:1]), "scale: generators must have shape"),
    "scale_": (lambda: ops.scale_(G, C.double()), "scale_: multiplier must have the other tensors' dtype"),
    "scale_ with gaps": (lambda: ops.scale_(G.transpose(1, 2), torch.zeros(2, 4)), "scale_: generators is written in"),
    "index": (lambda: ops.diagonal_linear(C, INDEX.float(), C), "diagonal_linear: index must have dtype int64"),
    "index beyond": (lambda: ops.diagonal_linear(C, INDEX + 9, C), "diagonal_linear: index[0] = 9 is not one of"),
    "index's shape": (lambda: ops.error_block(C, INDEX[:2], (3,)), "error_block: index must have shape"),
    "patches": (lambda: ops.window_radius(C, CORNERS, 2, 2), "window_radius: patches must have shape"),
    "corners": (lambda: ops.window_dense(P, CORNERS.int(), 2, 2), "window_dense: corners must have dtype int64"),
    "multiplier": (lambda: ops.window_scale(P, CORNERS, C), "window_scale: multiplier must have"),
    "no axes": (lambda: ops.im2col(C, [], [], [], [], []), "im2col: a map must have 1 to 3 axes"),
    "other axes": (lambda: ops.im2col(G, [1, 1], [1], [0], [1], [1]), "im2col: a map must have 1 to 3 axes"),
    "kernel 0": (lambda: ops.im2col(G, [0], [1], [0], [1], [1]), "im2col: "),
    "groups": (
        lambda: ops.diagonal_conv(C, INDEX, torch.zeros(1, 1, 1, 1), 3, 1, 1, (1, 1), (0, 0), (1, 1), 2, 1, 1),
        "diagonal_conv: ",
    ),
    "of integers": (lambda: ops.nonsmooth_relu(C.int()), "nonsmooth_relu: dtype must be float16, bfloat16"),
    "no broadcast": (lambda: ops.nonsmooth_maximum(C, G), "nonsmooth_maximum: a and b must broadcast"),
    "two dtypes": (lambda: ops.nonsmooth_maximum(C, C.double()), "nonsmooth_maximum: b must have the other"),
    "nothing": (lambda: ops.nonsmooth_max(C[:0], 0), "nonsmooth_max: the dimension must not be empty"),
    "no image": (lambda: ops.nonsmooth_max_pool2d(C, 2), "nonsmooth_max_pool2d: x must have shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_of_a_wrong_kind_is_refused_by_one_class(name: str) -> None:
    call, expected = REFUSED[name]
    with pytest.raises(ops.ArgumentError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(expected)
    assert not any(part in text for part in ("\n", "csrc", ".h:", ".cpp:"))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RuntimeError)  # as of torch's own ops
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("odd", [None, 3.0, [[1.0]], C.numpy(), "c"])
def test_what_is_no_tensor_is_a_type_error(odd: Any) -> None:
    for call in (
        lambda: ops.concretize(odd, G),
        lambda: ops.scale(G, odd),
        lambda: ops.error_block(C, odd, (3,)),
        lambda: ops.nonsmooth_relu(odd),
        lambda: ops.im2col(odd, [1], [1], [0], [1], [1]),
    ):
        with pytest.raises(TypeError, match="works on tensors, got"):
            call()


def test_errors_that_are_not_of_arguments_stay_what_they_are() -> None:
    assert argument_error(RuntimeError("can't allocate memory: you tried to allocate 1 bytes")) is None
    assert argument_error(RuntimeError("aten::new_empty, a.h:3, API call failed")) is None
    found = argument_error(RuntimeError("check, /a b/../c.h:30, relu: dtype must be x\nmore, /d.h:2, y: z"))
    assert str(found) == "relu: dtype must be x"
