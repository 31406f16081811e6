"""Odd arguments of what is around ``verify``: each is taken for the one thing it can mean, or refused by one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zonocuda
from tests.verifier.test_odd_inputs import EXAMPLES, ball, graph, refused, spec
from zonocuda.domains import Zonotope
from zonocuda.specs import Box, LinearConstraint, Region, Spec

X = torch.zeros(3)
ROW = LinearConstraint({0: Fraction(1)}, {}, Fraction(0))
Calls = dict[str, tuple[Callable[[], Any], str]]


@cache
def network() -> zonocuda.importers.Network:
    return zonocuda.load_network(EXAMPLES / "fc.onnx")


def robust(x: Any = X, eps: Any = 0.1, label: Any = 0, **options: Any) -> Spec:
    return Spec.robust(x, eps, label, **{"outputs": 2, **options})


def batch(x: Any, labels: Any) -> list[Spec]:
    return Spec.robust_batch(x, 0.1, labels, outputs=2)


SPECS: Calls = {
    "x None": (lambda: robust(None), "x: must be a number, got NoneType"),
    "x text": (lambda: robust("cat"), "x: 'cat' is not a number"),
    "x ragged": (lambda: robust([[1, 2], [1]]), "x: must be"),
    "x a dictionary": (lambda: robust({"a": 1}), "x: must be a number, got dict"),
    "x complex": (lambda: robust(torch.zeros(3, dtype=torch.complex64)), "x: must be a number, got complex"),
    "x bool": (lambda: robust(torch.zeros(3, dtype=torch.bool)), "x: must be a number, got bool"),
    "x meta": (lambda: robust(torch.zeros(3, device="meta")), "x: is a tensor on the device meta"),
    "x NaN": (lambda: robust([math.nan]), "x holds a NaN or an infinity"),
    "eps None": (lambda: robust(eps=None), "eps: must be a number, got NoneType"),
    "eps text": (lambda: robust(eps="8/0"), "eps: '8/0' is not a number"),
    "eps negative": (lambda: robust(eps=-1), "eps must be finite and nonnegative"),
    "eps of another shape": (lambda: robust(eps=torch.zeros(4, 3)), "eps of shape [4, 3] does not fit"),
    "label None": (lambda: robust(label=None), "label: must be a number, got NoneType"),
    "label text": (lambda: robust(label="cat"), "label: 'cat' is not a number"),
    "label meta": (lambda: robust(label=torch.zeros(1, device="meta")), "label: is a tensor on the device meta"),
    "label 2": (lambda: robust(label=2), "label must be one of the 2 outputs, got 2"),
    "label 0.5": (lambda: robust(label=0.5), "label must be one of the 2 outputs"),
    "outputs as text": (lambda: robust(outputs="2"), "outputs must be an integer, got '2'"),
    "outputs 2.5": (lambda: robust(outputs=2.5), "outputs must be an integer, got 2.5"),
    "outputs None": (lambda: robust(outputs=None), "outputs must be an integer, got None"),
    "outputs 0": (lambda: robust(outputs=0), "outputs must be at least 1, got 0"),
    "clip 3": (lambda: robust(clip=3), "clip must be a list of two ends, got int"),
    "clip as text": (lambda: robust(clip="ab"), "clip must be a list of two ends, got str"),
    "clip of three": (lambda: robust(clip=(0, 1, 2)), "clip must be a range (low, high)"),
    "mean 3": (lambda: robust(mean=3, std=3), "mean must be a list of numbers, got int"),
    "mean alone": (lambda: robust(mean=[0]), "mean and std go together"),
    "targets 3": (lambda: robust(targets=3), "targets must be a list of outputs, got int"),
    "targets the label": (lambda: robust(targets=[0]), "targets must be outputs other than the label 0"),
    "norm 2": (lambda: robust(norm=2), "norm 2 is not supported"),
    "batch None": (lambda: batch(None, [0]), "x: must be a number, got NoneType"),
    "batch 3": (lambda: batch(3, [0]), "x must be a batch of inputs [n, *shape]"),
    "batch of no dimension": (lambda: batch(torch.zeros(()), [0]), "x must be a batch of inputs"),
    "one label": (lambda: batch(torch.zeros(2, 3), 0), "and labels [n]"),
    "labels as text": (lambda: batch(torch.zeros(2, 3), ["a", "b"]), "labels: 'a' is not a number"),
    "labels meta": (lambda: batch(torch.zeros(2, 3), torch.zeros(2, device="meta")), "labels: is a tensor on"),
    "other numbers": (lambda: batch(torch.zeros(2, 3), [0]), "2 inputs and 1 labels"),
    "linear None": (lambda: Spec.linear(None, None, None, None), "lower: must be a number, got NoneType"),  # type: ignore[arg-type]
    "linear text": (lambda: Spec.linear("a", "b", "c", "d"), "lower: 'a' is not a number"),
    "linear without end": (lambda: Spec.linear([0], [1], [["1e400000000"]], [0]), "matrix: '1e400000000' is not"),
    "regions 3": (lambda: Spec(3, 2, 3), "regions must be a sequence of Region, got int"),  # type: ignore[arg-type]
    "inputs -3": (lambda: Spec(-3, 2, ()), "inputs must be at least 0, got -3"),
    "outputs 'a'": (lambda: Spec(3, "a", ()), "outputs must be an integer, got 'a'"),  # type: ignore[arg-type]
}


def bad_region(region: Any) -> Callable[[], Any]:
    return lambda: zonocuda.verify(graph(), Spec(3, 2, (region,)))


def box(make: Callable[[], Tensor]) -> Box:
    return Box(make(), make(), make(), make())


OPENED: Calls = {
    **{
        f"{name} of {type(odd).__name__}": (lambda call=call, odd=odd: call(odd), f"{name}: needs a path")
        for name, call in (("load_onnx", zonocuda.load_onnx), ("load_vnnlib", zonocuda.load_vnnlib))
        for odd in (3, None, b"x", [], 3.5, object(), np.zeros(3))
    },
    "a folder": (lambda: zonocuda.load_onnx(Path(__file__).parent), "cannot be read"),
    "a null byte": (lambda: zonocuda.load_vnnlib("a\x00b"), "cannot be read"),
    "source code": (lambda: zonocuda.load_onnx(__file__), "not an ONNX model"),
    "source code as property": (lambda: zonocuda.load_vnnlib(__file__), "test_odd_calls.py"),
}
CALLS: Calls = {
    "a region 3": (bad_region(3), "region 0: must be a Region with a Box, got int"),
    "no box": (bad_region(Region(None, ((ROW,),))), "region 0: must be a Region with a Box"),  # type: ignore[arg-type]
    "a meta box": (bad_region(Region(box(lambda: torch.zeros(3, device="meta")), ())), "must be a tensor of floats"),
    "a box of integers": (bad_region(Region(box(lambda: torch.zeros(3).int()), ())), "must be a tensor of floats"),
    "a box of another size": (bad_region(Region(box(lambda: torch.zeros(4)), ())), "must have 3 bounds on each side"),
    "a disjunct 3": (bad_region(Region(box(lambda: X), (3,))), "every disjunct must be a sequence"),  # type: ignore[arg-type]
    "a row 3": (bad_region(Region(box(lambda: X), ((3,),))), "disjuncts must hold LinearConstraint, got int"),  # type: ignore[arg-type]
    "a row of Y_9": (
        bad_region(Region(box(lambda: X), ((LinearConstraint({9: Fraction(1)}, {}, Fraction(0)),),))),
        "names a variable that does not exist",
    ),
    "certificate 'x'": (lambda: zonocuda.verify(graph(), spec(), certificate="x"), "certificate must be True or"),  # type: ignore[arg-type]
    "split": (lambda: zonocuda.verify(graph(), spec(), split="x"), "split must be one of"),  # type: ignore[arg-type]
    "generators None": (lambda: Zonotope.from_generators(X, None), "from_generators: needs tensors, got NoneType"),  # type: ignore[arg-type]
    "generators as lists": (lambda: Zonotope.from_generators([1.0], [[1.0]]), "needs tensors, got list"),  # type: ignore[arg-type]
    "radius True": (lambda: Zonotope.from_ball(X, True), "needs floats, got torch.bool"),
    "radius of another shape": (lambda: Zonotope.from_ball(X, torch.zeros(5)), "eps of shape [5] does not fit"),
    "radius of more": (lambda: Zonotope.from_ball(X, torch.zeros(4, 3)), "eps of shape [4, 3] does not fit"),
    "ball of no dimension": (lambda: Zonotope.from_ball(torch.zeros(()), 0.1), "must have shape [B, *features]"),
    "ball of a sparse tensor": (lambda: Zonotope.from_ball(X.to_sparse(), 0.1), "needs a dense tensor"),
    "ball on meta": (lambda: Zonotope.from_ball(X.to("meta"), 0.1), "holds none"),
    "ball clip 3": (lambda: Zonotope.from_ball(X, 0.1, clip=3), "clip must be a range (low, high), got 3"),  # type: ignore[arg-type]
    "ball clip of text": (lambda: Zonotope.from_ball(X, 0.1, clip=("a", "b")), "clip must be a range"),  # type: ignore[arg-type]
    "ball clip of one": (lambda: Zonotope.from_ball(X, 0.1, clip=(0,)), "clip must be a range"),  # type: ignore[arg-type]
    "graph of halves": (lambda: graph()(torch.zeros(1, 3).half()), "the input is torch.float16 on cpu and the"),
    "graph of doubles": (lambda: graph()(torch.zeros(1, 3).double()), "Graph.to converts them"),
    "graph of integers": (lambda: graph()(torch.zeros(1, 3).long()), "the input is torch.int64 on cpu"),
    "graph to integers": (lambda: graph().to(torch.int32), "must be a floating-point type"),
    "graph to text": (lambda: graph().to("float32"), "must be a floating-point type"),  # type: ignore[arg-type]
    "graph to nowhere": (lambda: graph().to(torch.float32, "tpu"), "there is no device 'tpu'"),
    "check of None": (lambda: network().check(None, None), "the box must be two tensors, got NoneType"),  # type: ignore[arg-type]
    "check of a small box": (lambda: network().check(X, X), "the box has 3 lower and 3 upper bounds"),
    "check of -1 points": (lambda: network().check(X, X, points=-1), "points must be a number of points, got -1"),
    "run None": (lambda: network().runtime(None), "must be a tensor or an array, got NoneType"),  # type: ignore[call-overload]
    "run lists": (lambda: network().runtime([[1.0]]), "must be a tensor or an array, got list"),  # type: ignore[call-overload]
    "run another shape": (lambda: network().runtime(torch.zeros(1, 1)), "inputs must have shape"),
    "run integers": (lambda: network().runtime(torch.zeros(1, 3).int()), "inputs must be float32, got int32"),
    "audit of None": (lambda: zonocuda.nonsmooth.audit(None, X, sum), "must be a torch.nn.Module, got NoneType"),  # type: ignore[arg-type]
    "audit without loss": (lambda: zonocuda.nonsmooth.audit(nn.ReLU(), X, None), "loss must be callable"),  # type: ignore[arg-type]
    "audit in text": (lambda: zonocuda.nonsmooth.audit(nn.ReLU(), X, sum, dtypes=["x"]), "dtypes must be floating"),  # type: ignore[arg-type,list-item]
    "audit of a number": (lambda: zonocuda.nonsmooth.audit(nn.ReLU(), 3, sum), "batch must be a tensor"),  # type: ignore[arg-type]
    "audit's loss 3": (
        lambda: zonocuda.nonsmooth.audit(nn.ReLU(), X, lambda y: 3, progress=False),  # type: ignore[arg-type,return-value]
        "the loss must return a tensor of one number, got int",
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_an_odd_specification_is_refused(name: str) -> None:
    call, expected = SPECS[name]
    assert expected in refused(call)


@pytest.mark.parametrize("name", OPENED)
def test_what_is_no_file_of_that_kind_is_refused(name: str) -> None:
    call, expected = OPENED[name]
    assert expected in refused(call)


@pytest.mark.parametrize("name", CALLS)
def test_an_odd_call_is_refused(name: str) -> None:
    call, expected = CALLS[name]
    assert expected in refused(call)


def test_sparse_tensors_arrays_and_lists_are_numbers() -> None:
    plain = robust(torch.tensor([0.25, 0.0, 1.0]))
    for x in (torch.tensor([0.25, 0.0, 1.0]).to_sparse(), np.array([0.25, 0, 1]), [0.25, 0, 1], ("1/4", 0, 1)):
        found = robust(x)
        assert torch.equal(found.regions[0].box.lower, plain.regions[0].box.lower)
        assert torch.equal(found.regions[0].box.upper, plain.regions[0].box.upper)
    for labels in ([0, 1], (0, 1), np.array([0, 1]), torch.tensor([0, 1])):
        assert [str(s) for s in batch(torch.zeros(2, 3), labels)] == [str(robust(label=i)) for i in (0, 1)]


def test_specifications_and_sets_do_not_follow_the_default_device() -> None:
    rows, problem = torch.eye(2), spec()
    plain = zonocuda.optimize_bounds(graph(), ball(), rows).lower
    with torch.device("meta"):  # where no number can be read
        found = robust([0.1, 0.2, 0.3])
        assert found.regions[0].box.lower.device.type == "cpu"
        assert Spec.linear([0, 0], [1, 1], [[1, 2]], [3]).regions[0].box.upper.device.type == "cpu"
        assert len(batch(np.zeros((2, 3)), [0, 1])) == 2
        assert zonocuda.verify(graph(), problem).verdict is not zonocuda.Verdict.TIMEOUT
        assert Zonotope.from_ball([[0.1, 0.2]], 0.1).center.device.type == "cpu"  # type: ignore[arg-type]
        assert Zonotope.from_ball(np.zeros((1, 3)), 0.1).center.device.type == "cpu"  # type: ignore[arg-type]
        assert torch.equal(zonocuda.optimize_bounds(graph(), ball_on_cpu(), np.eye(2)).lower.float(), plain)


def ball_on_cpu() -> Zonotope:
    return Zonotope.from_ball(torch.zeros(1, 3, device="cpu"), 0.1)


def test_an_error_of_the_callers_own_function_is_the_callers() -> None:
    def progress(phase: str, done: int, total: int) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        zonocuda.verify(graph(), spec(), progress=progress)
