"""Odd modules and arguments: each is taken for the one thing it can mean, or refused by one line in a user's terms.

Nothing leaves the package but its own errors, ``TypeError`` and ``ValueError``; and no odd module gets a wrong verdict.
"""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import zonocuda
from tests.importers.modules import Apply
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Input, Linear, Node, Relu, ScaleShift
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict

EXAMPLES = Path(__file__).parents[2] / "examples" / "networks"


def refused(call: Callable[[], object]) -> str:
    """The one line of an error that may leave the package."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    kind, text = type(caught.value), str(caught.value)
    assert kind in (TypeError, ValueError) or kind.__module__.startswith("zonocuda."), kind
    assert text
    assert "\n" not in text
    assert "csrc" not in text
    assert "Traceback" not in text
    return text


@cache
def graph() -> Graph:
    """Three inputs, four neurons, two outputs."""
    generator = torch.Generator().manual_seed(0)
    w, v = torch.randn(4, 3, generator=generator), torch.randn(2, 4, generator=generator)
    nodes = (
        Node("x", Input(), (), (3,)),
        Node("first", Linear(w), ("x",), (4,)),
        Node("relu", Relu(), ("first",), (4,)),
        Node("y", Linear(v), ("relu",), (2,)),
    )
    return Graph(nodes, "y")


def spec() -> Spec:
    return Spec.robust(torch.zeros(3), 0.01, 0, outputs=2, clip=None)


def ball() -> Zonotope:
    return Zonotope.from_ball(torch.zeros(1, 3), 0.1)


def typed(dtype: torch.dtype) -> Zonotope:
    return Zonotope.from_generators(torch.zeros(1, 3, dtype=dtype), torch.zeros(1, 1, 3, dtype=dtype))


VERIFY: dict[str, tuple[dict[str, Any], str]] = {
    "timeout as text": ({"timeout": "5"}, "timeout must be a number of seconds, or None"),
    "timeout -1": ({"timeout": -1}, "timeout must be a positive number"),
    "timeout 0": ({"timeout": 0}, "timeout must be a positive number"),
    "timeout NaN": ({"timeout": math.nan}, "timeout must be a positive number"),
    "timeout True": ({"timeout": True}, "timeout must be a number of seconds"),
    "device tpu": ({"device": "tpu"}, "device 'tpu': must be auto, cpu or cuda"),
    "device mps": ({"device": "mps"}, "must be auto, cpu or cuda"),
    "device 3.5": ({"device": 3.5}, "must be auto, cpu or cuda"),
    "device None": ({"device": None}, "must be auto, cpu or cuda"),
    "dtype of half as text": ({"dtype": "float16"}, "dtype must be float32 or float64, or 'auto'"),
    "dtype float16": ({"dtype": torch.float16}, "dtype must be float32 or float64, or 'auto'"),
    "dtype None": ({"dtype": None}, "dtype must be float32 or float64, or 'auto'"),
    "backend": ({"backend": "x"}, "backend must be one of auto, native, reference"),
    "backend None": ({"backend": None}, "backend must be one of"),
    "direction": ({"direction": "x"}, "direction must be one of"),
    "budget 0": ({"memory_budget": 0}, "memory_budget must be a positive number of bytes"),
    "budget as text": ({"memory_budget": "1G"}, "memory_budget must be a number of bytes"),
    "budget inf": ({"memory_budget": math.inf}, "memory_budget must be a positive number of bytes"),
    "kink": ({"kink": "x"}, "kink must be one of envelope"),
    "kink list": ({"kink": []}, "kink must be one of envelope"),
    "seed as text": ({"seed": "a"}, "seed must be an integer"),
    "seed -1": ({"seed": -1}, "seed must be from 0"),
    "seed 2^70": ({"seed": 2**70}, "seed must be from 0"),
    "seed 1.5": ({"seed": 1.5}, "seed must be an integer"),
    "effort": ({"effort": "x"}, "effort must be one of fast, standard, max"),
    "effort None": ({"effort": None}, "effort must be one of"),
    "semantics": ({"semantics": "x"}, "semantics must be one of"),
    "semantics float16": ({"semantics": "float16"}, "no bound holds for sums"),
    "semantics list": ({"semantics": []}, "semantics must be one of"),
    "progress": ({"progress": None}, "progress must be callable"),
}


@pytest.mark.parametrize("name", VERIFY)
def test_an_odd_setting_of_verify_is_refused(name: str) -> None:
    settings, expected = VERIFY[name]
    assert expected in refused(lambda: zonocuda.verify(graph(), spec(), **settings))


SUBJECTS: dict[str, tuple[Callable[[], object], str]] = {
    "no network": (lambda: zonocuda.verify(None, spec()), "the network must be"),  # type: ignore[arg-type]
    "a function": (lambda: zonocuda.verify(lambda x: x, spec()), "got function"),  # type: ignore[arg-type]
    "a class": (lambda: zonocuda.verify(nn.ReLU, spec()), "the network must be"),  # type: ignore[arg-type]
    "bytes": (lambda: zonocuda.verify(b"abc", spec()), "got bytes"),  # type: ignore[arg-type]
    "swapped": (lambda: zonocuda.verify(spec(), graph()), "the specification must be a Spec"),  # type: ignore[arg-type]
    "no specification": (lambda: zonocuda.verify(graph(), None), "got NoneType"),  # type: ignore[arg-type]
    "a dictionary": (lambda: zonocuda.verify(graph(), {}), "got dict"),  # type: ignore[arg-type]
    "no such network": (lambda: zonocuda.verify("/no/where.onnx", spec()), "cannot be read"),
    "no such property": (lambda: zonocuda.verify(graph(), "/no/where.vnnlib"), "cannot be read"),
    "a network as property": (lambda: zonocuda.verify(graph(), EXAMPLES / "fc.onnx"), "fc.onnx"),
    "an empty path": (lambda: zonocuda.verify("", spec()), "cannot be read"),
    "an empty ONNX model": (lambda: zonocuda.verify(onnx.ModelProto(), spec()), "not an ONNX model"),
    "too many inputs": (lambda: zonocuda.verify(graph(), Spec(4, 2, ())), "4 inputs and 2 outputs"),
    "too many outputs": (lambda: zonocuda.verify(graph(), Spec(3, 3, ())), "3 inputs and 3 outputs"),
    "no shape": (lambda: zonocuda.verify(nn.Linear(3, 2), Spec(3, 2, ())), "pass input_shape"),
    "shape as text": (lambda: zonocuda.verify(nn.Linear(3, 2), spec(), input_shape="3"), "input_shape"),  # type: ignore[arg-type]
    "shape as int": (lambda: zonocuda.verify(nn.Linear(3, 2), spec(), input_shape=3), "input_shape"),  # type: ignore[arg-type]
    "shape of floats": (lambda: zonocuda.verify(nn.Linear(3, 2), spec(), input_shape=(3.0,)), "integers"),  # type: ignore[arg-type]
    "shape -3": (lambda: zonocuda.verify(nn.Linear(3, 2), spec(), input_shape=(-3,)), "positive"),
    "shape 0": (lambda: zonocuda.verify(nn.Linear(3, 2), spec(), input_shape=(0,)), "positive"),
    "load_network 3": (lambda: zonocuda.load_network(3), "needs a path"),  # type: ignore[arg-type]
    "load_network bytes": (lambda: zonocuda.load_network(b"abc"), "needs a path"),  # type: ignore[arg-type]
    "load_network None": (lambda: zonocuda.load_network(None), "needs a path"),  # type: ignore[arg-type]
    "from_module None": (lambda: zonocuda.from_module(None, (3,)), "must be a torch.nn.Module"),  # type: ignore[arg-type]
    "from_module no shape": (lambda: zonocuda.from_module(nn.ReLU(), None), "input_shape"),  # type: ignore[arg-type]
    "from_module points": (lambda: zonocuda.from_module(nn.ReLU(), (3,), points="x"), "points"),  # type: ignore[arg-type]
    "from_module seed": (lambda: zonocuda.from_module(nn.ReLU(), (3,), seed=None), "seed"),  # type: ignore[arg-type]
    "graph of an array": (lambda: graph()(np.zeros((1, 3))), "must be a tensor"),  # type: ignore[arg-type]
    "graph of another shape": (lambda: graph()(torch.zeros(1, 4)), "must have shape [B, 3], got [1, 4]"),
    "graph of a scalar": (lambda: graph()(torch.zeros(())), "must have shape [B, 3], got []"),
    "ball around text": (lambda: Zonotope.from_ball("a", 0.1), "from_ball: needs a tensor of floats"),  # type: ignore[arg-type]
    "ball around integers": (lambda: Zonotope.from_ball(torch.zeros(1, 3).long(), 0.1), "needs floats"),
    "radius as text": (lambda: Zonotope.from_ball(torch.zeros(1, 3), "a"), "needs a tensor of floats"),  # type: ignore[arg-type]
    "radius None": (lambda: Zonotope.from_ball(torch.zeros(1, 3), None), "needs a tensor of floats"),  # type: ignore[arg-type]
    "box of None": (lambda: Zonotope.from_box(None, None), "needs a tensor of floats"),  # type: ignore[arg-type]
    "box of NaN": (lambda: Zonotope.from_box(torch.tensor([[math.nan]]), torch.ones(1, 1)), "finite"),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_no_network_no_property_and_no_set_is_refused(name: str) -> None:
    call, expected = SUBJECTS[name]
    assert expected in refused(call)


INPUTS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "a tensor": (lambda: torch.zeros(1, 3), {}, "must be a Zonotope"),
    "an array": (lambda: np.zeros((1, 3)), {}, "got ndarray"),
    "None": (lambda: None, {}, "got NoneType"),
    "float16": (lambda: typed(torch.float16), {}, "must be float32 or float64, got torch.float16"),
    "bfloat16": (lambda: typed(torch.bfloat16), {}, "must be float32 or float64, got torch.bfloat16"),
    "integers": (lambda: typed(torch.int64), {}, "must be float32 or float64, got torch.int64"),
    "other features": (lambda: Zonotope.from_ball(torch.zeros(1, 4), 0.1), {}, "features [4]"),
    "no batch": (lambda: Zonotope.from_ball(torch.zeros(3), 0.1), {}, "features []"),
    "layers": (ball, {"layers": "x"}, "layers must be one of output, all"),
    "direction": (ball, {"direction": None}, "direction must be one of"),
    "kink": (ball, {"kink": 3}, "kink must be one of"),
    "backend": (ball, {"backend": "cuda"}, "backend must be one of"),
    "budget": (ball, {"memory_budget": -1}, "memory_budget must be a positive number"),
    "budget as text": (ball, {"memory_budget": "x"}, "memory_budget must be a number"),
    "slopes of no ReLU": (ball, {"slopes": {"nope": torch.zeros(1)}}, "no activations of the network"),
    "slopes as a list": (ball, {"slopes": [1]}, "slopes must be tensors by the name"),
    "slopes as floats": (ball, {"slopes": {"relu": 0.5}}, "must be a tensor like the zonotope's"),
    "slopes in float64": (
        ball,
        {"slopes": {"relu": torch.zeros(1, 4).double()}},
        "torch.float32 on cpu, got torch.float64",
    ),
    "slopes of another shape": (ball, {"slopes": {"relu": torch.zeros(7)}}, "broadcast"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_odd_inputs_and_settings_of_compute_bounds_are_refused(name: str) -> None:
    inputs, settings, expected = INPUTS[name]
    assert expected in refused(lambda: zonocuda.compute_bounds(graph(), inputs(), **settings))


EYE = torch.eye(2)
OPTIMISE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "another size": (torch.eye(3), {}, "the network needs [3] and [rows, 2]"),
    "a vector": (torch.ones(2), {}, "the network needs [3] and [rows, 2]"),
    "text": ("abc", {}, "the objective must be numbers"),
    "None": (None, {}, "the objective must be numbers"),
    "ragged lists": ([[1.0], [1.0, 2.0]], {}, "the objective must be numbers"),
    "no rows": (torch.zeros(0, 2), {}, "in one row at least"),
    "complex": (EYE.to(torch.complex64), {}, "must be real numbers"),
    "mode": (EYE, {"mode": "x"}, "mode must be one of dual, forward"),
    "a loss in the dual": (EYE, {"loss": lambda z: 0}, "a loss needs mode='forward'"),
    "a loss that is no tensor": (EYE, {"loss": lambda z: 0, "mode": "forward"}, "the loss must return"),
    "a loss of another shape": (EYE, {"loss": lambda z: torch.zeros(5), "mode": "forward"}, "the loss must return"),
    "ascent": (EYE, {"ascent": 3}, "ascent must be an Ascent, got int"),
    "intermediate": (EYE, {"intermediate": -1}, "intermediate must be from 0"),
    "intermediate as text": (EYE, {"intermediate": "x"}, "intermediate must be an integer"),
    "target": (EYE, {"target": "x"}, "target must be a number"),
    "start": (EYE, {"start": {"relu": 1}}, "start must be Slopes"),
    "start 3": (EYE, {"start": 3}, "start must be Slopes"),
    "backend": (EYE, {"backend": 3}, "backend must be one of"),
    "budget": (EYE, {"memory_budget": True}, "memory_budget must be a number"),
}


@pytest.mark.parametrize("name", OPTIMISE)
def test_odd_settings_of_optimize_bounds_are_refused(name: str) -> None:
    objective, settings, expected = OPTIMISE[name]
    assert expected in refused(lambda: zonocuda.optimize_bounds(graph(), ball(), objective, **settings))


def test_what_has_one_meaning_is_taken() -> None:
    plain = zonocuda.verify(graph(), spec()).verdict
    for timeout in (None, 100, np.float32(100), Fraction(100), math.inf):
        assert zonocuda.verify(graph(), spec(), timeout=timeout).verdict is plain  # type: ignore[arg-type]
    lower = zonocuda.optimize_bounds(graph(), ball(), EYE).lower
    for objective in (np.eye(2), [[1, 0], [0, 1]], EYE.double()):
        assert torch.equal(zonocuda.optimize_bounds(graph(), ball(), objective).lower, lower)  # type: ignore[arg-type]
    array = Zonotope.from_ball(np.zeros((1, 3)), 0.1)  # type: ignore[arg-type]
    assert array.center.dtype == torch.float64
    assert Zonotope.from_box([[0.0]], [[1.0]]).bounds()[1].item() >= 1.0  # type: ignore[arg-type]
    assert zonocuda.compute_bounds(graph(), Zonotope.from_ball(torch.zeros(0, 3), 0.1)).lower.shape == (0, 2)


def test_paths_and_models_in_memory_are_taken(tmp_path: Path) -> None:
    path = EXAMPLES / "fc.onnx"
    network = zonocuda.load_network(path)
    n, m = math.prod(network.graph.input_shape), math.prod(network.graph.output_shape)
    text = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 0))" for i in range(n))
    text += "".join(f"(declare-const Y_{i} Real)" for i in range(m)) + "(assert (>= Y_0 1e6))"
    prop = tmp_path / "prop.vnnlib"
    prop.write_text(text)
    model = onnx.load(path)
    for net, given in ((path, prop), (str(path), str(prop)), (model, prop)):
        found = zonocuda.verify(net, given)
        assert found.verdict is Verdict.VERIFIED
        assert found.ran.replay == "onnxruntime"


@pytest.mark.parametrize("final", [False, True])
def test_a_property_of_tensors_of_other_names_is_refused(final: bool) -> None:
    """y = x, or the softmax of it, in a file that calls them so."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    node = helper.make_node("Softmax" if final else "Identity", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), ir_version=8)
    given = Spec.robust([2.0, 0.0], 0.5, 0, outputs=2, clip=None)
    for names in ((None, None), ("x", None), (None, "y"), ("x", "y")):
        found = zonocuda.verify(model, replace(given, names=names), certificate=True)
        assert found.verdict is Verdict.VERIFIED
    for names, wrong in ((("y", "y"), "input 'y'; the network's input is 'x'"), ((None, "x"), "output 'x'; the net")):
        other = replace(given, names=names)
        assert wrong in refused(partial(zonocuda.verify, model, other))
        assert wrong in refused(partial(zonocuda.check, found, model, other))


