"""torch.func through every op: gradients, Jacobians and vmap, and any nesting of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.cases import CASES, OpCase, cotangents_like, gradients
from tests.ops.samples import SHAPES, Sample
from zonocuda import ops, reference

SHARED = ("index", "corners")
COPIES = 3


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> OpCase:
    """Each op once."""
    op: OpCase = request.param
    return op


def samples(case: OpCase) -> list[Sample]:
    """One of each set of arguments, in float64, without leaves."""
    found: dict[tuple[str, ...], Sample] = {}
    for sample in case.samples(torch.device("cpu"), torch.float64, False, {"map": SHAPES["map"]}):
        if not sample.name.startswith("edges"):
            found.setdefault(tuple(sample.inputs), sample)
    assert found
    return list(found.values())


def floats(sample: Sample) -> dict[str, Tensor]:
    return {k: v for k, v in sample.inputs.items() if isinstance(v, Tensor) and v.is_floating_point()}


def as_function(case: OpCase, sample: Sample, names: list[str], oracle: bool = False) -> Callable[..., Any]:
    """The op of the named tensors, with the others as they are."""

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = Sample(sample.name, {**sample.inputs, **dict(zip(names, tensors, strict=True))})
        return case.oracle(given) if oracle else case.native(given)

    return call


def loss(case: OpCase, sample: Sample, names: list[str], cotangents: list[Tensor]) -> Callable[..., Tensor]:
    function = as_function(case, sample, names)
    return lambda *tensors: sum((t * c).sum() for t, c in zip(function(*tensors), cotangents, strict=True))  # type: ignore[return-value]


def copies(t: Tensor, dim: int) -> Tensor:
    """Several tensors like t, each with other numbers, that differ along ``dim``."""
    return torch.stack([t * (1 + i / 8) for i in range(COPIES)], dim)


def test_grad_is_what_autograd_finds_through_the_reference(case: OpCase) -> None:
    for sample in samples(case):
        names = list(floats(sample))
        cotangents = cotangents_like(case.native(sample))
        found = torch.func.grad(loss(case, sample, names, cotangents), argnums=tuple(range(len(names))))(
            *floats(sample).values()
        )
        own = {name: t.clone().requires_grad_() for name, t in floats(sample).items()}
        leaves = Sample(sample.name, {**sample.inputs, **own})
        expected = gradients(case.oracle(leaves), leaves, cotangents)
        for name, gradient in zip(names, found, strict=True):
            torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=f"{sample.name}, {name}")


def test_vmap_is_the_op_on_each_entry_bit_for_bit(case: OpCase) -> None:
    """Over all tensors at once, over each alone, at any dimension, and without torch's slow loop, of which it warns."""
    for sample in samples(case):
        for names in [list(floats(sample)), *([name] for name in floats(sample))]:
            function = as_function(case, sample, names)
            for dim in (0, -1):
                stacked = [copies(sample.inputs[name], dim % (sample.inputs[name].dim() + 1)) for name in names]
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    found = torch.vmap(function, in_dims=dim)(*stacked)
                for i in range(COPIES):
                    one = function(*(t.select(dim, i) for t in stacked))
                    for actual, expected in zip(found, one, strict=True):
                        assert torch.equal(actual[i], expected), f"{sample.name}, {names}, {dim}"


