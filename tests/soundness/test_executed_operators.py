"""Every operator that the ONNX importer reads, as ONNX Runtime executes it and as machines of chance do.

ONNX Runtime runs the file twice: rewritten, with its constants folded and operators fused, and node by node as written.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.importers.onnx_models import save
from tests.importers.test_onnx_ops import CASES
from tests.soundness.executions import Layers, Machine
from tests.soundness.rational import Run, claims
from tests.soundness.test_rounding import some_rows
from tests.thorough import few
from tests.verifier.exact import Vector, exactly
from tests.verifier.graphs import random_box
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.importers import Network, load_network
from zonocuda.importers.onnx.runtime import OnnxRuntimeModel

MIXED = "cast to double and back"
"""What executed semantics refuse."""

NAMES = [name for name in CASES if name != MIXED]


def runtime_run(model: OnnxRuntimeModel, x: Sequence[Fraction]) -> tuple[dict[str, Vector], Vector]:
    """The output of ONNX Runtime at a float32 point."""
    point = torch.tensor([float(v) for v in x], dtype=torch.float64).reshape(1, *model.input_shape)
    return {}, exactly(model(point.float()))


def runs_of(network: Network, dtype: torch.dtype) -> list[Run]:
    """Executions of a network."""
    layers = Layers(network.graph.to(torch.float64))
    machines: list[Run] = [partial(Machine(dtype, seed).run, layers) for seed in range(3)]
    if dtype == torch.float64:
        return machines
    as_written = OnnxRuntimeModel(network.onnx_bytes, observe=(network.runtime.output_name,))
    return [*machines, *(partial(runtime_run, model) for model in (network.runtime, as_written))]


@pytest.mark.parametrize(
    ("name", "semantics"),
    [*((name, torch.float32) for name in NAMES), *few(len(NAMES) // 5, [(name, torch.float64) for name in NAMES])],
)
def test_no_execution_of_an_operator_exceeds_its_bounds(name: str, semantics: torch.dtype, tmp_path: Path) -> None:
    network = load_network(save(CASES[name].model(), tmp_path))
    graph = network.graph.to(torch.float64)
    execution = Execution.of(network.graph, semantics)
    runs = runs_of(network, semantics)
    for seed, width in enumerate((0.0, 1e-3)):
        low, high = (b.float().double() for b in random_box(graph, width=width, seed=seed))
        found = list(claims(graph, (low, high), some_rows(graph, seed), torch.float64, True, execution, runs))
        wrong = [claim for claim in found if not claim.holds]
        assert found
        assert not wrong, wrong[:3]
