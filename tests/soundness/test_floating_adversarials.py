"""The MNIST network whose floating-point adversarial images are known, with the exact verdict of every test image.

No image that is not robust over the reals is verified; the others are counted. (The 47 adversarial images were made for
images that are robust over the reals: a proof of them would be right.)
"""

from __future__ import annotations

import csv

import pytest
import torch

from tests import networks
from tests.data import data_root
from zonocuda.graph import Graph
from zonocuda.importers import from_module
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, verify

pytestmark = [pytest.mark.data, pytest.mark.slow]

EPS = 0.1


def verdicts() -> dict[int, str]:
    """Of the first hundred test images, which the network classifies rightly: ``robust`` or ``not``."""
    with (data_root() / "fp_realadv_mnist" / "mnist_mip_verdicts.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["index"]) < 100]
    return {int(row["index"]): row["verdict"] for row in rows if row["label_if_known"] == row["pred"]}


def proven(graph: Graph, x: torch.Tensor, label: int, dtype: torch.dtype) -> bool:
    """Whether an image is verified at EPS, by the prover alone."""
    result = verify(graph, Spec.robust(x, EPS, label), dtype=dtype)
    assert result.verdict in (Verdict.VERIFIED, Verdict.UNKNOWN)
    return result.verdict is Verdict.VERIFIED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("prover_only")
def test_no_image_that_is_not_robust_over_the_reals_is_verified(dtype: torch.dtype) -> None:
    graph = from_module(networks.fp_realadv(), (1, 28, 28))
    pixels, labels = networks.images("mnist")
    robust = verified = broken = 0
    for index, verdict in verdicts().items():
        if verdict == "robust" and robust >= 20:
            continue
        found = proven(graph, pixels[index], int(labels[index]), dtype)
        if verdict == "robust":
            robust, verified = robust + 1, verified + found
        else:
            broken += 1
            assert not found, index
    print(f"{dtype}: {verified} of {robust} robust images verified, none of {broken} others")
    assert broken
    assert verified