def test_a_gradient_for_each_entry_is_the_gradient_of_each(case: OpCase) -> None:
    """vmap of grad, the gradients of single samples, and grad of vmap, in which a shared argument gets their sum."""
    for sample in samples(case):
        names = list(floats(sample))
        cotangents = cotangents_like(case.native(sample))
        wanted = tuple(range(len(names)))
        each = torch.func.grad(loss(case, sample, names, cotangents), argnums=wanted)
        stacked = [copies(t, 0) for t in floats(sample).values()]
        found = torch.vmap(each)(*stacked)
        one_by_one = [each(*(t[i] for t in stacked)) for i in range(COPIES)]
        for position, name in enumerate(names):
            for i in range(COPIES):
                torch.testing.assert_close(found[position][i], one_by_one[i][position], rtol=1e-12, atol=1e-12)
            assert found[position].shape == stacked[position].shape, name
        whole = torch.func.grad(
            lambda *t: torch.vmap(loss(case, sample, names, cotangents))(*t).sum(),  # noqa: B023 (called at once)
            argnums=wanted,
        )(*stacked)
        for actual, expected in zip(whole, found, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_jacobians_are_those_of_the_reference(case: OpCase) -> None:
    for sample in samples(case):
        name = next(iter(floats(sample)))
        x = sample.inputs[name]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = torch.func.jacrev(lambda t: as_function(case, sample, [name])(t)[0])(x)  # noqa: B023
        expected = torch.autograd.functional.jacobian(
            lambda t: as_function(case, sample, [name], oracle=True)(t)[0],  # noqa: B023
            x,
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=sample.name)


def test_a_mapped_index_is_taken_entry_by_entry() -> None:
    coefficients, weight = torch.rand(2, 3), torch.rand(5, 4)
    index = torch.tensor([[0, 1, 2], [3, 3, 0]])
    found = torch.vmap(lambda i: ops.diagonal_linear(coefficients, i, weight))(index)
    assert torch.equal(found, torch.stack([ops.diagonal_linear(coefficients, i, weight) for i in index]))


def test_vmap_in_vmap_and_a_jacobian_in_a_gradient() -> None:
    center, generators = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(4, 6, 5, dtype=torch.float64)

    def lower(c: Tensor) -> Tensor:
        return ops.concretize(c, generators)[0]

    found = torch.vmap(torch.vmap(lower), in_dims=1)(center)
    torch.testing.assert_close(found, (center - generators.abs().sum(1)).transpose(0, 1), rtol=1e-14, atol=1e-14)
    slope = torch.rand(4, 5, dtype=torch.float64)

    def area(s: Tensor, module: Any) -> Tensor:
        return (module.relu(center[0, 0], generators, s).offset ** 2).sum()

    torch.testing.assert_close(
        torch.func.grad(area)(slope, ops), torch.func.grad(area)(slope, reference), rtol=1e-12, atol=1e-12
    )


def test_second_derivatives_are_refused_and_never_zero() -> None:
    center, generators = torch.zeros(1, 2), torch.ones(1, 3, 2)

    def total(c: Tensor) -> Tensor:
        return (ops.concretize(c, c.unsqueeze(1) * generators)[0] ** 2).sum()

    for second in (
        lambda c: torch.func.grad(lambda d: torch.func.grad(total)(d).sum())(c),
        lambda c: torch.func.jacrev(torch.func.grad(total))(c),
        lambda c: torch.vmap(torch.func.grad(lambda d: torch.func.grad(total)(d).sum()))(c.unsqueeze(0)),
    ):
        with pytest.raises(RuntimeError, match="concretize: double backward is not supported"):
            second(center + 1)


def test_a_linear_op_has_second_derivatives() -> None:
    x = torch.randn(2, 3, 5, dtype=torch.float64)

    def energy(t: Tensor, module: Any) -> Tensor:
        return (module.im2col(t, [3], [1], [1], [1], [5]) ** 4).sum()

    def second(module: Any) -> Tensor:
        return torch.func.grad(lambda t: (torch.func.grad(energy)(t, module) ** 2).sum())(x)

    torch.testing.assert_close(second(ops), second(reference), rtol=1e-10, atol=1e-10)


def test_ops_in_place_are_refused() -> None:
    center, generators = torch.zeros(1, 2), torch.ones(1, 3, 2)
    with pytest.raises(
        RuntimeError, match=r"scale_: works in place, which torch\.func and vmap do not have; use scale"
    ):
        torch.vmap(lambda g: ops.scale_(g, center))(generators.expand(4, 1, 3, 2))
