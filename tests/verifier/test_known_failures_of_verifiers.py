"""Kinds of failures that users of neural network verifiers reported in public, replayed on small inputs of our own.

Each case is one kind: a wrong verdict, a spurious counterexample, or a crash on something valid; with the value that is
right, which is read off the network by hand. The kinds are those of the trackers of alpha-beta-CROWN, auto_LiRPA, DNNV,
ERAN, Marabou and NeuralSAT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import zonocuda
from tests.cli import files
from tests.importers.modules import Apply
from zonocuda.domains import Zonotope
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict

Nodes = Sequence[tuple[str, Sequence[str], str] | tuple[str, Sequence[str], str, dict[str, Any]]]
Case = tuple[Nodes, dict[str, Any], Sequence[int], Sequence[int], Sequence[str], Literal["verified", "falsified"]]
INT = {"shape", "axes", "starts", "ends", "index"}
"""Initializers of these names hold integers."""

ABS: Nodes = [
    ("Gemm", ["x", "w", ""], "h", {"transB": 1}),
    ("Relu", ["h"], "r"),
    ("Gemm", ["r", "v"], "y", {"transB": 1}),
]
"""|x| of one number."""
ABS_WEIGHTS = {"w": [[1.0], [-1.0]], "v": [[1.0, 1.0]]}
SPLIT = [("Gemm", ["x", "w"], "h", {"transB": 1}), ("Relu", ["h"], "r"), ("Gemm", ["r", "v", "b"], "y", {"transB": 1})]
PAIR = {"w": [[1.0, 0.0], [0.0, 1.0]], "v": [[1.0, 0.0], [0.0, 1.0]], "b": [0.0, 0.0]}
"""The positive parts of two numbers."""

BOX_1 = ["(>= X_0 -1.0)", "(<= X_0 1.0)"]
BOX_2 = [*BOX_1, "(>= X_1 -1.0)", "(<= X_1 1.0)"]
BOX_4 = [f"({sign} X_{i} {b})" for i in range(4) for sign, b in ((">=", "-1.0"), ("<=", "1.0"))]


def case(
    nodes: Nodes, weights: dict[str, Any], shape: Sequence[int], out: Sequence[int], *asserts: str, is_safe: bool
) -> Case:
    return nodes, weights, shape, out, asserts, "verified" if is_safe else "falsified"


def one(*asserts: str, is_safe: bool) -> Case:
    return case(ABS, ABS_WEIGHTS, [1, 1], [1, 1], *asserts, is_safe=is_safe)


def two(*asserts: str, is_safe: bool) -> Case:
    return case(SPLIT, PAIR, [1, 2], [1, 2], *asserts, is_safe=is_safe)  # type: ignore[arg-type]


def moved(nodes: Nodes, weights: dict[str, Any], *asserts: str, is_safe: bool, shape: Sequence[int] = (1, 4)) -> Case:
    """Something between four inputs and their sum of positive parts; ``t`` is what it computes of ``x``."""
    after: Nodes = [*nodes, ("Reshape", ["t", "shape"], "f"), ("Relu", ["f"], "r"), ("ReduceSum", ["r"], "y")]
    last = [*after[:-1], ("MatMul", ["r", "ones"], "y")]
    given = {"shape": [1, -1], "ones": [[1.0]] * 4, **weights}
    return case(last, given, shape, [1, 1], *BOX_4, *asserts, is_safe=is_safe)


CASES: dict[str, Case] = {
    # ---- constant inputs, missing, trivial and attained constraints ----
    "inputs that are constants, and no constraint of outputs": one("(= X_0 0.5)", is_safe=False),
    "inputs that are constants": one("(= X_0 0.5)", "(>= Y_0 0.5000001)", is_safe=True),
    "no input can be meant": one("(>= X_0 1.0)", "(<= X_0 -1.0)", is_safe=True),
    "every output violates one of two constraints": one(*BOX_1, "(or (<= Y_0 0.5) (>= Y_0 0.5))", is_safe=False),
    "no output satisfies both of two constraints": one(*BOX_1, "(<= Y_0 0.4)", "(>= Y_0 0.6)", is_safe=True),
    "a bound that is attained inside of the box": one(*BOX_1, "(<= Y_0 0.0)", is_safe=False),
    "a bound that is attained, and strict": one(*BOX_1, "(< Y_0 0.0)", is_safe=True),
    "a bound that is attained at a corner": one(*BOX_1, "(>= Y_0 1.0)", is_safe=False),
    "a bound just beyond the corner": one(*BOX_1, "(>= Y_0 1.000001)", is_safe=True),
    "a threshold that only one piece of the network reaches": one(*BOX_1, "(<= Y_0 0.0001)", is_safe=False),
    "an equation between outputs": two(*BOX_2, "(= Y_0 Y_1)", is_safe=False),
    "an equation that no point solves": two(*BOX_2, "(= Y_0 -0.5)", is_safe=True),
    # ---- forms of properties ----
    "conjunctions of several constraints in a disjunction": two(
        *BOX_2, "(or (and (>= Y_0 0.9) (>= Y_1 0.9)) (and (>= Y_0 2.0) (<= Y_1 0.1)))", is_safe=False
    ),
    "conjunctions none of which can hold": two(
        *BOX_2, "(or (and (>= Y_0 0.9) (>= Y_0 1.1)) (and (>= Y_0 2.0) (<= Y_1 0.1)))", is_safe=True
    ),
    "every output within two limits": two(
        *BOX_2, "(or (>= Y_0 1.1) (<= Y_0 -1.0) (>= Y_1 1.1) (<= Y_1 -1.0))", is_safe=True
    ),
    "inputs and outputs in one constraint": two(*BOX_2, "(>= X_0 (+ Y_0 0.1))", is_safe=True),
    "inputs and outputs in one constraint that holds": two(*BOX_2, "(>= Y_0 (+ X_0 0.9))", is_safe=False),
    "boxes in a disjunction": two(
        "(or (and (>= X_0 -1) (<= X_0 0) (>= X_1 -1) (<= X_1 0)) (and (>= X_0 0) (<= X_0 1) (>= X_1 -1) (<= X_1 0)))",
        "(>= Y_1 0.1)",
        is_safe=True,
    ),
    "an output that no constraint names": two(*BOX_2, "(>= Y_1 1.5)", is_safe=True),
    "bounds in scientific notation and without a fraction": two(
        "(>= X_0 -1e-1)", "(<= X_0 1E-1)", "(>= X_1 0)", "(<= X_1 0)", "(>= Y_0 1.0000001e-1)", is_safe=True
    ),
    "some inputs fixed, others not": two(*BOX_1, "(= X_1 0.25)", "(>= Y_1 0.26)", is_safe=True),
    # ---- outputs of one sign, stable and dead neurons ----
    "a ReLU with a minus behind it is zero somewhere": case(
        [("Relu", ["x"], "r"), ("Neg", ["r"], "y")], {}, [1, 1], [1, 1], *BOX_1, "(>= Y_0 0.0)", is_safe=False
    ),
    "no neuron is unstable": one("(>= X_0 0.5)", "(<= X_0 1.0)", "(<= Y_0 0.49)", is_safe=True),
    "every neuron is dead": two(
        "(>= X_0 -1)", "(<= X_0 -0.5)", "(>= X_1 -1)", "(<= X_1 0)", "(>= Y_0 0.001)", is_safe=True
    ),
    "a neuron whose bound is exactly zero": one("(>= X_0 0.0)", "(<= X_0 1.0)", "(< Y_0 0.0)", is_safe=True),
    # ---- operators that were read wrongly ----
    "a factor for each feature": moved(
        [("Mul", ["x", "c"], "t")], {"c": [[1.0, 2.0, 3.0, 4.0]]}, "(>= Y_0 9.999)", is_safe=False
    ),
    "a constant as the first operand": moved(
        [("Sub", ["c", "x"], "t")], {"c": [[1.0, 1.0, 1.0, 1.0]]}, "(>= Y_0 7.999)", is_safe=False
    ),
    "a constant without the batch": moved([("Add", ["c", "x"], "t")], {"c": [1.0] * 4}, "(>= Y_0 8.001)", is_safe=True),
    "a quotient by a constant": moved([("Div", ["x", "c"], "t")], {"c": [0.5]}, "(>= Y_0 8.001)", is_safe=True),
    "a factor of Gemm": moved(
        [("Gemm", ["x", "c", "b"], "t", {"alpha": 2.0, "beta": 0.5})],
        {"c": np.eye(4), "b": [2.0, 0.0, 0.0, 0.0]},
        "(>= Y_0 8.999)",
        is_safe=False,
    ),
    "weights that are not transposed": moved(
        [("Gemm", ["x", "c"], "t", {"transB": 0})],
        {"c": np.triu(np.ones((4, 4)))},
        "(>= Y_0 10.001)",
        is_safe=True,
    ),
    "a value that is used twice": moved([("Sub", ["x", "x"], "t")], {}, "(>= Y_0 1e-6)", is_safe=True),
    "a value that is added to itself": moved([("Add", ["x", "x"], "t")], {}, "(>= Y_0 7.999)", is_safe=False),
    "reshapes with 0 and -1": moved(
        [("Reshape", ["x", "shape0"], "t")], {"shape0": [0, -1, 2]}, "(>= Y_0 4.001)", is_safe=True
    ),
    "channels that come last": moved(
        [("Transpose", ["x"], "t", {"perm": [0, 3, 1, 2]})], {}, "(>= Y_0 4.001)", is_safe=True, shape=(1, 2, 1, 2)
    ),
    "an axis that is squeezed": moved(
        [("Squeeze", ["x", "axes"], "t")], {"axes": [1]}, "(>= Y_0 3.999)", is_safe=False, shape=(1, 1, 4)
    ),
    "a slice that counts from the end": moved(
        [("Slice", ["x", "starts", "ends", "axes"], "s"), ("Concat", ["s", "s"], "t", {"axis": 1})],
        {"starts": [-2], "ends": [2**31], "axes": [-1]},
        "(>= Y_0 3.999)",
        is_safe=False,
    ),
    "a normalisation of the batch in front": moved(
        [("BatchNormalization", ["x", "g", "b", "m", "s"], "t", {"epsilon": 0.0})],
        {"g": [2.0] * 4, "b": [1.0] * 4, "m": [0.5] * 4, "s": [4.0] * 4},
        "(>= Y_0 6.001)",
        is_safe=True,
    ),
    "an average pooling": moved(
        [("AveragePool", ["x"], "p", {"kernel_shape": [1, 2]}), ("Concat", ["p", "p"], "t", {"axis": 3})],
        {},
        "(>= Y_0 4.001)",
        is_safe=True,
        shape=(1, 1, 2, 2),
    ),
    "padding on one side": moved(
        [("Conv", ["x", "c"], "t", {"pads": [0, 1, 0, 0]})],
        {"c": [[[[1.0, 10.0]]]]},
        "(>= Y_0 43.001)",
        is_safe=True,
        shape=(1, 1, 1, 4),
    ),
}


def written(built: Case, folder: Path) -> tuple[Path, Path]:
    nodes, weights, shape, out, asserts, _ = built
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("y", out))]
    constants = [
        numpy_helper.from_array(np.array(v, np.int64 if k.rstrip("0") in INT else np.float32), k)
        for k, v in weights.items()
    ]
    parts = [
        helper.make_node(kind, list(inputs), [output], **(rest[0] if rest else {}))
        for kind, inputs, output, *rest in nodes
    ]
    graph = helper.make_graph(parts, "g", ends[:1], ends[1:], constants)
    net = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), net)
    declared = [f"(declare-const X_{i} Real)" for i in range(int(np.prod(shape)))]
    declared += [f"(declare-const Y_{i} Real)" for i in range(int(np.prod(out)))]
    spec = folder / "spec.vnnlib"
    spec.write_text("\n".join([*declared, *(f"(assert {text})" for text in asserts)]))
    return net, spec


@pytest.mark.parametrize("name", CASES)
def test_a_case_that_failed_elsewhere_has_the_right_verdict(name: str, tmp_path: Path) -> None:
    net, spec = written(CASES[name], tmp_path)
    result = zonocuda.verify(net, spec, timeout=60)
    assert str(result.verdict) == CASES[name][-1], result.reason
    found = result.counterexample
    if found is None:
        return
    # The point and the outputs that are told belong together, lie in the box, and violate the property.
    region = zonocuda.load_vnnlib(spec).regions[found.region]
    x = found.x.flatten()
    assert bool(((x >= region.box.float32_lower) & (x <= region.box.float32_upper)).all())
    session = onnxruntime.InferenceSession(net, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": found.x.numpy().reshape(CASES[name][2])})
    assert found.y.flatten().tolist() == y.flatten().tolist()
    assert region.is_unsafe(x.tolist(), y.flatten().tolist())


# ---- what is no verdict ----------------------------------------------------------------------------------------------


def test_an_error_is_never_a_verdict(tmp_path: Path) -> None:
    """A file that cannot be read, or an operator that is not known, is no ``unsat``."""
    net, spec = written(one(*BOX_1, "(>= Y_0 2.0)", is_safe=True), tmp_path)
    (tmp_path / "torn.onnx").write_bytes(net.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"torn\.onnx"):
        zonocuda.verify(tmp_path / "torn.onnx", spec)
    odd, _ = written(case([("Sinh", ["x"], "y")], {}, [1, 1], [1, 1], *BOX_1, is_safe=True), tmp_path)
    with pytest.raises(ValueError, match="op Sinh"):
        zonocuda.verify(odd, spec)


def test_a_timeout_is_no_proof(tmp_path: Path) -> None:
    net, spec = written(one(*BOX_1, "(>= Y_0 1.000001)", is_safe=True), tmp_path)
    result = zonocuda.verify(net, spec, timeout=1e-9)
    assert result.verdict is Verdict.TIMEOUT
    assert not result.verified


def test_a_bound_that_is_attained_from_above_is_no_counterexample(tmp_path: Path) -> None:
    """-relu(x) > 0 never holds, and -relu(x) = 0 does: no rounded bound separates the two, and no point may."""
    nodes: Nodes = [("Relu", ["x"], "r"), ("Neg", ["r"], "y")]
    net, spec = written(case(nodes, {}, [1, 1], [1, 1], *BOX_1, "(> Y_0 0.0)", is_safe=True), tmp_path)
    assert zonocuda.verify(net, spec, timeout=1).verdict is not Verdict.FALSIFIED


def test_an_input_without_a_batch_is_the_same_network(tmp_path: Path) -> None:
    nodes: Nodes = [("MatMul", ["x", "c"], "h"), ("Relu", ["h"], "y")]
    weights = {"c": [[1.0, 0.0], [0.0, 1.0]]}
    for bound, is_safe in (("1.001", True), ("0.999", False)):
        built = case(nodes, weights, [2], [2], *BOX_2, f"(>= Y_0 {bound})", is_safe=is_safe)
        assert str(zonocuda.verify(*written(built, tmp_path)).verdict) == built[-1]


def test_norms_other_than_the_supported_one_are_refused_and_never_taken_for_it() -> None:
    with pytest.raises(ValueError, match="norm 2 is not supported"):
        Spec.robust(torch.zeros(2), 0.1, 0, outputs=2, norm=2)


# ---- modules ---------------------------------------------------------------------------------------------------------


def bounds(module: nn.Module, lower: Sequence[float], upper: Sequence[float]) -> tuple[list[float], list[float]]:
    box = Zonotope.from_box(torch.tensor([lower]).float(), torch.tensor([upper]).float())
    found = zonocuda.compute_bounds(module.double(), Zonotope.from_box(*(b.double() for b in box.bounds())))
    return found.lower.flatten().tolist(), found.upper.flatten().tolist()


def test_repeated_features_are_the_same_variables() -> None:
    """(x, x) through (1, -1) is 0, whatever x is, and through (1, 1) twice x."""

    def repeated(x: Tensor) -> Tensor:
        return torch.cat([x, x], 1) @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=x.dtype)

    lower, upper = bounds(Apply(repeated), [-1.0], [1.0])
    assert (lower, upper) == (pytest.approx([0, -2], abs=1e-6), pytest.approx([0, 2], abs=1e-6))


def test_the_bound_of_a_difference_is_no_wider_than_the_difference_of_bounds() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    lower, upper = bounds(body, [-1, -1], [1, 1])
    difference = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        difference.weight.copy_(torch.tensor([[1.0, -1.0]]))
    low, high = bounds(nn.Sequential(body, difference), [-1, -1], [1, 1])
    assert lower[0] - upper[1] <= low[0] + 1e-9
    assert high[0] <= upper[0] - lower[1] + 1e-9


def test_every_input_of_a_batch_has_its_own_radius() -> None:
    module = nn.Identity()
    found = zonocuda.compute_bounds(
        nn.Sequential(module), Zonotope.from_ball(torch.zeros(3, 2), torch.tensor([[0.1], [0.2], [0.4]]))
    )
    assert found.upper[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.4], abs=1e-6)
    assert (found.lower < found.upper).all()


def test_only_the_inputs_that_vary_widen_the_bounds() -> None:
    lower, upper = bounds(nn.Identity(), [0.5, -1.0], [0.5, 1.0])
    assert (lower, upper) == (pytest.approx([0.5, -1.0]), pytest.approx([0.5, 1.0]))


def test_bounds_of_a_product_of_two_inputs_hold_all_its_corners() -> None:
    """x y on [-1, 2] x [-3, 1] has all values in [-6, 3]; a product of radii alone would miss some."""
    lower, upper = bounds(Apply(lambda x: x[:, :1] * x[:, 1:]), [-1.0, -3.0], [2.0, 1.0])
    assert -9 < lower[0] <= -6
    assert 3 <= upper[0] < 9


def test_a_module_in_training_mode_is_not_taken_for_one_in_evaluation() -> None:
    """Dropout that drops, and statistics of the batch, are refused; in evaluation both are affine maps."""
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="train"):
        zonocuda.from_module(module, (2,))
    assert zonocuda.from_module(module.eval(), (2,)).output_shape == (2,)


def test_normalisation_inside_the_module_is_part_of_the_network() -> None:
    """(x - 0.5) / 0.25 on [0, 1] is [-2, 2]: the radius is that of the raw input."""
    lower, upper = bounds(Apply(lambda x: (x - 0.5) / 0.25), [0.0], [1.0])
    assert (lower, upper) == (pytest.approx([-2.0]), pytest.approx([2.0]))


def test_the_examples_are_files_that_the_command_line_reads(tmp_path: Path) -> None:
    """The helper writes what others write: the command line, too, finds the verdict."""
    from zonocuda.cli.main import main

    net = files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    spec = files.save_spec(tmp_path / "s.vnnlib", [-1, -1], [1, 1], 2, "(>= Y_0 3.0)")
    assert main(["verify", str(net), str(spec), "-q"]) == 0
