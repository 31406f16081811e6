"""Verdicts: what each needs, and what never leads to ``verified`` or ``falsified``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.cli import files
from tests.devices import missing_device, use_device
from tests.verifier.graphs import Builder, constraint, fc, region, spec
from zonocuda.graph import Graph, Input, Linear, Node, Relu, ScaleShift
from zonocuda.importers import load_network
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, VerifyResult, decide, verify
from zonocuda.verifier.deadline import Deadline
from zonocuda.verifier.model import Subject

INF = math.inf
ZERO, ONE = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)


def chain(*ops: object, size: int = 2) -> Graph:
    """The input, then one operator after the other."""
    b = Builder(size)
    for op in ops:
        b(op)  # type: ignore[arg-type]
    return b.graph()


def matrix(*rows: Sequence[float]) -> Linear:
    """A linear layer without bias."""
    return Linear(torch.tensor(rows, dtype=torch.float64))


IDENTITY = chain(matrix([1, 0], [0, 1]))
"""Y = X, on two features."""

DISTANCE = chain(matrix([1, -1], [-1, 1]), Relu(), matrix([1, 1], [1, -1]))
"""Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1."""


def run(
    model: Graph, *disjuncts: Sequence[LinearConstraint], box: tuple[Tensor, Tensor] = (ZERO, ONE), **options: object
):
    """``verify`` of one region over two outputs."""
    return verify(model, spec(*box, disjuncts, 2), **options)  # type: ignore[arg-type]


def check(result: VerifyResult, verdict: Verdict) -> None:
    """The verdict, and what every result of that verdict has."""
    assert result.verdict is verdict, result.reason
    assert result.reason
    assert "\n" not in result.reason
    assert (result.counterexample is not None) == (verdict is Verdict.FALSIFIED)
    assert result.seconds["total"] >= 0


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only proofs, and the dual's corners, decide."""
    monkeypatch.setattr(decide, "falsify", lambda *args, **options: None)


# ---- the table -------------------------------------------------------------------------------------------------------

NEVER = constraint({0: 1}, 1)  # Y_0 <= -1, on [0, 1]
ALWAYS = constraint({0: 1}, -2)  # Y_0 <= 2
SOMETIMES = constraint({0: 1}, -0.5)
TABLE: list[tuple[str, list[list[LinearConstraint]], Verdict]] = [
    ("one row, refuted", [[NEVER]], Verdict.VERIFIED),
    ("one row, always true", [[ALWAYS]], Verdict.FALSIFIED),
    ("one row, true somewhere", [[SOMETIMES]], Verdict.FALSIFIED),
    ("a conjunction, refuted by one row", [[ALWAYS, NEVER]], Verdict.VERIFIED),
    ("a conjunction, every row true somewhere", [[SOMETIMES, ALWAYS]], Verdict.FALSIFIED),
    ("disjuncts, one of them possible", [[NEVER], [SOMETIMES]], Verdict.FALSIFIED),
    ("disjuncts, all refuted", [[NEVER], [NEVER, ALWAYS]], Verdict.VERIFIED),
    ("an empty conjunction", [[]], Verdict.FALSIFIED),
    ("an empty conjunction beside a refuted one", [[NEVER], []], Verdict.FALSIFIED),
    ("an empty disjunction", [], Verdict.VERIFIED),
    ("a constant that is unsafe", [[constraint({}, -1)]], Verdict.FALSIFIED),
    ("a constant that is safe", [[constraint({}, 1)]], Verdict.VERIFIED),
    ("zero is unsafe for <=", [[constraint({}, 0)]], Verdict.FALSIFIED),
    ("zero is unsafe at the boundary", [[constraint({0: -1}, 1)]], Verdict.FALSIFIED),
]