def test_weights_that_a_file_reads_backwards_are_taken() -> None:
    """y = x (r + r), where r has the rows of w in reverse: w[::-1] by a Slice with step -1."""
    w = np.arange(9, dtype=np.float32).reshape(3, 3)
    given = {"w": w, "s": np.array([-1]), "e": np.array([-10]), "a": np.array([0]), "t": np.array([-1])}
    nodes = [
        helper.make_node("Slice", ["w", "s", "e", "a", "t"], ["r"]),
        helper.make_node("Add", ["r", "r"], ["r2"]),
        helper.make_node("MatMul", ["x", "r2"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, k) for k, v in given.items()])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    assert zonocuda.load_network(model).graph(torch.eye(3)).tolist() == (2 * w[::-1]).tolist()


# ---- modules: y = 2 x + 1 on [-1, 1], in odd ways --------------------------------------------------------------------

Pair = namedtuple("Pair", "y")


def double(x: Tensor) -> Tensor:
    return 2 * x + 1


def alone(x: Tensor) -> Tensor:
    assert x.shape[0] == 1
    return double(x)


def looked_up(x: Tensor) -> Tensor:
    return [double(x)][x.shape[0] - 1]


class Optional(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 2.0) -> Tensor:
        return scale * x + 1 if mask is None else x


