"""Resize and Upsample against ONNX Runtime, in every mode, and their weights against rational numbers."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.importers.onnx_models import floats, ints, model, op, save
from zonocuda import Spec, verify
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.maps import Maps
from zonocuda.checker.standard import difference
from zonocuda.importers import UnsupportedNetworkError, load_network
from zonocuda.importers.onnx.file import parse_onnx
from zonocuda.verifier import Verdict

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resized(
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    opset: int = 19,
    shape: Any = (1, 2, 3, 4),
    **how: Any,
) -> onnx.ModelProto:
    weights: dict[str, Any] = {}
    if scales is not None:
        weights["s"] = np.array(scales, dtype=np.float32)
    if sizes is not None:
        weights["n"] = ints(*sizes)
    if opset == 11:  # which wants regions
        weights["r"] = np.zeros(0, np.float32)
    inputs = f"x {'r' if opset == 11 else ''} s" if sizes is None else "x   n"
    return model([op("Resize", inputs, **how)], shape, weights, opset=opset, rank=len(shape))


def check(built: onnx.ModelProto, folder: Path) -> tuple[int, ...]:
    """Compares with ONNX Runtime at points of a box; the shape of the output."""
    network = load_network(save(built, folder))
    size = math.prod(network.graph.input_shape)
    with precisely():  # what the checker reads from the standard, apart from the importer
        file = parse_onnx(network.onnx_bytes, "net")
        assert difference(file, Maps(network.graph)) == ""
    network.check(-torch.ones(size), torch.ones(size), points=4)
    return network.graph.output_shape


def is_refused(built: onnx.ModelProto, why: str, folder: Path) -> bool:
    try:
        load_network(save(built, folder))
    except UnsupportedNetworkError as error:
        return why in str(error)
    return False


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_every_coordinate_is_the_one_of_onnx_runtime(mode: str, coordinates: str, tmp_path: Path) -> None:
    taken = 0
    for scales, sizes in (
        ([1, 1, 2, 2], None),
        ([1, 1, 3, 1], None),
        ([1, 1, 1.5, 0.5], None),
        ([1, 1, 1.3, 2.7], None),
        (None, [1, 2, 5, 7]),
        (None, [1, 2, 1, 3]),
    ):
        how = {"mode": mode, "coordinate_transformation_mode": coordinates}
        built = resized(scales, sizes, **how)
        if mode == "nearest" and is_refused(built, "rounding decides which of the elements", tmp_path):
            continue
        taken += 1
        shape = check(built, tmp_path)
        if sizes is not None:
            assert shape == tuple(sizes[1:])
    assert taken >= (3 if mode == "nearest" else 6)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_choice_of_the_nearest_element_is_the_one_of_onnx_runtime(rounding: str, tmp_path: Path) -> None:
    for coordinates, scale in itertools.product(("half_pixel", "asymmetric"), (2.0, 4.0, 0.5)):
        how = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
        check(resized([1, 1, scale, 1], shape=(1, 1, 4, 2), **how), tmp_path)


@pytest.mark.parametrize("opset", [7, 9, 10, 11])
def test_older_forms_are_those_of_onnx_runtime(opset: int, tmp_path: Path) -> None:
    for mode, factor in itertools.product(("nearest", "linear"), (2.0, 4.0, 0.5)):
        scales = [1.0, 1.0, factor, 2.0]
        if opset == 11:
            check(resized(scales, opset=11, mode=mode, coordinate_transformation_mode="asymmetric"), tmp_path)
            continue
        if opset < 10 and factor < 1:
            continue  # which Upsample does not take
        node = op("Upsample", "x", mode=mode, scales=scales)
        if opset >= 9:
            node = op("Upsample" if opset == 9 else "Resize", "x s", mode=mode)
        weights = {"s": np.array(scales, dtype=np.float32)} if opset >= 9 else {}
        check(model([node], [1, 2, 4, 4], weights, opset=opset, rank=4), tmp_path)


def test_weights_are_the_rational_ones(tmp_path: Path) -> None:
    """Seven positions between the aligned corners of three elements lie at thirds."""
    built = resized(None, [1, 1, 7], shape=(1, 1, 3), mode="linear", coordinate_transformation_mode="align_corners")
    graph = load_network(save(built, tmp_path)).graph
    found = graph.to(torch.float64)(torch.eye(3).double().reshape(3, 1, 3)).reshape(3, 7)
    for i, j in itertools.product(range(7), range(3)):
        exact = max(Fraction(0), 1 - abs(Fraction(2 * i, 6) - j))
        assert abs(Fraction(float(found[j, i])) - exact) <= Fraction(1, 2**53)


def test_bounds_hold_the_network_and_semantics_that_nothing_accounts_for_are_refused(tmp_path: Path) -> None:
    """Weights add up to 1."""
    network = load_network(save(resized([1, 1, 1.3], shape=(1, 1, 4), mode="linear"), tmp_path))
    row = [0.0, 1.0, 0.0, 0.0, 0.0]
    assert verify(network, Spec.linear([0.0] * 4, [1.0] * 4, row, 1 + 1e-9)).verdict is Verdict.VERIFIED
    assert verify(network, Spec.linear([0.0] * 4, [1.0] * 4, row, 0.99)).verdict is Verdict.FALSIFIED
    with pytest.raises(ValueError, match=r"interpolates, in an order of its own|computes constants in float32"):
        verify(network, Spec.linear([0.0] * 4, [1.0] * 4, row, 2.0), semantics="float32")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a region of interest": (
        {"coordinate_transformation_mode": "tf_crop_and_resize"},
        "coordinate_transformation_mode 'tf_crop_and_resize' is not supported; supported: align_corners",
    ),
    "antialiasing": ({"antialias": 1, "mode": "linear"}, "antialias"),
    "an aspect ratio": ({"keep_aspect_ratio_policy": "not_larger"}, "keep_aspect_ratio_policy"),
    "an excluded outside": ({"mode": "cubic", "exclude_outside": 1}, "exclude_outside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_map_says_is_refused_by_name(name: str, tmp_path: Path) -> None:
    how, expected = REFUSED[name]
    with pytest.raises(UnsupportedNetworkError, match=expected):
        load_network(save(resized(None, [1, 2, 5, 7], **how), tmp_path))


def test_a_network_with_an_upsampling_between_convolutions_is_verified(tmp_path: Path) -> None:
    for mode in ("nearest", "linear"):
        nodes = [op("Conv", "x w", "h"), op("Relu", "h", "r"), op("Resize", "r  s", "u", mode=mode), op("Conv", "u v")]
        weights = {"w": floats(2, 1, 2, 2), "v": floats(1, 2, 3, 3), "s": np.array([1, 1, 2, 2], dtype=np.float32)}
        network = load_network(save(model(nodes, [1, 1, 3, 3], weights, opset=13, rank=4), tmp_path))
        points = torch.rand(300, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        values = network.runtime(points).reshape(300, -1)
        top, row = float(values[:, 0].max()), [1.0] + [0.0] * (values.shape[1] - 1)
        box = [0.0] * 9, [1.0] * 9
        assert verify(network, Spec.linear(*box, row, top + 10)).verdict is Verdict.VERIFIED
        assert verify(network, Spec.linear(*box, row, top - 0.01)).verdict is Verdict.FALSIFIED
