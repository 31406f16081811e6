"""Modules as graphs: the same function, and the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply, weight
from zonocuda.graph import Conv, Graph, Linear
from zonocuda.importers import NetworkMismatchError, from_module
from zonocuda.importers.aten import ops as aten
from zonocuda.importers.aten.node import AtenNode

SEED = 7


class Residual(nn.Module):
    """Batch normalisation, ReLUs that overwrite their input, and a shortcut that reads the overwritten value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.relu, self.fc = nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Linear(48, 5)
        generator = torch.Generator().manual_seed(SEED)
        for buffer in (self.norm.running_mean, self.norm.running_var):
            assert buffer is not None
            buffer.copy_(torch.rand(3, generator=generator) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        self.relu(y)
        z = self.second(y)
        z += y
        return self.fc(F.relu_(z).flatten(1))


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(SEED)
    return build().eval()


def normalised(layer: nn.Module) -> nn.Module:
    """Statistics and an affine map that are not the trivial ones."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layer


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear without bias, on a matrix": (lambda: nn.Linear(4, 3, bias=False), (2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 9)),
    "conv2d": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2), (2, 7, 6)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, bias=False), (1, 3, 4, 5)),
    "conv1d same": (lambda: nn.Conv1d(1, 2, 4, padding="same"), (1, 6)),
    "conv2d same": (lambda: nn.Conv2d(1, 2, (3, 4), padding="same", dilation=(1, 3)), (1, 8, 9)),
    "conv2d valid": (lambda: nn.Conv2d(1, 2, 3, padding="valid", stride=2), (1, 8, 9)),
    "conv3d same": (lambda: nn.Conv3d(1, 1, 2, padding="same"), (1, 3, 3, 3)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 5)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, padding=(0, 1), output_padding=(1, 0), groups=2, dilation=2),
        (4, 3, 4),
    ),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(1, 2, 2, bias=False), (1, 2, 3, 2)),
    "batch norm 1d": (lambda: normalised(nn.BatchNorm1d(3)), (3,)),
    "batch norm 1d on sequences": (lambda: normalised(nn.BatchNorm1d(3, eps=0.1)), (3, 4)),
    "batch norm 2d": (lambda: normalised(nn.BatchNorm2d(3)), (3, 4, 5)),
    "batch norm without affine map": (lambda: normalised(nn.BatchNorm2d(3, affine=False)), (3, 2, 2)),
    "relu": (nn.ReLU, (3,)),
    "relu in place on the input": (lambda: nn.ReLU(inplace=True), (3,)),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.9), nn.Linear(3, 2), nn.Dropout()), (3,)),
    "dropout of channels": (lambda: nn.Sequential(nn.Dropout2d(), nn.ReLU()), (2, 3, 3)),
    "identity": (nn.Identity, (3,)),
    "flatten": (nn.Flatten, (2, 3, 4)),
    "flatten some": (lambda: nn.Flatten(2, 3), (2, 3, 4)),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6,)),
    "average pool 1d": (lambda: nn.AvgPool1d(3, 2, 1), (2, 7)),
    "average pool 2d": (lambda: nn.AvgPool2d((3, 2), padding=(1, 0)), (2, 7, 6)),
    "average pool 2d without the padding": (lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), (2, 4, 5)),
    "average pool 3d": (lambda: nn.AvgPool3d(2), (1, 4, 5, 4)),
    "adaptive average pool 1d": (lambda: nn.AdaptiveAvgPool1d(1), (2, 5)),
    "adaptive average pool 2d": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (2, 4, 6)),
    "global average pool": (lambda: nn.AdaptiveAvgPool2d(1), (2, 4, 5)),
    "zero padding": (lambda: nn.ZeroPad2d((1, 2, 0, 3)), (2, 3, 4)),
    "constant padding": (lambda: nn.ConstantPad1d((1, 2), 0.3), (2, 3)),
    "residual": (Residual, (2, 4, 4)),
    "weight normalisation": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), (3,)),
}

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...], dict[str, Tensor]]] = {
    "add a number": (lambda x: x + 0.1, (3,), {}),
    "add a constant": (lambda x, c: c + x, (2, 3), {"c": weight(3)}),
    "add with a factor": (lambda x, c: torch.add(x, c, alpha=-2), (3,), {"c": weight(3)}),
    "add with a factor, constant first": (lambda x, c: torch.add(c, x, alpha=3), (3,), {"c": weight(3)}),
    "add that expands": (lambda x, c: x + c, (1, 3), {"c": weight(1, 2, 1)}),
    "add branches with a factor": (lambda x: torch.add(x, x.relu(), alpha=0.5), (3,), {}),
    "add branches that expand": (lambda x: x[:, :1] - x.sum(2, keepdim=True), (2, 3), {}),
    "sub": (lambda x, c: x - c, (3,), {"c": weight(1, 3)}),
    "sub with a factor": (lambda x, c: torch.sub(c, x, alpha=2), (3,), {"c": weight(3)}),
    "sub from a number": (lambda x: 1 - x, (3,), {}),
    "rsub": (lambda x: torch.rsub(x, x.relu(), alpha=0.5), (3,), {}),
    "neg": (lambda x: -x, (3,), {}),
    "mul": (lambda x, c: (c * x) * 0.1, (2, 3), {"c": weight(2, 1)}),
    "mul by integers": (lambda x, c: x * c, (3,), {"c": torch.tensor([1, -2, 3])}),
    "div": (lambda x, c: (x / c) / 3, (3,), {"c": weight(3)}),
    "matmul right": (lambda x, w: x @ w, (2, 3), {"w": weight(3, 4)}),
    "matmul left": (lambda x, w: w @ x, (3, 2), {"w": weight(4, 3)}),
    "matmul left of stacks": (lambda x, w: w @ x, (5, 3, 2), {"w": weight(4, 3)}),
    "matmul by a vector": (lambda x, w: x @ w, (2, 3), {"w": weight(3)}),
    "matrix by a vector": (lambda x, w: (x @ w).unsqueeze(1), (3,), {"w": weight(3)}),
    "mm": (torch.mm, (3,), {"w": weight(3, 2)}),
    "addmm": (lambda x, b, w: torch.addmm(b, x, w), (3,), {"b": weight(2), "w": weight(3, 2)}),
    "addmm with factors": (
        lambda x, b, w: torch.addmm(b, x, w, alpha=0.3, beta=2),
        (3,),
        {"b": weight(2), "w": weight(3, 2)},
    ),
    "addmm of branches": (lambda x, w: torch.addmm(x, x.relu(), w, beta=-1), (3,), {"w": weight(3, 3)}),
    "weights computed from weights": (lambda x, w: F.linear(x, w.t() @ w), (3,), {"w": weight(2, 3)}),
    "view": (lambda x: x.view(x.shape[0], -1), (2, 3), {}),
    "view by -1": (lambda x: x.view(-1, 6), (2, 3), {}),
    "reshape": (lambda x: x.reshape(-1, 3, 2), (2, 3), {}),
    "permute": (lambda x: x.permute(0, 3, 1, 2), (2, 3, 4), {}),
    "transpose": (lambda x: x.transpose(-1, 1), (2, 3, 4), {}),
    "movedim and flatten": (lambda x: x.movedim(1, -1).flatten(1), (2, 3, 4), {}),
    "squeeze": (lambda x: x.squeeze(1).squeeze(-1), (1, 3, 1), {}),
    "squeeze of an extent other than 1": (lambda x: x.squeeze(1), (2, 3), {}),
    "unsqueeze": (lambda x: x.unsqueeze(-1).unsqueeze(1), (2, 3), {}),
    "slice": (lambda x: x[:, 1:-1, ::2], (4, 5), {}),
    "whole slice of the batch": (lambda x: x[:][:, -2:], (4,), {}),
    "select": (lambda x: x[:, -1], (4, 5), {}),
    "index_select": (lambda x, i: x.index_select(2, i), (2, 3), {"i": torch.tensor([2, 0, 0])}),
    "index by a list": (lambda x: x[:, [2, 0, -1]], (3, 2), {}),
    "narrow": (lambda x: x.narrow(1, 1, 2), (4,), {}),
    "split": (lambda x: x.split(2, 1)[0] - x.split([2, 2, 1], 1)[1], (5,), {}),
    "chunk": (lambda x: torch.cat(x.chunk(2, -1)[::-1], -1), (2, 6), {}),
    "cat": (lambda x: torch.cat([x, x.relu(), x], dim=-2), (2, 3), {}),
    "expand": (lambda x: x.expand(-1, 3, -1), (1, 2), {}),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 1), value=-0.7), (2, 3), {}),
    "mean": (lambda x: x.mean((1, -1)), (2, 3, 4), {}),
    "mean keeping dimensions": (lambda x: x.mean(2, keepdim=True), (2, 3, 4), {}),
    "sum": (lambda x: x.sum([2]), (2, 3), {}),
    "casts": (lambda x: x.double().relu().float().to(torch.float64).to(x), (3,), {}),
    "copies": (lambda x: x.clone().contiguous().detach(), (3,), {}),
    "dropout function": (lambda x: F.dropout(x, 0.5, training=False), (3,), {}),
    "overwriting": (lambda x: x.clone().mul_(2).add_(1).relu_(), (3,), {}),
    "a view that is overwritten": (lambda x: _overwritten(x), (2, 3), {}),
}


def _overwritten(x: Tensor) -> Tensor:
    y = x * 2
    y.view(len(x), -1).relu_()
    return y + x


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_imports_and_computes_what_the_module_computes(name: str) -> None:
    build, shape = LAYERS[name]
    model = seeded(build)
    x = torch.randn((3, *shape), generator=torch.Generator().manual_seed(1))
    _same(from_module(model, shape), model, x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_imports_and_computes_what_the_module_computes(name: str) -> None:
    function, shape, tensors = FUNCTIONS[name]
    model = Apply(function, **tensors)
    x = torch.randn((3, *shape), generator=torch.Generator().manual_seed(1))
    _same(from_module(model, shape), model, x)


def _same(graph: Graph, model: nn.Module, x: Tensor) -> None:
    """Beside the importer's own comparison: the converted graph against the module, with a plain tolerance."""
    expected = model(x.clone())
    actual = graph.to(torch.float64)(x.double())
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.float(), expected, rtol=1e-5, atol=1e-5)


