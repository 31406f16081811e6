"""How far rounding may move the ops on windowed generators: see cases.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zonocuda import reference


def window_radius_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The sums of magnitudes are the values themselves."""
    return (reference.window_radius(**inputs),)


def window_radius_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """A gradient is a sign times a cotangent."""
    everywhere = torch.ones_like(inputs["patches"])
    return {"patches": reference.window_scale(everywhere, inputs["corners"], cotangents[0].abs())}


def window_scale_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Single products."""
    return (reference.window_scale(**inputs).abs(),)


def window_scale_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Single products, and sums of them over the symbols."""
    patches, corners, multiplier = inputs["patches"], inputs["corners"], inputs["multiplier"]
    return {
        "patches": reference.window_scale(cotangents[0], corners, multiplier).abs(),
        "multiplier": reference.window_radius(cotangents[0] * patches, corners, *multiplier.shape[2:]),
    }


def window_dense_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """No rounding at all."""
    return (torch.zeros((), dtype=torch.float64, device=inputs["patches"].device),)


def window_dense_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """No rounding at all."""
    return {"patches": torch.zeros((), dtype=torch.float64, device=inputs["patches"].device)}


def _absolute(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**inputs, "coefficients": inputs["coefficients"].abs(), "weight": inputs["weight"].abs()}


def diagonal_conv_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The magnitudes of single products; where the reference has rounded zeros, the same."""
    return (reference.diagonal_conv(**_absolute(inputs)),)


def diagonal_conv_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """The same sums, of magnitudes."""
    absolute = _absolute(inputs)
    leaves = {name: absolute[name].requires_grad_() for name in ("coefficients", "weight")}
    with torch.enable_grad():
        patches = reference.diagonal_conv(**absolute)
        grads = torch.autograd.grad(
            patches, list(leaves.values()), cotangents[0].abs(), allow_unused=True, materialize_grads=True
        )
    return dict(zip(leaves, grads, strict=True))
