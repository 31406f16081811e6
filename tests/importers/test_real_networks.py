"""Every real network imports, and computes what ONNX Runtime or the module computes."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import networks
from tests.data import data_root
from zonocuda.graph import Conv
from zonocuda.importers import NetworkMismatchError, from_module, load_network
from zonocuda.importers.onnx import windows
from zonocuda.importers.onnx.ops import CONVERTERS
from zonocuda.specs import load_vnnlib

pytestmark = pytest.mark.data

SETS = {
    "acasxu": (45, 300, 300),
    "cifar10_resnet_4b": (1, 14436, 14436),
    "collins_rul_cnn": (3, 5500, 28300),
    "marabou_cifar10_small_medium": (2, 2568, 4944),
    "mnist_fc": (3, 512, 1536),
    "oval21_base_wide": (2, 3172, 6244),
    "reach_prob_density": (3, 64, 192),
    "sri_resnet_a": (1, 11364, 11364),
}
"""Number of networks, fewest and most ReLU neurons, as the data's manifest lists them."""

MODULES = {
    **{f"rtai2019 {name}": partial(networks.rtai2019, name) for name in networks.RTAI2019},
    **{f"wong_kolter {name}": partial(networks.wong_kolter, name) for name in networks.WONG_KOLTER},
    **{f"eran {name}": partial(networks.eran, name) for name in networks.ERAN},
    "fp_realadv": networks.fp_realadv,
}
RELUS = {
    "rtai2019 fc1": 100,
    "rtai2019 conv3": 34646,
    "wong_kolter mnist": 4804,
    "wong_kolter cifar_small_8px": 6244,
    "eran mnist_2_50_flattened": 100,
    "eran mnist_5_100_flattened": 500,
    "eran mnist_8_100_flattened": 800,
    "eran mnist_6_200_nat": 1000,
    "eran mnist_convSmallRELU__Point": 3604,
    "eran cifar10_convSmallRELU__PGDK": 4852,
}
"""ReLU neurons, as the manifest and arch.json count them."""


def instances(folder: Path) -> dict[str, str]:
    """One specification per network of a VNN-COMP set."""
    with (folder / "instances.csv").open() as table:
        return {row["onnx"]: row["vnnlib"] for row in csv.DictReader(table)}


def box(path: Path) -> tuple[Tensor, Tensor]:
    """The first input box of a specification."""
    region = load_vnnlib(path).regions[0]
    return region.box.lower, region.box.upper


@pytest.mark.parametrize("name", SETS)
def test_vnncomp_networks_agree_with_onnx_runtime_on_the_box_of_a_specification(name: str) -> None:
    folder = data_root() / "vnncomp" / name
    table = instances(folder)
    count, fewest, most = SETS[name]
    assert len(table) == count
    neurons = set()
    for onnx, vnnlib in table.items():
        network = load_network(folder / onnx)
        network.check(*box(folder / vnnlib), points=2)
        neurons.add(sum(torch.Size(node.shape).numel() for node in network.graph.relus))
    assert (min(neurons), max(neurons)) == (fewest, most)


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_with_their_own_weights(name: str) -> None:
    model = MODULES[name]()
    shape = networks.input_shape(name.split()[-1])
    graph = from_module(model, shape, points=1)
    held = {id(value) for node in graph.nodes for value in vars(node.op).values() if isinstance(value, Tensor)}
    assert all(id(parameter) in held for parameter in model.parameters())
    if name in RELUS:
        assert sum(torch.Size(node.shape).numel() for node in graph.relus) == RELUS[name]


CORRECT = {
    "eran mnist_5_100_flattened": 99,
    "eran mnist_6_200_nat": 99,
    "eran mnist_8_100_flattened": 97,
    "eran mnist_convSmallRELU__Point": 100,
    "eran cifar10_convSmallRELU__PGDK": 70,
    "wong_kolter mnist": 99,
    "wong_kolter mnist_small_0_3": 88,
    "wong_kolter cifar_small_8px": 40,
}
"""Correctly classified among the first 100 test images, as the manifest counts them."""


@pytest.mark.parametrize("name", CORRECT)
def test_rebuilt_networks_classify_as_many_images_as_the_manifest_says(name: str) -> None:
    pixels, labels = networks.images("cifar10" if "cifar" in name else "mnist")
    with torch.no_grad():
        assert int((MODULES[name]()(pixels).argmax(1) == labels).sum()) == CORRECT[name]


def test_the_network_of_the_floating_point_attacks_classifies_the_clean_images() -> None:
    pixels, labels = networks.images("mnist")
    model = networks.fp_realadv()
    with torch.no_grad():
        predicted = model(pixels).argmax(1)
    with (data_root() / "fp_realadv_mnist" / "mnist_mip_verdicts.csv").open() as table:
        recorded = [int(row["pred"]) for row, _ in zip(csv.DictReader(table), labels, strict=False)]
    assert predicted.tolist() == recorded


def _without_padding(node: windows.OnnxNode) -> windows.Value:
    """A converter of Conv that puts all of the padding at the begin, which keeps the shape."""
    out = windows.conv(node)
    builder_nodes = node.builder._nodes
    last = builder_nodes[-1]
    assert isinstance(last.op, Conv)
    shifted = tuple((begin + end, 0) for begin, end in last.op.padding)
    op = Conv(last.op.weight, last.op.bias, last.op.stride, shifted, last.op.dilation, last.op.groups)
    builder_nodes[-1] = type(last)(last.name, op, last.inputs, last.shape)
    return out


@pytest.mark.parametrize("name", ["cifar10_resnet_4b", "oval21_base_wide", "sri_resnet_a"])
def test_a_network_whose_padding_was_misread_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_root() / "vnncomp" / name
    onnx, vnnlib = next(iter(instances(folder).items()))
    monkeypatch.setitem(CONVERTERS, "Conv", _without_padding)
    network = load_network(folder / onnx)
    with pytest.raises(NetworkMismatchError, match=r"node 'Conv_0': element"):
        network.check(*box(folder / vnnlib), points=1)
