"""Modules, and a model whose derivatives are chosen without touching its weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zonocuda import nonsmooth


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.ReLU(), nn.LeakyReLU(0.2))
    return nn.Sequential(nn.Conv2d(1, 2, 3), inner, nn.MaxPool2d(2, ceil_mode=True), nn.BatchNorm2d(2))


def test_replace_swaps_the_functions_and_shares_the_weights() -> None:
    model = network()
    chosen = nonsmooth.replace(model, relu=0.5, max_pool="even")
    assert [type(m).__module__ for m in model.modules()].count("zonocuda.nonsmooth.modules") == 0
    relu, leaky, pool = chosen[1][0], chosen[1][1], chosen[2]
    assert isinstance(relu, nonsmooth.ReLU)
    assert relu.alpha == 0.5
    assert isinstance(leaky, nonsmooth.LeakyReLU)
    assert (leaky.negative_slope, leaky.alpha) == (0.2, 0.5)
    assert isinstance(pool, nonsmooth.MaxPool2d)
    assert (pool.ties, pool.ceil_mode, pool.kernel_size) == ("even", True, 2)
    for before, after in zip(model.parameters(), chosen.parameters(), strict=True):
        assert before is after
    for before, after in zip(model.buffers(), chosen.buffers(), strict=True):
        assert before is after


def test_the_replaced_model_has_the_same_values_and_another_gradient() -> None:
    model = network().eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()  # every argument of the ReLU is 0
    x = torch.randn(2, 1, 8, 8)
    grads = []
    for choice in (0.0, 1.0):
        chosen = nonsmooth.replace(model, relu=choice, max_pool="first")
        assert torch.equal(chosen(x), model(x))
        chosen(x).sum().backward()
        grads.append(model[0].weight.grad)
        model[0].weight.grad = None
    assert grads[0].count_nonzero() == 0
    assert grads[1].count_nonzero() > 0


def test_a_model_is_replaced_again_and_a_lone_module_too() -> None:
    again = nonsmooth.replace(nonsmooth.replace(network(), max_pool="last"), max_pool=0.25)
    assert (again[2].ties, again[2].beta) == ("first", 0.25)
    assert isinstance(again[1][0], nn.ReLU)
    assert isinstance(nonsmooth.replace(nn.ReLU(), relu=1.0), nonsmooth.ReLU)


def test_the_other_modules_call_their_functions() -> None:
    x = torch.tensor([[0.0, 2.0, 2.0]], requires_grad=True)
    for module, expected in (
        (nonsmooth.Abs(0.5), [[0.5, 1.0, 1.0]]),
        (nonsmooth.Max(1, "last"), [[0.0, 0.0, 1.0]]),
    ):
        assert torch.autograd.grad(module(x).sum(), x)[0].tolist() == expected
    assert torch.autograd.grad(nonsmooth.Maximum("first")(x, x.detach()).sum(), x)[0].tolist() == [[1.0, 1.0, 1.0]]


def test_replace_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="give relu=, max_pool= or both"):
        nonsmooth.replace(network())
    with pytest.raises(ValueError, match=r"replace: model\.0 returns indices"):
        nonsmooth.replace(nn.Sequential(nn.MaxPool2d(2, return_indices=True)), max_pool="even")