class Variadic(nn.Module):
    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return double(args[0])


TAKEN: dict[str, Callable[[], nn.Module]] = {
    "a tuple": lambda: Apply(lambda x: (double(x),)),
    "a list": lambda: Apply(lambda x: [double(x)]),
    "a dictionary": lambda: Apply(lambda x: {"logits": double(x)}),
    "an ordered dictionary": lambda: Apply(lambda x: OrderedDict(y=double(x))),
    "a named tuple": lambda: Apply(lambda x: Pair(double(x))),
    "nested": lambda: Apply(lambda x: ({"y": [double(x)]},)),
    "a tensor and nothing": lambda: Apply(lambda x: (double(x), None)),
    "batch 1 asserted": lambda: Apply(alone),
    "an error at batch 2": lambda: Apply(looked_up),
    "optional arguments": Optional,
    "any arguments": Variadic,
    "an exported program's module": lambda: torch.export.export(Apply(double), (torch.zeros(1, 1),)).module(),
}


def two(x: Tensor) -> Tensor:
    assert x.shape[0] == 2
    return double(x)


def sparse() -> nn.Module:
    module = nn.Linear(1, 1)
    module.weight = nn.Parameter(torch.ones(1, 1).to_sparse())
    return module


def inferred() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(1, 1)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "two tensors": (lambda: Apply(lambda x: (double(x), x)), "exactly one tensor"),
    "one tensor twice": (lambda: Apply(lambda x: [x, x]), "exactly one tensor"),
    "a tensor and a number": (lambda: Apply(lambda x: (double(x), 3)), "exactly one tensor"),
    "a text": (lambda: Apply(lambda x: "text"), "exactly one tensor"),
    "nothing": (lambda: Apply(lambda x: None), "exactly one tensor"),
    "an empty tuple": (lambda: Apply(lambda x: ()), "exactly one tensor"),
    "two arguments": (lambda: nn.Bilinear(1, 1, 1), "needs arguments besides the input (input2)"),
    "a required keyword": (
        lambda: type("Keyword", (nn.Module,), {"forward": lambda self, x, *, scale: x * scale})(),
        "needs arguments besides the input (scale)",
    ),
    "no arguments": (lambda: type("Nothing", (nn.Module,), {"forward": lambda self: 0})(), "takes no input"),
    "no forward": (nn.Module, "importers.module: Module: "),
    "an error": (lambda: Apply(lambda x: {}["missing"]), "KeyError: 'missing'"),
    "an attribute that is missing": (lambda: Apply(lambda x: x.nope), "AttributeError"),
    "an error with lines": (lambda: Apply(lambda x: exec("raise OSError('one\\ntwo')")), "OSError: one two"),
    "a decision": (lambda: Apply(lambda x: x if x.sum() > 0 else -x), "cannot trace"),
    "numpy": (lambda: Apply(lambda x: torch.from_numpy(x.detach().numpy())), "cannot trace"),
    "batch 2 asserted": (lambda: Apply(two), "on an input of shape [1, 1]"),
    "float16": (lambda: nn.Linear(1, 1).half(), "float32 and float64 are supported"),
    "complex": (
        lambda: Apply(lambda x: x.to(torch.complex64)),
        "a cast of what depends on the input to torch.complex64",
    ),
    "made in inference mode": (inferred, "was created in torch.inference_mode()"),
    "another input size": (lambda: nn.Linear(2, 1), "cannot trace"),
    "meta": (lambda: nn.Linear(1, 1, device="meta"), "its tensor 'weight' holds no numbers"),
    "lazy": (lambda: nn.LazyLinear(1), "its tensor 'weight' holds no numbers yet"),
    "TorchScript": (lambda: torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), "is TorchScript, which torch.export"),
    "sparse weights": (sparse, "its tensor 'weight' is torch.sparse_coo"),
}


