"""Executed values of functions whose error is stated: bounds, certificates, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.check.test_execution import exceeded
from tests.relaxations.functions import CASES, Case, as_fraction, exact_value
from tests.soundness.executions import ULP
from tests.soundness.test_executed import count
from tests.verifier.graphs import Builder
from zonocuda.checker import CertificateError, check
from zonocuda.checker.execution import Assumption
from zonocuda.checkpoint import CheckpointError
from zonocuda.cli.main import main
from zonocuda.fleet.settings import Settings
from zonocuda.functions import FunctionName, parse_ulp, resolve_ulp, ulp_text
from zonocuda.graph import Assumed, Elementary, Graph, Relu
from zonocuda.importers import UnsupportedNetworkError, from_module
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, verify
from zonocuda.verifier.assumed import assuming

NAMES: tuple[FunctionName, ...] = ("tanh", "exp", "sqrt", "sigmoid")
EACH = dict.fromkeys(NAMES, float(ULP))
SEMANTICS = {"float32": torch.float32, "float64": torch.float64}


def smooth(seed: int) -> Graph:
    """A chain with every function, and ReLUs."""
    b = Builder(4, seed=seed)
    b(Elementary("tanh", whole=True), b(b.linear(4, 4)))
    b(Elementary("exp", whole=True), b(b.linear(4, 3)))
    b(Elementary("sqrt", whole=True))
    b(Relu(), b(b.linear(3, 3)))
    b(Elementary("sigmoid", whole=True), b(b.linear(3, 3)))
    b(Relu(), b(b.linear(3, 2)))
    return b.graph()


def stating(seed: int, ulp: float, dtype: torch.dtype) -> Graph:
    return assuming(smooth(seed), dict.fromkeys(NAMES, ulp), dtype)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_no_machine_within_the_stated_error_exceeds_a_bound(semantics: str) -> None:
    """Of functions whose values are those of balls, as far off as stated; where less is stated, some bounds are."""
    dtype = SEMANTICS[semantics]
    for ulp, seeds in ((float(ULP), range(3)), (0.0, range(1))):
        _, wrong = count(partial(stating, ulp=ulp, dtype=dtype), seeds, dtype, torch.float64)
        assert bool(wrong) != bool(ulp), wrong[:3]
        of_check = sum(exceeded(smooth(seed), seed, dtype, True, dict.fromkeys(NAMES, ulp)) for seed in seeds)
        assert bool(of_check) != bool(ulp)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_numbers_that_are_flushed_are_counted(case: Case, semantics: str) -> None:
    """f(0) for f(x) of a subnormal x, and 0 for a subnormal result; where f(0) is no number nothing is claimed."""
    dtype = SEMANTICS[semantics]
    info, ulp = torch.finfo(dtype), 3.0
    u, eta = Fraction(info.eps) / 2, Fraction(info.tiny)
    op = Assumed(dtype, function=case.function, parameter=case.parameter, ulp=ulp)
    assumption = Assumption.of(case.op, ulp, float(u), float(eta))
    for share in (Fraction(-1023, 1024), Fraction(-1, 2**20), Fraction(1, 2**20), Fraction(1023, 1024)):
        x = share * eta
        if not case.least < float(x) < case.most:
            continue
        value, zero = exact_value(case.op, x), exact_value(case.op, Fraction(0))
        size = float(abs(value)) * (1 + 2.0**-40)
        claims = float(op.error(torch.tensor(size, dtype=torch.float64))), assumption.departure([size])[0]
        if not zero.is_finite():
            assert claims == (math.inf, math.inf)
            continue
        needed = abs(as_fraction(value) - as_fraction(zero)) + Fraction(ulp) * 2 * u * abs(as_fraction(value)) + eta
        assert min(map(Fraction, claims)) >= needed
        assert max(claims) < 10 * float(needed) + 2 * float(eta) ** 0.5 * (case.function == "sqrt")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 2)).eval()


def property_of(model: nn.Module, width: float, below: float) -> Spec:
    """Y_0 is at least what it is in the middle, less ``below``."""
    x = torch.tensor([0.5, -0.25, 0.75])
    with torch.no_grad():
        least = float(model(x[None])[0, 0]) - below
    return Spec.linear((x - width).tolist(), (x + width).tolist(), [[-1, 0]], [-least])


SAYS = "assuming, as stated and not proven, that it computes sigmoid within 3 ulp, tanh within 2 ulp of the exact value"
STATED = {"sigmoid": 3, "tanh": 2, "exp": 9}


def test_a_proof_says_what_it_assumes_and_so_does_its_check(model: nn.Module, tmp_path: Path) -> None:
    graph, file = from_module(model, (3,)), tmp_path / "c.zip"
    margin = verify(graph, property_of(model, 0.02, 0.05), semantics="float32", ulp=STATED, effort="fast").margin
    assert margin is not None
    property_ = property_of(model, 0.02, 0.05 - margin + 1e-4)
    result = verify(graph, property_, semantics="float32", ulp=STATED, certificate=True, effort="fast")
    assert result.verdict is Verdict.VERIFIED
    assert result.meaning.endswith(SAYS)
    assert result.to_json()["ran"]["ulp"] == {"sigmoid": 3.0, "tanh": 2.0}  # type: ignore[index]
    own = result.certificate
    assert own is not None
    assert not own.reason
    found = check(result, graph, property_)
    assert found.confirmed, found
    assert found.details[0].endswith(SAYS)
    replace(own, ulp={"sigmoid": 3.0, "tanh": 65000.0}).save(file)
    assert not check(file, graph, property_).confirmed
    for ulp, message in (
        ({"tanh": 2.0}, "nothing is known of op sigmoid"),
        ({"tanh": -1.0}, r"ran\.ulp: the units of"),
        ({**STATED, "tanh": 0.25}, r"ran\.ulp: the units of tanh must be from 0\.5"),
    ):
        replace(own, ulp=ulp).save(file)
        with pytest.raises(CertificateError, match=message):
            check(file, graph, property_)
    replace(own, semantics="real").save(file)
    with pytest.raises(CertificateError, match=r"ran\.ulp is about executed functions"):
        check(file, graph, property_)


def test_a_proof_by_splitting_the_box_is_confirmed(model: nn.Module) -> None:
    graph, property_ = from_module(model, (3,)), property_of(model, 0.6, 10.0)
    margin = verify(graph, property_, semantics="float32", ulp=STATED, effort="fast").margin
    assert margin is not None
    center = torch.tensor([0.5, -0.25, 0.75])
    with torch.no_grad():
        far = model(center + 0.6 * (2 * torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) - 1))[:, 0]
        least = float(model(center[None])[0, 0] - far.min())
    property_ = property_of(model, 0.6, 0.7 * (10 - margin) + 0.3 * least)
    result = verify(graph, property_, semantics="float32", ulp=STATED, split="input", certificate=True, timeout=60)
    assert result.verdict is Verdict.VERIFIED
    assert result.splits
    for exact in (False, True):
        assert check(result, graph, property_, exact=exact).confirmed


def test_what_is_not_stated_or_cannot_be_is_refused(model: nn.Module, tmp_path: Path) -> None:
    graph, property_ = from_module(model, (3,)), property_of(model, 0.02, 0.05)
    with pytest.raises(UnsupportedNetworkError, match=r"node 'sigmoid' .*; state it: --ulp sigmoid=K"):
        verify(graph, property_, semantics="float32", ulp={"tanh": 2})
    gated = from_module(nn.Sequential(nn.Linear(3, 2), nn.SELU()).eval(), (3,))
    with pytest.raises(UnsupportedNetworkError, match="a part of what the network computes with other operators"):
        verify(gated, property_, semantics="float32", ulp={"elu": 2})
    with pytest.raises(ValueError, match="ulp: states something of executed functions"):
        verify(graph, property_, ulp={"tanh": 2})
    kept = tmp_path / "kept"
    verify(graph, property_, semantics="float32", ulp=STATED, checkpoint=kept)
    with pytest.raises(CheckpointError, match="assumed errors of functions"):
        verify(graph, property_, semantics="float32", ulp={**STATED, "tanh": 1}, checkpoint=kept, resume=True)


@pytest.mark.parametrize(
    "text", ["exp", "exp=", "exp=x", "=2", "exp=1,exp=2", "exp=-1", "exp=nan", "exp=inf", "sn=1", "exp=0", "exp=0.49"]
)
def test_a_malformed_statement_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="ulp: "):
        parse_ulp(text)
    with pytest.raises(SystemExit) as leaving:
        main(["verify", "net.onnx", "spec.vnnlib", "--semantics", "float32", "--ulp", text])
    assert leaving.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_statements_go_through_texts_and_settings() -> None:
    assert parse_ulp(" tanh=3, exp=0.5") == {"exp": 0.5, "tanh": 3.0}
    assert parse_ulp(ulp_text(resolve_ulp(STATED))) == resolve_ulp(STATED)
    assert Settings.of({"ulp": {"tanh": 3, "exp": 2}}).ulp == Settings.of({"ulp": "exp=2.0,tanh=3.0"}).ulp
    for wrong in (None, [("exp", 2)], {"exp": "2"}, {"exp": True}):
        with pytest.raises(TypeError, match="ulp"):
            resolve_ulp(wrong)
    with pytest.raises(ValueError, match=r"from 0\.5, .* to 65536, got 1000"):
        resolve_ulp({"exp": 10**400})
