"""Certificates of earlier versions are still read."""

from __future__ import annotations

from typing import Any

from tests.check.certificates import KINDS, certified, threshold
from zonocuda.checker import check_proof


def test_formats_1_and_2_are_read_and_the_first_one_called_activations_relus() -> None:
    graph, property_ = threshold("residual", 2, KINDS["residual", 2])
    certificate = certified(graph, property_)
    for region in certificate["regions"]:
        assert region.pop("forest") is None
        assert region.pop("trees") == []
    second: dict[str, Any] = {**certificate, "format": "zonocuda.certificate/2"}
    assert check_proof(second, graph, property_).confirmed
    regions = [
        {**region, "relus": [{k: v for k, v in one.items() if k != "op"} for one in region["activations"]]}
        for region in certificate["regions"]
    ]
    first = {**certificate, "format": "zonocuda.certificate/1", "regions": regions}
    for region in regions:
        del region["activations"]
    assert check_proof(first, graph, property_).confirmed
