"""Time, devices, settings of torch, and every kind of model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.cli import files
from tests.devices import missing_device
from tests.verifier.graphs import constraint, fc, random_box, spec
from tests.verifier.verdicts import DISTANCE, IDENTITY, NEVER, ONE, SOMETIMES, TENTH, ZERO, check, run
from zonocuda.bounds.deadline import Deadline
from zonocuda.importers import load_network
from zonocuda.prove.stages import Course
from zonocuda.verifier import Verdict, verification, verify
from zonocuda.verifier.model import Subject


def test_no_time_means_timeout() -> None:
    result = run(DISTANCE, [constraint({0: 1}, 0.1)], timeout=1e-9)
    check(result, Verdict.TIMEOUT)
    assert "not decided within 1e-09 s" in result.reason
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout must be a positive number"):
            run(DISTANCE, [constraint({0: 1}, 0.1)], timeout=seconds)


def test_time_that_runs_out_in_the_last_search_means_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("zonocuda.bounds.deadline.time.monotonic", lambda: clock[0])

    def out_of_time(*args: object, **options: object) -> None:
        clock[0] += 6

    monkeypatch.setattr(verification, "falsify", out_of_time)
    check(run(IDENTITY, TENTH, timeout=10, split="none"), Verdict.TIMEOUT)
    check(run(IDENTITY, [NEVER], timeout=10, split="none"), Verdict.VERIFIED)
    check(run(IDENTITY, TENTH, timeout=13, split="none"), Verdict.UNKNOWN)


def test_searches_for_counterexamples_leave_most_of_the_time_to_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, granted = [0.0], list[float]()
    monkeypatch.setattr("zonocuda.bounds.deadline.time.monotonic", lambda: clock[0])

    def endless(*args: Any, **options: object) -> None:
        granted.append(args[5].remaining())
        clock[0] += granted[-1]

    monkeypatch.setattr(verification, "falsify", endless)
    check(run(IDENTITY, TENTH, timeout=10, split="none"), Verdict.UNKNOWN)
    assert len(granted) == 2
    assert sum(granted) < 10 / 2


@pytest.mark.skipif(missing_device("cuda") is None, reason="CUDA is there")
def test_a_device_that_is_absent_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"device cuda: .*use the device cpu"):
        run(IDENTITY, [NEVER], device="cuda")


def test_a_dtype_without_proofs_is_an_error() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.int32):
        with pytest.raises(ValueError, match="dtype must be float32 or float64, or 'auto'"):
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


def test_progress_of_dual_passes_never_goes_back_nor_beyond_the_end() -> None:
    graph = fc(0, (4, 12, 12, 12, 3))
    lower, upper = random_box(graph, width=1.0)
    calls: list[tuple[str, int, int]] = []
    property_ = spec(lower[0], upper[0], [[constraint({0: 1}, 5.0)]], 3)
    verify(graph, property_, direction="dual", effort="fast", progress=lambda *c: calls.append(c))
    assert [c for c in calls if c[0] == "forward"] == [("forward", i, 8) for i in range(1, 8)]


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
        course = Course("auto", None, Deadline(30), silent)
        run = verification.Verification(judge, unsafe, course, cpu, (torch.float64,), 0, split="none")
        with torch.no_grad():
            assert run.decide()[0] is verdict
        assert (run.counterexample is None) == (verdict is Verdict.UNKNOWN)
