"""The ops in place: what their twins compute, into the memory of their first arguments, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.cases import CASES as FUNCTIONAL
from tests.ops.cases import OpCase, assert_close, terms
from tests.ops.samples import LARGE, SHAPES, Sample
from zonocuda import ops, reference

INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True)
class InPlaceCase:
    """An op in place; ``written``: the arguments that it writes into, which are its first outputs too."""

    name: str
    written: tuple[str, ...]

    @property
    def functional(self) -> OpCase:
        """The op that makes new tensors instead."""
        return next(case for case in FUNCTIONAL if case.name == self.name.removesuffix("_"))

    def call(self, inputs: dict[str, Any], backend: ModuleType = ops) -> tuple[Tensor, ...]:
        """Its outputs."""
        result = getattr(backend, self.name)(**inputs)
        return (result,) if isinstance(result, Tensor) else tuple(result)


CASES = (
    InPlaceCase("scale_", ("generators",)),
    InPlaceCase("relu_", ("center", "generators")),
    InPlaceCase("window_scale_", ("patches",)),
)
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
EACH_BACKEND = pytest.mark.parametrize("backend", [ops, reference], ids=["native", "reference"])
CPU = torch.device("cpu")


def copied(sample: Sample) -> dict[str, Any]:
    """The sample's arguments in memory of their own."""
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in sample.inputs.items()}


def ordinary(case: InPlaceCase, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """One sample's arguments."""
    return copied(next(iter(case.functional.samples(CPU, dtype, False, {"map": SHAPES["map"]}))))


@EACH_CASE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_outputs_are_those_of_the_functional_op_bit_for_bit(
    case: InPlaceCase, device: torch.device, dtype: torch.dtype
) -> None:
    for sample in case.functional.samples(device, dtype, requires_grad=False):
        expected = case.functional.native(sample)
        for actual, wanted in zip(case.call(copied(sample)), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=0, equal_nan=True, msg=sample.name)


@EACH_CASE
def test_the_reference_computes_the_same_up_to_rounding(case: InPlaceCase) -> None:
    for sample in case.functional.samples(CPU, torch.float32, requires_grad=False):
        exact = sample.to(torch.float64)
        scales = case.functional.value_scales(exact.inputs)
        oracles = case.call(copied(exact), reference)
        for actual, oracle, scale in zip(case.call(copied(sample)), oracles, scales, strict=True):
            assert_close(f"{case.name}, {sample.name}", actual, oracle, scale, terms(sample))


@EACH_CASE
@EACH_BACKEND
def test_the_first_arguments_are_the_first_outputs_and_the_others_stay(case: InPlaceCase, backend: ModuleType) -> None:
    inputs = ordinary(case)
    before = {k: v.clone() for k, v in inputs.items() if isinstance(v, Tensor)}
    versions = {name: inputs[name]._version for name in case.written}
    outputs = case.call(inputs, backend)
    for name, output in zip(case.written, outputs, strict=False):
        assert output is inputs[name]
        assert not torch.equal(output, before[name])
        assert output._version > versions[name]
    for name in before.keys() - set(case.written):
        assert torch.equal(inputs[name], before[name])


def backward_through_a_changed_tensor(case: InPlaceCase, name: str) -> None:
    """Saves a tensor for backward, changes it in place, and goes backward."""
    inputs = ordinary(case)
    weight = torch.ones_like(inputs[name], requires_grad=True)
    loss = (weight * inputs[name]).sum()
    with torch.no_grad():
        case.call(inputs)
    loss.backward()


@pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case in CASES for name in case.written], ids=lambda x: getattr(x, "name", x)
)
def test_a_backward_pass_that_saved_what_is_overwritten_says_so(case: InPlaceCase, name: str) -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        backward_through_a_changed_tensor(case, name)


def floating(inputs: dict[str, Any]) -> Iterator[str]:
    """The names of the arguments that can require grad."""
    return (name for name, t in inputs.items() if isinstance(t, Tensor) and t.is_floating_point())


@EACH_CASE
@EACH_BACKEND
def test_an_argument_that_requires_grad_is_refused(case: InPlaceCase, backend: ModuleType) -> None:
    message = (
        rf"^{case.name}: works in place and has no derivative.* torch\.no_grad\(\), or use {case.functional.name}$"
    )
    for name in floating(ordinary(case)):
        inputs = ordinary(case)
        inputs[name] = (inputs[name].requires_grad_() * 2) if name in case.written else inputs[name].requires_grad_()
        before = inputs[case.written[0]].detach().clone()
        with pytest.raises(RuntimeError, match=message):
            case.call(inputs, backend)
        assert torch.equal(inputs[case.written[0]].detach(), before)
        with torch.no_grad():
            case.call(inputs, backend)
        assert not torch.equal(inputs[case.written[0]].detach(), before)


@EACH_CASE
def test_it_works_in_inference_mode(case: InPlaceCase) -> None:
    with torch.inference_mode():
        inputs = ordinary(case)
        expected = getattr(ops, case.functional.name)(**{k: v.clone() for k, v in inputs.items()})
        expected = (expected,) if isinstance(expected, Tensor) else expected
        assert all(torch.equal(a, b) for a, b in zip(case.call(inputs), expected, strict=True))


@pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case in CASES for name in case.written], ids=lambda x: getattr(x, "name", x)
)
def test_a_written_argument_with_strides_is_refused(case: InPlaceCase, name: str) -> None:
    inputs = ordinary(case)
    inputs[name] = torch.stack([inputs[name], inputs[name]], dim=-1)[..., 0]
    with pytest.raises(ValueError, match=rf"^{case.name}: {name} is written in place and must be contiguous, got stri"):
        case.call(inputs)


@EACH_CASE
def test_read_arguments_with_strides_are_copied(case: InPlaceCase) -> None:
    inputs = ordinary(case)
    apart = {name: value.clone() for name, value in inputs.items()}
    for name in set(inputs) - set(case.written):
        apart[name] = torch.stack([inputs[name], torch.full_like(inputs[name], 77)], dim=-1)[..., 0]
    assert all(torch.equal(a, b) for a, b in zip(case.call(inputs), case.call(apart), strict=True))


def test_memory_that_arguments_share_is_refused() -> None:
    memory = torch.rand(1, 3, 4)
    other, corners = torch.rand(1, 4), torch.zeros(1, 2, dtype=torch.int64)
    patches = torch.rand(1, 1, 1, 2, 2)
    row = memory[:, 1]
    before = memory.clone()
    for call, what in (
        (lambda: ops.scale_(memory, row), "scale_: generators .* memory with multiplier"),
        (lambda: ops.relu_(row, memory), "relu_: generators .* memory with center"),
        (lambda: ops.relu_(other, memory, row), "relu_: generators .* memory with slope"),
        (lambda: ops.relu_(other, memory, other), "relu_: center .* memory with slope"),
        (lambda: ops.relu_(other, memory, lower=other, upper=other + 1), "relu_: center .* memory with lower"),
        (lambda: ops.relu_(other, memory, lower=other - 1, upper=other), "relu_: center .* memory with upper"),
        (lambda: ops.window_scale_(patches, corners, patches[0]), "window_scale_: patches .* memory with multiplier"),
    ):
        with pytest.raises(RuntimeError, match=what):
            call()
    assert torch.equal(memory, before)


def test_shapes_and_bounds_that_do_not_fit_are_refused() -> None:
    center, generators = torch.rand(1, 4), torch.rand(1, 3, 4)
    with pytest.raises(ValueError, match=r"^relu_: generators must have shape \[batch, symbols, \*features\]"):
        ops.relu_(torch.rand(1, 5), generators)
    with pytest.raises(ValueError, match=r"^scale_: generators must have shape .* multiplier of shape \[1, 5\]"):
        ops.scale_(generators, torch.rand(1, 5))
    for backend in (ops, reference):
        with pytest.raises(ValueError, match=r"^relu_: lower and upper must be given together"):
            backend.relu_(center, generators, lower=center - 1)
    with pytest.raises(RuntimeError, match=r"window_scale_: corners must have shape"):
        ops.window_scale_(torch.rand(1, 2, 1, 2, 2), torch.zeros(1, 2, dtype=torch.int64), torch.rand(1, 1, 3, 3))


def test_nan_and_infinities_follow_the_functional_op() -> None:
    generators = torch.tensor([[[1.0, INF, NAN, INF, -1.0, 7.0]]])
    multiplier = torch.tensor([[INF, 0.0, 1.0, -2.0, NAN, 1.0]])
    expected = ops.scale(generators, multiplier), *ops.relu(multiplier, generators)
    actual = ops.scale_(generators.clone(), multiplier), *ops.relu_(multiplier.clone(), generators.clone())
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@EACH_CASE
def test_every_number_of_threads_gives_the_same_bits(case: InPlaceCase) -> None:
    threads = torch.get_num_threads()
    sample = next(iter(case.functional.samples(CPU, torch.float32, False, LARGE)))
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(case.call(copied(sample)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


@EACH_CASE
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_of_the_op(case: InPlaceCase, device: torch.device, requires_grad: bool) -> None:
    op = getattr(torch.ops.zonocuda, case.name).default
    names = [argument.name for argument in op._schema.arguments]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    for sample in case.functional.samples(device, torch.float64, False, {"matrix": SHAPES["matrix"]}):
        inputs = copied(sample)
        if case.name != "window_scale_":
            shape = inputs["generators"].shape
            inputs = {
                k: t.flatten(2) if k == "generators" else t.expand(shape[:1] + shape[2:]).flatten(1).contiguous()
                for k, t in inputs.items()
            }
        arguments = tuple(inputs.get(name) for name in names)
        if requires_grad:  # for the op's own arguments; it may then not be called at all
            with pytest.raises(RuntimeError, match=f"{case.name}: works in place and has no derivative"):
                op(*(a.requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments))
        else:
            torch.library.opcheck(op, arguments, test_utils=checks)


@EACH_CASE
def test_a_compiled_function_agrees_with_the_eager_one(case: InPlaceCase, device: torch.device) -> None:
    torch._dynamo.reset()

    def function(inputs: dict[str, Any]) -> tuple[Tensor, ...]:
        return case.call({name: t * 1 if name in case.written else t for name, t in inputs.items()})

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    inputs = {name: t.to(device) if isinstance(t, Tensor) else t for name, t in ordinary(case).items()}
    with torch.no_grad():
        for actual, expected in zip(compiled(inputs), function(inputs), strict=True):
            assert torch.equal(actual, expected)
