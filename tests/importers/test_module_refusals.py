"""Modules that the graph cannot express are refused by name, on one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply
from zonocuda.importers import UnsupportedNetworkError, from_module


def refuse(model: nn.Module, shape: tuple[int, ...]) -> str:
    with pytest.raises(UnsupportedNetworkError) as caught:
        from_module(model, shape)
    message = str(caught.value)
    assert message.startswith("importers.module: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.Dropout()])
def test_a_module_in_training_mode_is_refused_with_the_remedy(layer: nn.Module) -> None:
    message = refuse(nn.Sequential(nn.Linear(3, 3), layer), (3,))
    assert "module '1'" in message
    assert "call model.eval() first" in message


def test_one_submodule_left_in_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).eval()
    model[1].train()
    assert "module '1' (Dropout) is in training mode" in refuse(model, (3,))


def test_a_module_without_layers_that_train_needs_no_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert model.training
    from_module(model, (3,))


def test_batch_norm_without_running_statistics_is_refused() -> None:
    assert "batch_norm" in refuse(nn.BatchNorm1d(3, track_running_stats=False).eval(), (3,))


def test_an_unsupported_operator_is_named_with_its_module() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Apply(torch.acos)))
    message = refuse(model, (3,))
    assert "aten.acos.default (node 'acos', module '1.1') is not supported; supported: aten." in message


REFUSED: dict[str, tuple[Callable[..., Any], tuple[int, ...], str]] = {
    "division by zero": (lambda x: x / 0.0, (3,), "divides by zero"),
    "dropout in training": (lambda x: F.dropout(x, 0.5, training=True), (3,), "aten.dropout.default"),
    "random numbers": (lambda x: x + torch.rand(3), (3,), "it draws random numbers"),
    "cropping": (lambda x: F.pad(x, (-1, 0)), (3,), "negative padding"),
    "ceil mode": (lambda x: F.avg_pool1d(x, 2, ceil_mode=True), (1, 5), "ceil_mode"),
    "divisor override": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (1, 4, 4), "divisor_override"),
    "sums in half precision": (lambda x: x.half() + 0.1, (3,), "torch.float16; float32 and float64"),
    "a sum that rounds its terms first": (lambda x: x.sum(1, dtype=torch.half), (3,), "it rounds its operands"),
    "eight bits": (lambda x: x.to(torch.float8_e5m2).float(), (3,), "torch.float8_e5m2 is not supported"),
    "integers": (lambda x: x.long().float(), (3,), "torch.int64"),
    "a batch that is turned": (lambda x: x.flip(0), (3,), "batch dimension"),
    "a batch that is rolled": (lambda x: x.roll(1), (3,), "batch dimension"),
    "a repeated batch": (lambda x: x.repeat(2, 1), (3,), "does not keep the batch first"),
    "constants by the sample": (
        lambda x: torch.cat([x, torch.arange(2.0 * len(x)).reshape(-1, 2)], 1),
        (3,),
        "broadcasts over the batch",
    ),
    "an index that depends on the input": (lambda x: x.gather(1, x.long()), (3,), "torch.int64"),
    "an ellipsis": (lambda x: torch.einsum("...i->...", x), (3,), "ellipsis"),
    "a diagonal": (lambda x: torch.einsum("bii->bi", x), (3, 3), "diagonal"),
    "antialiasing": (lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True), (1, 4, 4), "_aa"),
    "two outputs": (lambda x: (x, x + 1), (3,), "must return exactly one tensor"),
    "convolution with a weight that depends on the input": (
        lambda x: F.conv1d(torch.ones(2, 1, 5), x),
        (1, 3),
        "'weight' must be constant",
    ),
}


def tiny_batch_norm() -> nn.Module:
    """Scales by 1e-300 / 1e50."""
    layer = nn.BatchNorm1d(1).double().eval()
    with torch.no_grad():
        layer.weight.fill_(1e-300)
        assert layer.running_var is not None
        layer.running_var.fill_(1e100)
    return layer


def constant(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


TINY: dict[str, Callable[[], nn.Module]] = {
    "the scale of a batch normalisation": tiny_batch_norm,
    "a reciprocal": lambda: Apply(lambda x: x / constant(1.7e308)),
    "a scaled shift": lambda: Apply(lambda x: torch.add(x, constant(1e-200), alpha=1e-200)),
    "the scale of a softplus": lambda: nn.Sequential(nn.Linear(1, 1), nn.Softplus(1.7e308, 700.0)).double(),
}


@pytest.mark.parametrize("name", TINY)
def test_a_derived_constant_that_underflows_is_refused(name: str) -> None:
    """It would be taken for zero, and later layers may make it large again: no proof would be one of this network."""
    assert "too small for float64" in refuse(TINY[name](), (1,))


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_that_cannot_be_expressed_is_refused(name: str) -> None:
    function, shape, expected = REFUSED[name]
    assert expected in refuse(Apply(function), shape)


BATCH: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "transposition": (lambda x: x.transpose(0, 1), (2,)),
    "t": (lambda x: x.t(), (2,)),
    "permutation": (lambda x: x.permute(1, 0, 2), (2, 3)),
    "mean": (lambda x: x.mean(0, keepdim=True) + x, (3,)),
    "mean of everything": (lambda x: x - x.mean(dim=[0, 1]), (3,)),
    "reshape": (lambda x: x.reshape(1, -1), (3,)),
    "flatten": (lambda x: x.flatten(), (3,)),
    "slice": (lambda x: x[:1], (3,)),
    "select": (lambda x: x[0], (3,)),
    "concatenation": (lambda x: torch.cat([x, x], 0), (3,)),
    "split": (lambda x: x.split(1, 0)[0], (3,)),
    "unsqueeze": (lambda x: x.unsqueeze(0), (3,)),
    "squeeze": (lambda x: x.squeeze(0), (3,)),
    "squeeze of everything": (lambda x: x.squeeze(), (3,)),
    "padding": (lambda x: F.pad(x, (0, 0, 1, 0)), (3,)),
    "a constant per sample": (lambda x: x + torch.tensor([[1.0], [2.0]]), (3,)),
    "a constant of higher rank": (lambda x: x + torch.ones(1, 1, 3), (3,)),
    "branches of different rank": (lambda x: x + x.sum(2), (2, 2)),
    "a product from the left": (lambda x: torch.ones(2, 2) @ x, (3,)),
    "a convolution over the batch": (lambda x: F.conv1d(x, torch.ones(1, 2, 2)), (5,)),
}


@pytest.mark.parametrize("name", BATCH)
def test_an_operator_that_touches_the_batch_is_refused(name: str) -> None:
    function, shape = BATCH[name]
    message = refuse(Apply(function), shape)
    assert any(word in message for word in ("batch", "adds dimensions", "needs features", "do not reshape"))


def test_a_module_that_writes_to_its_buffers_is_refused() -> None:
    def count(x: Tensor, calls: Tensor) -> Tensor:
        calls += 1
        return x

    assert "writes to its buffer" in refuse(Apply(count, calls=torch.zeros(())), (3,))


def test_an_input_that_does_not_fit_is_refused() -> None:
    assert "cannot trace" in refuse(nn.Linear(4, 3), (5,))


def test_weights_that_are_not_finite_are_refused() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    assert "holds NaN or infinity" in refuse(model, (3,))


def test_half_weights_are_refused() -> None:
    assert "float32 and float64 are supported" in refuse(nn.Linear(3, 2).half(), (3,))