def above(bound: float) -> Spec:
    """Y_0 >= bound is unsafe, on [-1, 1]."""
    row = LinearConstraint({0: Fraction(-1)}, {}, Fraction(bound))
    return Spec(1, 1, (Region(Box.exact([Fraction(-1)], [Fraction(1)]), ((row,),)),), (1,))


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_module_is_taken_for_what_it_computes(name: str) -> None:
    module = TAKEN[name]()
    assert zonocuda.verify(module, above(3.5)).verdict is Verdict.VERIFIED
    found = zonocuda.verify(module, above(2.5))
    assert found.verdict is Verdict.FALSIFIED
    assert found.counterexample is not None
    assert found.counterexample.y.item() == 2 * found.counterexample.x.item() + 1
    zonotope = Zonotope.from_ball(torch.zeros(2, 1), 1.0)
    bounds = zonocuda.compute_bounds(module, zonotope)
    assert bounds.lower.flatten().tolist() == pytest.approx([-1.0, -1.0])
    assert bounds.upper.flatten().tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_module_is_refused_by_every_entrance(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """By ``verify``, and by one of the others in turn: all read modules in one way."""
    build, expected = REFUSED[name]
    others: list[Callable[[], object]] = [
        lambda: zonocuda.from_module(build(), (1,)),
        lambda: zonocuda.compute_bounds(build(), Zonotope.from_ball(torch.zeros(2, 1), 1.0)),
        lambda: zonocuda.optimize_bounds(build(), Zonotope.from_ball(torch.zeros(2, 1), 1.0), torch.ones(1, 1)),
    ]
    for call in (lambda: zonocuda.verify(build(), above(3.5)), others[list(REFUSED).index(name) % 3]):
        assert expected in refused(call)
    assert "Traceback" not in capfd.readouterr().err


def test_an_exported_program_is_taken() -> None:
    program = torch.export.export(Apply(double), (torch.zeros(1, 1),))
    assert zonocuda.verify(program, above(3.5)).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("certificate", [False, True])
def test_any_number_of_nodes_in_a_row_is_verified(certificate: bool) -> None:
    """x + 1500 / 2 on [1, 2]: at most 752."""
    half = torch.tensor([0.5])
    nodes = [Node("x", Input(), (), (1,))]
    for i in range(1500):
        nodes.append(Node(f"n{i}", ScaleShift(None, half), (nodes[-1].name,), (1,)))
    row = LinearConstraint({0: Fraction(-1)}, {}, Fraction(753))
    problem = Spec(1, 1, (Region(Box.exact([Fraction(1)], [Fraction(2)]), ((row,),)),))
    long = Graph(tuple(nodes), "n1499")
    assert zonocuda.verify(long, problem, certificate=certificate, direction="dual").verdict is Verdict.VERIFIED