@pytest.mark.parametrize(("disjuncts", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_verdicts(disjuncts: list[list[LinearConstraint]], verdict: Verdict, dtype: torch.dtype, backend: str) -> None:
    result = run(IDENTITY, *disjuncts, dtype=dtype, backend=backend)
    check(result, verdict)
    assert (result.ran.dtype, result.ran.backend) == (str(dtype).removeprefix("torch."), backend)


def test_a_conjunction_whose_rows_fail_alone_is_not_verified() -> None:
    """Y_0 <= 0.45 and -Y_0 <= -0.55: each has points, together they have none; no single row refutes it."""
    result = run(IDENTITY, [constraint({0: 1}, -0.45), constraint({0: -1}, 0.55)])
    check(result, Verdict.UNKNOWN)
    assert [row.lower for row in result.margins] == pytest.approx([-0.45, -0.45])


def test_a_strict_constraint_on_its_boundary_is_not_falsified() -> None:
    """Y_0 >= 1 touches [0, 1] in one point; Y_0 > 1 has none, but the bound is zero, not positive."""
    check(run(IDENTITY, [constraint({0: -1}, 1, strict=False)]), Verdict.FALSIFIED)
    check(run(IDENTITY, [constraint({0: -1}, 1, strict=True)]), Verdict.UNKNOWN)
    check(run(IDENTITY, [constraint({0: -1}, 1.001, strict=True)]), Verdict.VERIFIED)


def test_a_true_property_that_the_relaxation_cannot_prove_is_unknown() -> None:
    """Y_0 = relu(X_0) - relu(X_0) = 0 on [-1, 1], by two neurons: the slopes 1/2 give 1/2 - 1/2 - 1/2 = -1/2."""
    graph = chain(matrix([1, 0], [1, 0]), Relu(), matrix([1, -1], [0, 0]))
    result = run(graph, [constraint({0: 1}, 0.4)], box=(-ONE, ONE))
    check(result, Verdict.UNKNOWN)
    assert result.margin == pytest.approx(-0.1)
    assert "1 of 1 disjuncts not refuted; the worst bound is -0.1" in result.reason


def test_the_dual_proves_what_the_forward_sweep_leaves_open() -> None:
    """relu(X_0) on [-2, 1]: the slope 1/3 gives -2/3, the adaptive one, 0, gives 0."""
    result = run(chain(Relu()), [constraint({0: 1}, 0.1)], box=(-2 * ONE, ONE))
    check(result, Verdict.VERIFIED)
    (row,) = result.margins
    assert row.forward == pytest.approx(-2 / 3 + 0.1)
    assert row.dual == row.lower == pytest.approx(0.1)
    assert {"check", "falsify", "forward", "dual", "total"} == set(result.seconds)


# ---- boxes and regions -----------------------------------------------------------------------------------------------


def test_no_region_means_verified() -> None:
    result = verify(IDENTITY, Spec(2, 2, ()))
    check(result, Verdict.VERIFIED)
    assert "no unsafe region" in result.reason


@pytest.mark.parametrize("disjuncts", [[[ALWAYS]], [[]], []])
def test_an_empty_box_has_no_counterexample(disjuncts: list[list[LinearConstraint]]) -> None:
    result = run(IDENTITY, *disjuncts, box=(ONE, torch.tensor([2.0, 0.5])))
    check(result, Verdict.VERIFIED)
    assert "empty" in result.reason


@pytest.mark.parametrize(
    "box", [(-INF, 1.0), (0.0, INF), (math.nan, 1.0), (0.0, math.nan), (-INF, INF), (0.0, 1e39), (-1e308, 1e308)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.usefixtures("no_search")
def test_a_box_without_finite_bounds_is_never_decided_by_bounds(box: tuple[float, float], dtype: torch.dtype) -> None:
    low, high = (torch.tensor([b, 0.0], dtype=torch.float64) for b in box)
    low[1] = -1
    for row in (constraint({1: 1}, 5), constraint({0: 1}, 5), constraint({0: 1, 1: 1}, 5)):
        result = verify(IDENTITY, spec(low, high, [[row]], 2), dtype=dtype)
        finite = math.isfinite(box[0]) and math.isfinite(box[1])
        if not finite or (dtype == torch.float32 and abs(box[1]) > 3.5e38):
            check(result, Verdict.UNKNOWN)
        elif result.verdict is Verdict.VERIFIED:  # exact truth: the row's smallest value over the box is positive
            truth = sum(c * Fraction(min(low[i].item() * c, high[i].item() * c)) / c for i, c in row.outputs.items())
            assert truth + row.constant > 0


def test_every_region_must_be_safe() -> None:
    safe = region(ZERO, ONE, [[NEVER]])
    unsafe = region(ZERO, ONE, [[SOMETIMES]])
    open_ = region(ZERO, ONE, [[constraint({0: 1}, -0.45), constraint({0: -1}, 0.55)]])
    empty = region(ONE, ZERO, [[]])
    for regions, verdict in (
        ((safe, safe, empty), Verdict.VERIFIED),
        ((safe, open_), Verdict.UNKNOWN),
        ((open_, safe), Verdict.UNKNOWN),
        ((safe, open_, unsafe), Verdict.FALSIFIED),
        ((empty, unsafe), Verdict.FALSIFIED),
    ):
        result = verify(IDENTITY, Spec(2, 2, regions))
        check(result, verdict)
        if verdict is Verdict.UNKNOWN:
            assert result.reason.startswith(f"region {regions.index(open_)}: ")
        if result.counterexample is not None:
            assert result.counterexample.region == regions.index(unsafe)


def test_a_region_without_output_constraints_is_falsified_by_any_point() -> None:
    low = torch.tensor([0.1, 0.2], dtype=torch.float64)
    result = run(IDENTITY, [], box=(low, low))
    check(result, Verdict.FALSIFIED)
    assert result.counterexample is not None
    assert torch.equal(result.counterexample.x, low.float())


def test_a_region_without_output_constraints_and_without_float32_points_is_unknown() -> None:
    low, high = torch.tensor([1e39, 0.0], dtype=torch.float64), torch.tensor([2e39, 1.0], dtype=torch.float64)
    check(run(IDENTITY, [], box=(low, high)), Verdict.UNKNOWN)


# ---- numbers that are none, and numbers that overflow ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("value", [math.nan, INF, -INF])
@pytest.mark.usefixtures("no_search")
def test_a_weight_that_is_no_number_is_never_verified(value: float, backend: str, dtype: torch.dtype) -> None:
    for place in range(6):
        weights = [torch.randn(3, 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
        weights += [torch.randn(2, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)]
        if place < 4:
            weights[place].view(-1)[0] = value
        else:
            weights[place - 4].fill_(value)
        graph = chain(Linear(weights[0], weights[1]), Relu(), Linear(weights[2], weights[3]))
        for row in (constraint({0: 1}, 1e6), constraint({0: -1}, 1e6), constraint({1: 1, 0: 1}, 1e6)):
            result = run(graph, [row], dtype=dtype, backend=backend)
            assert result.verdict in (Verdict.UNKNOWN, Verdict.FALSIFIED)
            if result.counterexample is not None:  # one whose output is a number, as executed
                assert row.holds(result.counterexample.x.tolist(), result.counterexample.y.tolist())


def test_an_infinite_bound_is_no_proof() -> None:
    """10^39 Y_0 - 3 10^38 <= 0 is unsafe for Y_0 in [0.1, 0.2]; in float32 its coefficient is infinite."""
    graph = Graph((Node("x", Input(), (), (1,)),), "x")
    row = LinearConstraint({0: Fraction(10) ** 39}, {}, -3 * Fraction(10) ** 38)
    box = torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    check(verify(graph, spec(*box, [[row]], 1), dtype=torch.float32), Verdict.UNKNOWN)
    check(verify(graph, spec(*box, [[row]], 1)), Verdict.FALSIFIED)


def test_an_intermediate_bound_that_overflows_is_no_proof() -> None:
    """Y = relu(1.5e308 X - 1.79e308 - 1e307) is 0 on [1.2, 1.21], though 1.5e308 X overflows: -Y <= 0 is unsafe."""

    def shift(scale: float | None, by: float | None) -> ScaleShift:
        return ScaleShift(*(None if v is None else torch.tensor([v], dtype=torch.float64) for v in (scale, by)))

    graph = chain(shift(1.5e308, None), shift(None, -1.79e308), shift(None, -1e307), Relu(), size=1)
    box = torch.tensor([1.2], dtype=torch.float64), torch.tensor([1.21], dtype=torch.float64)
    row = LinearConstraint({0: -Fraction(1, 10**308)}, {}, Fraction(0))
    check(verify(graph, spec(*box, [[row]], 1)), Verdict.UNKNOWN)


def test_coefficients_beyond_float64_are_unknown() -> None:
    huge = LinearConstraint({0: Fraction(10) ** 400}, {}, Fraction(10) ** 400)
    check(run(IDENTITY, [huge]), Verdict.UNKNOWN)


# ---- time, devices, settings -----------------------------------------------------------------------------------------


def test_no_time_means_timeout() -> None:
    for seconds in (0.0, 1e-9):
        result = run(DISTANCE, [constraint({0: 1}, 0.1)], timeout=seconds)
        check(result, Verdict.TIMEOUT)
        assert "not decided within" in result.reason


def test_time_that_runs_out_in_the_last_search_means_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("zonocuda.verifier.deadline.time.monotonic", lambda: clock[0])

    def out_of_time(*args: object, **options: object) -> None:
        clock[0] += 6

    monkeypatch.setattr(decide, "falsify", out_of_time)
    open_ = [constraint({0: 1}, -0.45), constraint({0: -1}, 0.55)]
    check(run(IDENTITY, open_, timeout=10), Verdict.TIMEOUT)
    check(run(IDENTITY, [NEVER], timeout=10), Verdict.VERIFIED)
    check(run(IDENTITY, open_, timeout=13), Verdict.UNKNOWN)


@pytest.mark.skipif(missing_device("cuda") is None, reason="CUDA is there")
def test_a_device_that_is_absent_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"device cuda: .*use the device cpu"):
        run(IDENTITY, [NEVER], device="cuda")


@pytest.mark.gpu
def test_cuda_gives_the_verdicts_of_the_cpu() -> None:
    device = use_device("cuda")
    for _, disjuncts, verdict in TABLE:
        check(run(IDENTITY, *disjuncts, device=device), verdict)


def test_a_dtype_without_proofs_is_an_error() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.int32):
        with pytest.raises(ValueError, match="dtype must be float32 or float64"):
            run(IDENTITY, [NEVER], dtype=dtype)


def test_wrong_sizes_are_an_error() -> None:
    for inputs, outputs in ((3, 2), (2, 3), (2, 1)):
        box = torch.zeros(inputs), torch.ones(inputs)
        with pytest.raises(ValueError, match=f"{inputs} inputs and {outputs} outputs, the network 2 and 2"):
            verify(IDENTITY, spec(*box, [[constraint({0: 1})]], outputs))


def test_verdicts_do_not_depend_on_torchs_default_dtype() -> None:
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            check(run(IDENTITY, [NEVER]), Verdict.VERIFIED)
            check(run(IDENTITY, [SOMETIMES]), Verdict.FALSIFIED)
            check(run(DISTANCE, [constraint({0: 1}, 0.1)], dtype=torch.float32), Verdict.VERIFIED)
    finally:
        torch.set_default_dtype(before)


def test_verification_leaves_torchs_settings_alone() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        check(run(IDENTITY, [NEVER]), Verdict.VERIFIED)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.is_grad_enabled()
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_seed_decides_the_counterexample() -> None:
    results = [run(DISTANCE, [constraint({1: 1}, 0.99)], box=(-ONE, ONE), seed=s) for s in (1, 1, 2)]
    points = [r.counterexample.x for r in results if r.counterexample is not None]
    assert len(points) == 3
    assert torch.equal(points[0], points[1])


def test_progress_is_told_in_order() -> None:
    calls: list[tuple[str, int, int]] = []
    run(DISTANCE, [constraint({0: 1}, 0.1)], progress=lambda *c: calls.append(c))
    assert [c for c in calls if c[0] == "forward"] == [("forward", i, 4) for i in range(1, 4)]
    assert calls[0] == ("falsify", 0, 1)


# ---- models ----------------------------------------------------------------------------------------------------------


class Abs(nn.Module):
    """Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1, as DISTANCE."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, -1], [-1, 1]]))
            self.second.weight.copy_(torch.tensor([[1.0, 1], [1, -1]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("kind", ["graph", "module", "path", "string", "network"])
def test_every_kind_of_model_gives_the_same_verdicts(kind: str, tmp_path: Path) -> None:
    makers: dict[str, Callable[[], object]] = {
        "graph": lambda: DISTANCE,
        "module": Abs,
        "path": lambda: files.fc_model(tmp_path / "net.onnx", *files.DISTANCE),
        "string": lambda: str(files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)),
        "network": lambda: load_network(files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)),
    }
    model = makers[kind]()
    shape = (2,) if kind == "module" else None
    margins = []
    for rows, verdict in (
        ([constraint({0: 1}, 0.1)], Verdict.VERIFIED),
        ([constraint({0: 1}, -0.1)], Verdict.FALSIFIED),
    ):
        result = verify(model, spec(-ONE, ONE, [rows], 2), input_shape=shape)  # type: ignore[arg-type]
        check(result, verdict)
        margins.append(result.margin)
        assert result.ran.replay == {"graph": "graph", "module": "module"}.get(kind, "onnxruntime")
    assert margins[0] == pytest.approx(0.1)


def test_a_module_needs_its_input_shape() -> None:
    with pytest.raises(ValueError, match=r"pass input_shape=\(\.\.\.\)"):
        verify(Abs(), spec(ZERO, ONE, [[NEVER]], 2))


def test_what_a_module_does_not_confirm_when_it_runs_is_not_falsified() -> None:
    """Every point of the graph is unsafe, but the module, as executed, answers otherwise."""
    subject = Subject.of(Abs(), (2,))
    lying = dataclasses.replace(subject, execute=lambda x: torch.full((len(x), 2), 1e6))
    unsafe = spec(-ONE, ONE, [[constraint({0: 1}, -1e5)]], 2)
    cpu, silent = torch.device("cpu"), lambda phase, done, total: None
    for judge, verdict in ((subject, Verdict.FALSIFIED), (lying, Verdict.UNKNOWN)):
        run = decide._Run(judge, unsafe, Deadline(30), cpu, torch.float64, "envelope", 0, silent)
        with torch.no_grad():
            assert run.decide()[0] is verdict
        assert (run.counterexample is None) == (verdict is Verdict.UNKNOWN)


# ---- the result ------------------------------------------------------------------------------------------------------


def test_a_result_tells_what_it_rests_on() -> None:
    rows = [[constraint({0: 1}, 0.125)], [constraint({0: 1}, 5)], [constraint({0: 1}, 0.125)]]
    result = run(DISTANCE, *rows)
    check(result, Verdict.VERIFIED)
    assert [(row.region, row.constraint) for row in result.margins] == [(0, "Y_0 + 1/8 <= 0"), (0, "Y_0 + 5 <= 0")]
    assert result.margin == min(row.lower for row in result.margins if row.lower is not None)
    (layer,) = result.layers
    assert (layer.neurons, layer.dead, layer.active, layer.unstable) == (2, 0, 0, 2)
    assert layer.symbols == {"dense": 2}
    assert layer.mean_width == pytest.approx(2.0)
    ran = result.ran
    assert (ran.dtype, ran.device, ran.backend, ran.replay) == ("float64", "cpu", "native", "graph")
    assert set(ran.versions) == {"zonocuda", "torch"}
    assert str(result.verdict) == "verified"
    assert sum(s for name, s in result.seconds.items() if name != "total") <= result.seconds["total"]


def test_a_counterexample_holds_exactly_and_lies_in_the_float32_box() -> None:
    graph = fc(0, (2, 8, 2))
    low, high = torch.tensor([0.1, -0.3], dtype=torch.float64), torch.tensor([0.7, 0.4], dtype=torch.float64)
    middle = graph(((low + high) / 2).unsqueeze(0))[0, 0].item()
    row = constraint({0: 1}, -middle)
    result = run(graph, [row], box=(low, high))
    check(result, Verdict.FALSIFIED)
    found = result.counterexample
    assert found is not None
    assert row.holds(found.x.tolist(), found.y.tolist())
    assert (found.x >= low.float()).all()
    assert (found.x <= high.float()).all()
    assert torch.equal(graph.to(torch.float32)(found.x.unsqueeze(0))[0], found.y)


def test_a_property_of_one_float32_point_is_decided_there() -> None:
    x = torch.tensor([0.1, 0.7])
    box = Box(x.double() - 1e-12, x.double() + 1e-12, x, x)
    for slack, verdict in ((1e-6, Verdict.FALSIFIED), (-1e-6, Verdict.VERIFIED)):
        row = LinearConstraint({0: Fraction(1)}, {}, -Fraction(x[0].item()) - Fraction(slack))
        check(verify(IDENTITY, Spec(2, 2, (Region(box, ((row,),)),))), verdict)
