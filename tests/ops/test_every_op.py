"""What holds for every op: values and gradients of the reference, and the contracts of a torch op."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from tests.ops.cases import CASES, OpCase, assert_close, cotangents_like, gradients, terms
from tests.ops.samples import EMPTY, LARGE, SHAPES, SMALL, Sample

DTYPES = (torch.float32, torch.float64)
# A backward op has no derivative, which it says: only the tests without one apply where its inputs want a gradient.
TRACED = "test_aot_dispatch_dynamic"
FORWARD_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", TRACED)
BACKWARD_CHECKS = FORWARD_CHECKS[:3]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> OpCase:
    """Each op once."""
    op: OpCase = request.param
    return op


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Each dtype of the ops once."""
    kind: torch.dtype = request.param
    return kind


# ---- values and gradients ------------------------------------------------------------------------------------------


def test_values_are_those_of_the_reference_up_to_rounding(
    case: OpCase, device: torch.device, dtype: torch.dtype
) -> None:
    for sample in case.samples(device, dtype, requires_grad=False):
        exact = sample.to(torch.float64)
        outputs, expected = case.native(sample), case.oracle(exact)
        assert len(outputs) == len(expected)
        for position, (actual, oracle, scale) in enumerate(
            zip(outputs, expected, case.value_scales(exact.inputs), strict=True)
        ):
            what = f"{case.name}, {sample.name}, output {position}"
            assert actual.dtype == dtype, what
            assert_close(what, actual, oracle, scale, terms(sample))


def test_gradients_are_autograds_through_the_reference_up_to_rounding(
    case: OpCase, device: torch.device, dtype: torch.dtype
) -> None:
    for sample in case.samples(device, dtype, requires_grad=True):
        exact = sample.to(torch.float64)
        outputs = case.native(sample)
        cotangents = cotangents_like(outputs)
        exact_cotangents = [t.double() for t in cotangents]
        grads = gradients(outputs, sample, cotangents)
        expected = gradients(case.oracle(exact), exact, exact_cotangents)
        detached = exact.converted(torch.clone).inputs
        with torch.no_grad():
            scales = case.gradient_scales(detached, exact_cotangents)
        for name, oracle in expected.items():
            what = f"{case.name}, {sample.name}, gradient of {name}"
            assert grads[name].dtype == dtype, what
            assert_close(what, grads[name], oracle, scales[name], terms(sample))
            # A wrong zero or a missing term hides in no tolerance here: zeros and magnitudes must agree as well.
            near_zero = oracle.abs() <= 1e-6 * scales[name].expand(oracle.shape)
            assert torch.equal(grads[name] == 0, oracle == 0) or bool(
                near_zero[(grads[name] == 0) != (oracle == 0)].all()
            )
            if oracle.norm() > 0:
                ratio = (grads[name].double().norm() / oracle.norm()).item()
                assert abs(ratio - 1) < 1e-5, f"{what}: magnitude is {ratio} times the reference's"


def test_the_samples_have_gradients_to_compare(case: OpCase) -> None:
    """Guards the test above: on ordinary samples every input has a gradient, and most of its entries are not zero."""
    for sample in case.samples(torch.device("cpu"), torch.float64, True, {"map": SHAPES["map"]}):
        if sample.name.startswith("all dead") or "slope" in sample.name:
            continue
        outputs = case.oracle(sample)
        for name, grad in gradients(outputs, sample, cotangents_like(outputs)).items():
            active = sample.name.startswith("all active") and name in ("slope", "lower", "upper")
            share = grad.count_nonzero().item() / grad.numel()
            assert share > 0.1 or active, (
                f"{case.name}, {sample.name}: {share:.0%} of the gradient of {name} is nonzero"
            )