def test_a_module_in_float64_is_compared_in_float64() -> None:
    model = seeded(Residual).double()
    graph = from_module(model, (2, 4, 4))
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(graph(x), model(x.clone()), rtol=1e-12, atol=1e-12)


# live parameters


def test_the_graph_holds_the_module_s_own_parameters() -> None:
    model = seeded(Residual)
    assert isinstance(model, Residual)
    graph = from_module(model, (2, 4, 4))
    convolutions = [node.op for node in graph.nodes if isinstance(node.op, Conv)]
    linear = graph[graph.output].op
    assert isinstance(linear, Linear)
    assert convolutions[0].weight is model.first.weight
    assert convolutions[1].bias is model.second.bias
    assert linear.weight is model.fc.weight
    assert linear.bias is model.fc.bias


def test_the_graph_follows_an_update_of_the_weights() -> None:
    model = nn.Linear(3, 2)
    graph = from_module(model, (3,))
    with torch.no_grad():
        model.weight.mul_(3)
    x = torch.randn(4, 3)
    assert torch.equal(graph(x), model(x))


def test_gradients_of_the_graph_are_those_of_the_module() -> None:
    model = seeded(Residual).double()
    graph = from_module(model, (2, 4, 4))
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(model(x.clone()).square().sum(), parameters)
    actual = torch.autograd.grad(graph(x).square().sum(), parameters)
    assert len(parameters) == 8
    for mine, theirs in zip(actual, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_reach_parameters_through_weights_computed_from_them() -> None:
    model = seeded(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    graph = from_module(model, (3,))
    graph.to(torch.float32)(torch.ones(1, 3)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


# the comparison


def test_a_misread_padding_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aten, "_padding", lambda node, kernel, stride, dilation: ((2, 0),))
    with pytest.raises(NetworkMismatchError, match=r"importers\.check: Conv1d: node 'conv1d': element"):
        from_module(nn.Conv1d(1, 1, 3, padding=1), (1, 5))


def test_a_misread_last_layer_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(node: AtenNode) -> Any:
        return node.value("self")

    monkeypatch.setitem(aten.CONVERTERS, "aten.neg.default", identity)
    with pytest.raises(NetworkMismatchError, match="output 0 is"):
        from_module(Apply(lambda x, w: -F.linear(x, w), w=weight(3, 3)), (3,))


class DependsOnBatch(nn.Module):
    """Computes something else for single samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] > 1 else 2 * x


def test_a_module_that_treats_single_samples_differently_is_caught() -> None:
    with pytest.raises(NetworkMismatchError, match="DependsOnBatch: output 0"):
        from_module(DependsOnBatch(), (3,))
