"""Forward-mode differentiation, which the native ops do not have, is refused and never answered with a zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zonocuda import ops, reference

G = torch.tensor([[[0.5, -1.0], [0.25, 2.0]]])
CENTER = torch.tensor([[0.1, -0.2]])
INDEX = torch.tensor([1, 0])
CORNERS = torch.tensor([[0, 0], [0, 1]])

CALLS: dict[str, Callable[[Tensor], object]] = {
    "concretize": lambda t: ops.concretize(t, G)[0],
    "relu": lambda t: ops.relu(t, G).center,
    "relu slope": lambda t: ops.relu(CENTER, G, t).center,
    "relu_relaxation": lambda t: ops.relu_relaxation(t - 1, t + 1).offset,
    "scale": lambda t: ops.scale(G, t),
    "diagonal_linear": lambda t: ops.diagonal_linear(t, INDEX, torch.eye(2)),
    "error_block": lambda t: ops.error_block(t, INDEX, (2,)),
    "window_radius": lambda t: ops.window_radius(t.reshape(1, 2, 1, 1, 1), CORNERS, 2, 2),
    "window_scale": lambda t: ops.window_scale(torch.ones(1, 2, 1, 1, 1), CORNERS, t.reshape(1, 1, 1, 2)),
    "window_dense": lambda t: ops.window_dense(t.reshape(1, 2, 1, 1, 1), CORNERS, 2, 2),
    "diagonal_conv": lambda t: ops.diagonal_conv(
        torch.ones(1, 2), INDEX, t.reshape(2, 1, 1, 1), 1, 1, 2, (1, 1), (0, 0), (1, 1), 1, 1, 2
    ),
    "elementary": lambda t: ops.elementary(t, "exp"),
    "nonsmooth_relu": lambda t: ops.nonsmooth_relu(t),
    "nonsmooth_maximum": lambda t: ops.nonsmooth_maximum(G[0, 0], t),
    "nonsmooth_max": lambda t: ops.nonsmooth_max(t, 1),
    "nonsmooth_max_pool2d": lambda t: ops.nonsmooth_max_pool2d(t.reshape(1, 1, 2), (1, 2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_tangent_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match="forward-mode differentiation is not supported"):
        torch.func.jvp(CALLS[name], (CENTER,), (torch.ones_like(CENTER),))


def test_the_reference_has_tangents() -> None:
    _, tangent = torch.func.jvp(lambda c: reference.concretize(c, G)[0], (CENTER,), (torch.ones_like(CENTER),))
    assert torch.equal(tangent, torch.ones_like(CENTER))
