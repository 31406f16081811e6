"""Comparison of a graph with the module it was imported from, at points of boxes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zonocuda.graph import Graph
from zonocuda.importers.aten.trace import call_each, example
from zonocuda.importers.check import MANY, Comparison, finite_boxes, sample_points


@torch.no_grad()
def check_against_module(
    graph: Graph, model: nn.Module, lower: Tensor, upper: Tensor, points: int = 16, seed: int = 0
) -> float:
    """Compare a graph from ``from_module`` with its module at points of a box: both corners, the center, random ones.

    The module is given single inputs. Products must be in full float32 while it runs: see
    ``zonocuda.precision.full_precision``.

    Returns:
        The largest difference between an output of the float64 graph and of the module.

    Raises:
        NetworkMismatchError: the two disagree beyond rounding, or in shape.
        NetworkOverflowError: the module computes an infinity or a NaN in the box.
    """
    like = example(model, ())
    comparison = Comparison(graph.to(device=like.device), type(model).__name__, "the module", like.dtype)
    samples = sample_points(lower, upper, graph.input_shape, points, seed)
    x = samples[: len(samples) - points].to(like)
    return comparison.check_output(x, call_each(model, x))


@torch.no_grad()
def finite_against_module(graph: Graph, model: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """:func:`check_against_module` for many boxes at once, at fewer points of each: see
    :func:`zonocuda.importers.check.finite_boxes`."""
    like = example(model, ())
    comparison = Comparison(graph.to(device=like.device), type(model).__name__, "the module", like.dtype)

    def compare(x: Tensor) -> float:
        x = x.to(like)
        return comparison.check_output(x, call_each(model, x))

    return finite_boxes(compare, lower, upper, graph.input_shape, MANY)
