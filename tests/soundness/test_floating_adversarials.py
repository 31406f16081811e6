"""The MNIST network whose floating-point adversarial images are known, with the exact verdict of every test image.

No image that is not robust over the reals is verified, and as executed in float32 none with an adversarial image; the
others are counted. (Over the reals those 47 images are robust, by a few millionths: a proof of them would be right. The
adversarial images were found with convolutions that no summation order explains.)
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from tests import networks
from tests.data import data_root
from zonocuda.graph import Graph
from zonocuda.importers import from_module
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, verify
from zonocuda.verifier.arguments import Semantics
from zonocuda.verifier.splitting import Split

pytestmark = [pytest.mark.data, pytest.mark.slow]

EPS = 0.1
SPARE = 1e-7
"""How far the adversarial images may leave the box: they were made with a radius in float32."""


def verdicts() -> dict[int, str]:
    """Of the first hundred test images, which the network classifies rightly: ``robust`` or ``not``."""
    with (data_root() / "fp_realadv_mnist" / "mnist_mip_verdicts.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["index"]) < 100]
    return {int(row["index"]): row["verdict"] for row in rows if row["label_if_known"] == row["pred"]}


def proven(
    graph: Graph, x: torch.Tensor, label: int, dtype: torch.dtype, semantics: Semantics, split: Split = "auto"
) -> bool:
    """Whether an image is verified at EPS, by the prover alone."""
    result = verify(graph, Spec.robust(x, EPS, label), dtype=dtype, semantics=semantics, split=split)
    assert result.verdict in (Verdict.VERIFIED, Verdict.UNKNOWN)
    return result.verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("semantics", "dtype"), [("real", torch.float32), ("real", torch.float64), ("float32", torch.float64)]
)
@pytest.mark.usefixtures("prover_only")
def test_no_image_that_is_not_robust_over_the_reals_is_verified(semantics: Semantics, dtype: torch.dtype) -> None:
    """As executed in float32 none of them either: what violates the property does so by more than rounding."""
    graph = from_module(networks.fp_realadv(), (1, 28, 28))
    pixels, labels = networks.images("mnist")
    robust = verified = broken = 0
    for index, verdict in verdicts().items():
        if verdict == "robust" and robust >= 6:
            continue
        found = proven(graph, pixels[index], int(labels[index]), dtype, semantics)
        if verdict == "robust":
            robust, verified = robust + 1, verified + found
        else:
            broken += 1
            assert not found, index
    print(f"{semantics} in {dtype}: {verified} of {robust} robust images verified, none of {broken} others")
    assert broken
    assert verified


@pytest.mark.usefixtures("prover_only")
def test_no_image_with_a_known_floating_point_adversarial_is_verified_as_executed_in_float32() -> None:
    """Adversarial to the network as it is: most were made for one whose last biases are shifted until its margin is of
    the size of rounding. Of the others bounds alone prove none (every fourth is tried)."""
    network, near = networks.fp_realadv(), 0
    graph = from_module(network, (1, 28, 28))
    folder = data_root() / "fp_realadv_mnist"
    cases = json.loads((folder / "mnist_adv.json").read_text())
    with np.load(folder / "mnist_adv.npz") as archive:
        images, adversarials = (torch.from_numpy(archive[key]) for key in ("inp", "adv"))
    assert len(cases) == len(images) == 47
    for number, (case, x, adversarial) in enumerate(zip(cases, images, adversarials, strict=True)):
        box = Spec.robust(x, EPS, case["label"]).regions[0].box
        flat = adversarial.flatten()
        inside = (flat >= box.float32_lower - SPARE) & (flat <= box.float32_upper + SPARE)
        assert bool(inside.all()), case["id"]
        with torch.no_grad():
            y = network(adversarial.reshape(1, 1, 28, 28))[0]
        label = case["label"]
        margin = float(y[label] - torch.cat([y[:label], y[label + 1 :]]).max())
        is_near = margin < 1e-4
        near += is_near
        if is_near or number % 4 == 0:  # a wide margin is nothing that rounding decides: some of them are enough
            assert not proven(graph, x, label, torch.float64, "float32", "auto" if is_near else "none"), case["id"]
    assert near
