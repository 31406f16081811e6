"""The ops under test: each with its oracle, its samples, and how far rounding may move its values and gradients.

A computed sum of n terms is off by at most gamma_n = n u / (1 - n u) times the sum of the terms' magnitudes, in any
order (u: unit roundoff). The *scale* of a result is that sum of magnitudes; the tolerance is a small multiple of gamma
times the scale, for the native result and for the oracle's, which runs in float64 on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from tests.ops import (
    dual_samples,
    elementary_samples,
    im2col_samples,
    lines_samples,
    nonsmooth_samples,
    samples,
    window_samples,
    window_scales,
)
from tests.ops.samples import Sample
from zonocuda import ops, reference

Scales = tuple[Tensor, ...]
_EXTRA_ROUNDINGS = 8  # of one neuron's formula, beside the sum over the symbols
_TERMS = 8  # results of such sums that a formula combines


def gamma(count: int, dtype: torch.dtype) -> float:
    """count u / (1 - count u): the relative error of a sum or product of ``count`` roundings."""
    roundoff = torch.finfo(dtype).eps / 2
    return count * roundoff / (1 - count * roundoff)


@dataclass(frozen=True)
class OpCase:
    """An op, its oracle, its samples, and the scales of its outputs and of its gradients, in float64.

    ``gradient_scales`` takes the inputs and the cotangents of the outputs, and answers for each differentiable input.
    ``is_linear``: its backward is linear too, and has a derivative.
    """

    name: str
    samples: Callable[..., Iterator[Sample]]
    value_scales: Callable[[Mapping[str, Any]], Scales]
    gradient_scales: Callable[[Mapping[str, Any], Sequence[Tensor]], Mapping[str, Tensor]]
    refused: torch.dtype = torch.bfloat16
    is_linear: bool = False
    accepted: str = "float32 or float64"

    def native(self, sample: Sample) -> tuple[Tensor, ...]:
        """The op's outputs."""
        return _as_tuple(getattr(ops, self.name)(**sample.inputs))

    def oracle(self, sample: Sample) -> tuple[Tensor, ...]:
        """The reference's outputs."""
        return _as_tuple(getattr(reference, self.name)(**sample.inputs))


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def gradients(outputs: Sequence[Tensor], sample: Sample, cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """The gradient of sum_i <outputs_i, cotangents_i> with respect to each leaf of the sample."""
    leaves = sample.leaves()
    grads = torch.autograd.grad(outputs, list(leaves.values()), cotangents, allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def cotangents_like(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Random gradients of the outputs, of magnitudes between 1/2 and 3/2: none can hide in a tolerance."""
    return [(0.5 + torch.rand_like(t)) * torch.where(torch.rand_like(t) < 0.5, -1.0, 1.0).to(t.dtype) for t in outputs]


def terms(sample: Sample) -> int:
    """The longest sum in an op on this sample or in its gradients: over symbols, batch or outputs."""
    count = 1
    for name, t in sample.inputs.items():
        if isinstance(t, Tensor):
            count = max(count, prod(t.shape[:2]) if name in ("generators", "patches", "coefficients") else t.shape[0])
            if name == "rows":  # summed over the features, and its gradients over the rows
                count = max(count, t.shape[1], prod(t.shape[2:]))
    return count


def assert_close(what: str, actual: Tensor, oracle: Tensor, scale: Tensor, count: int) -> None:
    """|actual - oracle| <= 8 (gamma_{count + 8} of actual's dtype + that of float64) * scale, elementwise."""
    assert actual.shape == oracle.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(oracle.shape)}"
    n = count + _EXTRA_ROUNDINGS
    allowed = _TERMS * (gamma(n, actual.dtype) + gamma(n, torch.float64)) * scale.expand(oracle.shape)
    error = (actual.double() - oracle.double()).abs()
    assert bool((error <= allowed).all()), (
        f"{what}: off by {error.max().item():.3g}, allowed {allowed[error > allowed].min().item():.3g}, "
        f"at {(error - allowed).argmax().item()} of {error.numel()}"
    )


# ---- scales ---------------------------------------------------------------------------------------------------------


def _concretize_values(inputs: Mapping[str, Any]) -> Scales:
    scale = inputs["center"].abs() + inputs["generators"].abs().sum(1)
    return scale, scale


def _concretize_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    both = cotangents[0].abs() + cotangents[1].abs()
    return {"center": both, "generators": both.unsqueeze(1)}


def _relu_bounds(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    if "lower" in inputs:
        return inputs["lower"], inputs["upper"]
    return reference.concretize(inputs["center"], inputs["generators"])


def _size(inputs: Mapping[str, Any]) -> Tensor:
    """What bounds |l| and |u|, and every summand in them."""
    lower, upper = _relu_bounds(inputs)
    own = inputs["center"].abs() + inputs["generators"].abs().sum(1)
    return own + lower.abs() + upper.abs()


def _relu_values(inputs: Mapping[str, Any]) -> Scales:
    return _size(inputs), inputs["generators"].abs(), _size(inputs)


def _relaxation_gradient_scales(
    inputs: Mapping[str, Any], lower: Tensor, upper: Tensor, size: Tensor, products: Tensor, m: Tensor
) -> dict[str, Tensor]:
    """Of slope, l and u; ``products``: the magnitudes of the gradient of the multiplier."""
    if "slope" in inputs:
        slope = (products + m * size).sum_to_size(inputs["slope"].shape)
        return {"slope": slope, "lower": m, "upper": m}
    width = torch.where(upper > lower, upper - lower, 1.0)
    return {"lower": products / width + m, "upper": products / width + m}


def _relu_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    grad_center, grad_generators, grad_offset = (t.abs() for t in cotangents)
    products = grad_center * inputs["center"].abs() + (grad_generators * inputs["generators"].abs()).sum(1)
    lower, upper = _relu_bounds(inputs)
    of = _relaxation_gradient_scales(inputs, lower, upper, _size(inputs), products, grad_center + grad_offset)
    center = grad_center + of["lower"]
    return {**of, "center": center, "generators": grad_generators + center.unsqueeze(1)}


def _relu_relaxation_values(inputs: Mapping[str, Any]) -> Scales:
    return torch.ones_like(inputs["lower"]), inputs["lower"].abs() + inputs["upper"].abs()


def _relu_relaxation_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    lower, upper = inputs["lower"], inputs["upper"]
    products, m = (t.abs() for t in cotangents)
    return _relaxation_gradient_scales(inputs, lower, upper, lower.abs() + upper.abs(), products, m)


def _scale_values(inputs: Mapping[str, Any]) -> Scales:
    return ((inputs["generators"] * inputs["multiplier"].unsqueeze(1)).abs(),)


def _scale_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    grad = cotangents[0].abs()
    products = (grad * inputs["generators"].abs()).sum(1)
    return {"generators": grad * inputs["multiplier"].abs().unsqueeze(1), "multiplier": products}


def _diagonal_linear_values(inputs: Mapping[str, Any]) -> Scales:
    return (reference.diagonal_linear(inputs["coefficients"].abs(), inputs["index"], inputs["weight"].abs()),)


def _diagonal_linear_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    grad, c = cotangents[0].abs(), inputs["coefficients"].abs()
    columns = inputs["weight"].abs()[:, inputs["index"]].T
    by_symbol = (c.unsqueeze(-1) * grad).sum(0).T
    weight = torch.zeros_like(inputs["weight"]).index_add(1, inputs["index"], by_symbol)
    return {"coefficients": (grad * columns).sum(-1), "weight": weight}


def _error_block_values(inputs: Mapping[str, Any]) -> Scales:
    return (torch.zeros((), dtype=torch.float64, device=inputs["coefficients"].device),)


def _error_block_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"coefficients": torch.zeros((), dtype=torch.float64, device=inputs["coefficients"].device)}


CASES = (
    OpCase("concretize", samples.concretize_samples, _concretize_values, _concretize_gradients),
    OpCase("relu", samples.relu_samples, _relu_values, _relu_gradients),
    OpCase("relu_relaxation", samples.relu_relaxation_samples, _relu_relaxation_values, _relu_relaxation_gradients),
    OpCase(
        "dual_lines",
        lines_samples.dual_lines_samples,
        lines_samples.dual_lines_values,
        lines_samples.dual_lines_gradients,
    ),
    OpCase(
        "dual_relu",
        dual_samples.dual_relu_samples,
        dual_samples.dual_relu_values,
        dual_samples.dual_relu_gradients,
    ),
    OpCase(
        "dual_split",
        dual_samples.dual_split_samples,
        dual_samples.dual_split_values,
        dual_samples.dual_split_gradients,
    ),
    OpCase("scale", samples.scale_samples, _scale_values, _scale_gradients),
    OpCase("diagonal_linear", samples.diagonal_linear_samples, _diagonal_linear_values, _diagonal_linear_gradients),
    OpCase(
        "elementary",
        elementary_samples.elementary_samples,
        elementary_samples.elementary_values,
        elementary_samples.elementary_gradients,
    ),
    OpCase("error_block", samples.error_block_samples, _error_block_values, _error_block_gradients),
    OpCase(
        "window_radius",
        window_samples.window_radius_samples,
        window_scales.window_radius_values,
        window_scales.window_radius_gradients,
    ),
    OpCase(
        "window_scale",
        window_samples.window_scale_samples,
        window_scales.window_scale_values,
        window_scales.window_scale_gradients,
    ),
    OpCase(
        "window_dense",
        window_samples.window_radius_samples,
        window_scales.window_dense_values,
        window_scales.window_dense_gradients,
    ),
    OpCase(
        "diagonal_conv",
        window_samples.diagonal_conv_samples,
        window_scales.diagonal_conv_values,
        window_scales.diagonal_conv_gradients,
    ),
    OpCase(
        "im2col",
        im2col_samples.im2col_samples,
        im2col_samples.im2col_values,
        im2col_samples.im2col_gradients,
        is_linear=True,
    ),
    *(
        OpCase(
            name,
            getattr(nonsmooth_samples, f"{name}_samples"),
            values,
            getattr(nonsmooth_samples, f"{name}_gradients"),
            refused=torch.int32,
            accepted="float16, bfloat16, float32 or float64",
        )
        for name, values in (
            ("nonsmooth_relu", nonsmooth_samples.nonsmooth_relu_values),
            ("nonsmooth_maximum", nonsmooth_samples.no_rounding),
            ("nonsmooth_max", nonsmooth_samples.no_rounding),
            ("nonsmooth_max_pool2d", nonsmooth_samples.no_rounding),
        )
    ),
)