def test_gradcheck_passes_off_the_kinks(case: OpCase, device: torch.device) -> None:
    shapes = {name: SHAPES[name] for name in ("vector", "one neuron", "no symbols")}
    for sample in case.samples(device, torch.float64, True, shapes):
        if sample.name.startswith("edges"):  # those neurons lie on discontinuities
            continue
        names, leaves = list(sample.leaves()), list(sample.leaves().values())

        def call(*tensors: Tensor, sample: Sample = sample, names: list[str] = names) -> tuple[Tensor, ...]:
            return case.native(Sample(sample.name, {**sample.inputs, **dict(zip(names, tensors, strict=True))}))

        assert torch.autograd.gradcheck(call, leaves, atol=1e-7, rtol=1e-5, nondet_tol=0.0), sample.name


# ---- contracts -----------------------------------------------------------------------------------------------------


class _Recorder(TorchDispatchMode):
    """Keeps every call of a native op, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[OpOverload, tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "zonocuda":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def _first_of_each(samples: Iterable[Sample], key: Callable[[Sample], Hashable]) -> Iterator[Sample]:
    """The first sample with each value of ``key``."""
    seen: set[Hashable] = set()
    for sample in samples:
        if key(sample) not in seen:
            seen.add(key(sample))
            yield sample


def _signature(sample: Sample) -> Hashable:
    """Which arguments there are, and their shapes."""
    return tuple((k, v.shape if isinstance(v, Tensor) else v) for k, v in sample.inputs.items())


def _arguments(sample: Sample) -> Hashable:
    """Which arguments there are."""
    return tuple(sample.inputs)


def _native_calls(case: OpCase, device: torch.device, name: str) -> list[tuple[OpOverload, tuple[Any, ...]]]:
    """What the wrapper and its backward make of the samples: calls of the native op ``name``."""
    calls = []
    samples = case.samples(device, torch.float64, True, {"vector": SHAPES["vector"], **EMPTY})
    for sample in _first_of_each(samples, _signature):
        with _Recorder() as recorder:
            outputs = case.native(sample)
            gradients(outputs, sample, cotangents_like(outputs))
        calls += [call for call in recorder.calls if call[0]._opname == name]
    assert calls, f"{name} was never called"
    return calls


def _check_calls(calls: list[tuple[OpOverload, tuple[Any, ...]]], wanted: tuple[str, ...], requires_grad: bool) -> None:
    """Every check of every call; a trace, which is slow and has symbols for sizes, once for each set of arguments."""
    traced: set[Hashable] = set()
    for op, args in calls:
        kinds = tuple(type(a) for a in args)
        checks = tuple(check for check in wanted if check != TRACED or kinds not in traced)
        traced.add(kinds)
        fresh = tuple(
            a.detach().clone().requires_grad_(requires_grad and a.is_floating_point()) if isinstance(a, Tensor) else a
            for a in args
        )
        torch.library.opcheck(op, fresh, test_utils=checks)


def test_opcheck_of_the_op(case: OpCase, device: torch.device) -> None:
    calls = _native_calls(case, device, case.name)
    for requires_grad in (False, True):
        _check_calls(calls, FORWARD_CHECKS, requires_grad)


def test_opcheck_of_the_backward_op(case: OpCase, device: torch.device) -> None:
    calls = _native_calls(case, device, f"_{case.name}_backward")
    for requires_grad in (False, True):
        _check_calls(calls, BACKWARD_CHECKS if requires_grad else FORWARD_CHECKS, requires_grad)


def test_empty_inputs_give_empty_outputs_and_gradients(case: OpCase, device: torch.device) -> None:
    for sample in case.samples(device, torch.float32, True, EMPTY):
        outputs = case.native(sample)
        assert [t.shape for t in outputs] == [t.shape for t in case.oracle(sample)], sample.name
        for name, grad in gradients(outputs, sample, cotangents_like(outputs)).items():
            assert grad.shape == sample.inputs[name].shape, f"{sample.name}, {name}"


def _strided(t: Tensor) -> Tensor:
    """The same numbers with gaps between them."""
    return torch.stack([t, torch.full_like(t, 77)], dim=-1)[..., 0]


def test_inputs_with_strides_give_the_same_bits(case: OpCase, device: torch.device) -> None:
    for sample in case.samples(device, torch.float32, True, SMALL):
        apart = Sample(
            sample.name, {k: _strided(v.detach()) if isinstance(v, Tensor) else v for k, v in sample.inputs.items()}
        )
        for tensor in apart.inputs.values():
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.requires_grad_()
        outputs, again = case.native(sample), case.native(apart)
        cotangents = cotangents_like(outputs)
        for first, second in zip(outputs, again, strict=True):
            assert torch.equal(first, second), sample.name
        grads = gradients(outputs, sample, cotangents)
        for name, grad in gradients(again, apart, [_strided(t) for t in cotangents]).items():
            assert torch.equal(grad, grads[name]), f"{sample.name}, gradient of {name}"


def test_every_number_of_threads_gives_the_same_bits(case: OpCase) -> None:
    threads = torch.get_num_threads()
    sample = next(iter(case.samples(torch.device("cpu"), torch.float32, True, LARGE)))
    cotangents = cotangents_like(case.native(sample))
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            outputs = case.native(sample)
            results.append([*outputs, *gradients(outputs, sample, cotangents).values()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_a_compiled_function_agrees_with_the_eager_one(case: OpCase, device: torch.device) -> None:
    """With symbols for sizes; with the sizes themselves, shapes are what opcheck compares."""
    torch._dynamo.reset()

    def function(inputs: dict[str, Any]) -> tuple[Tensor, ...]:
        return case.native(Sample("compiled", inputs))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    samples = case.samples(device, torch.float32, True, {"vector": SHAPES["vector"]})
    for sample in _first_of_each(samples, _arguments):
        outputs, eager = compiled(dict(sample.inputs)), function(dict(sample.inputs))
        cotangents = cotangents_like(eager)
        assert all(torch.equal(first, second) for first, second in zip(outputs, eager, strict=True)), sample.name
        grads = gradients(eager, sample, cotangents)
        for name, grad in gradients(outputs, sample, cotangents).items():
            assert torch.equal(grad, grads[name]), f"{sample.name}, gradient of {name}"


def test_a_second_derivative_is_refused(case: OpCase, device: torch.device) -> None:
    sample = next(iter(case.samples(device, torch.float64, True, {"vector": SHAPES["vector"]})))
    leaves = list(sample.leaves().values())
    loss = torch.stack([t.square().sum() for t in case.native(sample)]).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    if case.is_linear:
        pytest.skip(f"{case.name} is linear, and its backward has a derivative")
    with pytest.raises(
        RuntimeError, match=rf"{case.name}: double backward is not supported; use the reference backend"
    ):
        torch.autograd.grad(torch.stack([t.sum() for t in first]).sum(), leaves)


def test_other_dtypes_are_refused_by_name(case: OpCase) -> None:
    sample = next(iter(case.samples(torch.device("cpu"), torch.float32, False, {"vector": SHAPES["vector"]})))
    with pytest.raises(RuntimeError, match=rf"{case.name}: dtype must be {case.accepted}, got \w+"):
        case.native(sample.to(case.refused))


def test_mixed_dtypes_are_refused_by_name(case: OpCase) -> None:
    sample = next(iter(case.samples(torch.device("cpu"), torch.float32, False, {"vector": SHAPES["vector"]})))
    floating = [name for name, t in sample.inputs.items() if isinstance(t, Tensor) and t.is_floating_point()]
    if len(floating) < 2:
        pytest.skip(f"{case.name} has one floating-point tensor")
    for name in floating:
        mixed = Sample("mixed", {**sample.inputs, name: sample.inputs[name].double()})
        with pytest.raises(RuntimeError, match=rf"{case.name}: \w+ must have the other tensors' dtype \w+, got \w+"):
            case.native(mixed)
