"""Nothing depends on torch's default type or device: bounds, slopes and verdicts are the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.importers.module_programs import default_dtype
from tests.importers.onnx_models import model, op, save
from zonocuda import Spec, Zonotope, compute_bounds, load_network, optimize_bounds, verify

pytest.importorskip("flint", reason="python-flint is not installed")

from tests.check.certificates import inline
from zonocuda.checker import check_proof


class Mixed(nn.Module):
    """What meets numbers on its way through both importers' operators."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.AvgPool2d(2, padding=1, count_include_pad=False)
        self.linear = nn.Linear(4 * 3 * 3, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv((x - 0.1307) / 0.3081)))
        h = torch.relu(-self.linear(self.pool(h).flatten(1)) * 0.1)
        return 0.3 - torch.nn.functional.linear(h, self.out.weight.abs().max(1, keepdim=True)[0] * self.out.weight)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    """A device that holds no numbers: whatever is made on it shows."""
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with folded constants, a padding and a batch normalisation."""
    weights = {
        "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
        "half": np.array([0.5], np.float32),
        "three": np.array([3], np.float32),
        "ones": np.ones(6, np.float32),
        "pads": np.array([0, 0, 0, 2]),
    }
    nodes = [
        op("Div", "half three", "sixth"),
        op("Mul", "x sixth", "scaled"),
        op("Pad", "scaled pads sixth", "padded"),
        op("BatchNormalization", "padded ones ones ones ones", "normal", epsilon=1e-3),
        op("Relu", "normal", "active"),
        op("Neg", "active", "negative"),
        op("Split", "negative", "part rest", axis=1),
        op("Gemm", "part w", "y", transB=1, alpha=0.3),
    ]
    return save(model(nodes, [1, 4], weights), tmp_path_factory.mktemp("network"))


def everything(path: Path) -> Callable[[], dict[str, object]]:
    """What users ask for, on inputs that are made beforehand."""
    torch.manual_seed(0)
    module = Mixed().eval()
    x = torch.rand(1, 5, 5)
    zonotope = Zonotope.from_ball(x[None], 0.02)
    objective = torch.tensor([[1.0, -1, 0], [0, 1, -1]])
    features = torch.tensor([0.1, 0.4, 0.7, 0.2])
    mean, std = [0.1], [0.5]

    def run() -> dict[str, object]:
        found: dict[str, object] = {}
        for direction in ("forward", "dual"):
            bounds = compute_bounds(module, zonotope, direction=direction)
            found[f"lower, {direction}"], found[f"upper, {direction}"] = bounds.lower, bounds.upper
            found[f"optimised, {direction}"] = optimize_bounds(module, zonotope, objective, mode=direction).lower
        translated = zonotope + 0.1
        found["translated"] = translated.center
        label = int(module(x[None]).argmax())
        for dtype in (torch.float32, torch.float64):
            for eps in (0.001, 0.5):
                spec = Spec.robust(x, eps=eps, label=label, outputs=3, mean=mean, std=std)
                result = verify(module, spec, input_shape=(1, 5, 5), dtype=dtype, seed=1)
                found[f"verdict, {dtype}, {eps}"], found[f"margin, {dtype}, {eps}"] = result.verdict, result.margin
        file = load_network(path)
        spec = Spec.robust(features, eps=0.01, label=0, outputs=4)
        for semantics in ("real", "float32"):
            result = verify(file, spec, semantics=semantics, split="none", certificate=semantics == "real")
            found[f"file, {semantics}"] = (result.verdict, result.margin)
            if result.certificate is not None:
                document = inline(result.certificate)
                found["checked"] = check_proof(document, file.graph, spec).confirmed
        return found

    return run


@pytest.fixture(scope="module")
def usual(network: Path) -> tuple[Callable[[], dict[str, object]], dict[str, object]]:
    run = everything(network)
    return run, run()


def same(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        if isinstance(value, Tensor):
            assert isinstance(other, Tensor)
            assert other.dtype == value.dtype, name
            assert torch.equal(other, value), name
        else:
            assert other == value, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_results_do_not_depend_on_the_default_type(
    usual: tuple[Callable[[], dict[str, object]], dict[str, object]], dtype: torch.dtype
) -> None:
    run, expected = usual
    with default_dtype(dtype):
        found = run()
    same(found, expected)


def test_results_do_not_depend_on_the_default_device(
    usual: tuple[Callable[[], dict[str, object]], dict[str, object]],
) -> None:
    run, expected = usual
    with default_device("meta"):
        found = run()
    same(found, expected)
