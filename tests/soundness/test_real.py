"""Real networks whose truth is known: counterexamples that others found, and robustness cases of a course."""

from __future__ import annotations

import csv
import os
import re
import time
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import networks
from tests.data import data_root
from tests.thorough import THOROUGH, few
from zonocuda.graph import Graph
from zonocuda.importers import Network, from_module, load_network
from zonocuda.specs import LinearConstraint, Region, Spec, load_vnnlib
from zonocuda.verifier import Verdict, verification, verify
from zonocuda.verifier.falsify import Counterexample, replay
from zonocuda.verifier.model import Subject

pytestmark = [pytest.mark.data, pytest.mark.slow]

SAT = {
    "acasxu": 47,
    "collins_rul_cnn": 45,
    "marabou_cifar10_small_medium": 33,
    "mnist_fc": 18,
    "oval21_base_wide": 1,
    "reach_prob_density": 14,
    "sri_resnet_a": 12,
}
"""Instances with a stored counterexample, as the data's manifest counts them (cifar10_resnet_4b has none)."""

FLOAT32_ONLY = ("acasxu", "collins_rul_cnn")
"""Sets whose counterexamples were checked in float32 only."""

STANDARD = 2
"""Instances of each set on which the prover makes its usual effort; on the others, for time, the first passes alone."""

IN_FLOAT64 = ("acasxu", "reach_prob_density", "mnist_fc")
"""Sets that are small enough to be bounded in float64 here; the others are, in float32."""

DEEP = ("marabou_cifar10_small_medium", "oval21_base_wide", "sri_resnet_a")
"""Sets whose networks take long in float64."""

EXHAUSTIVE = os.environ.get("ZONOCUDA_EXHAUSTIVE") == "1"

UNSAT = ("cifar10_resnet_4b", *SAT)
"""Every set has instances that other verifiers proved."""


def table(name: str, truth: str) -> list[dict[str, str]]:
    """The instances of a set with this truth."""
    with (data_root() / "vnncomp" / name / "instances.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["truth"] == truth]


@cache
def network(path: Path) -> Network:
    """A network, read once."""
    return load_network(path)


@cache
def specification(path: Path) -> Spec:
    """A property, read once."""
    return load_vnnlib(path)


def instance(name: str, row: dict[str, str]) -> tuple[Network, Spec]:
    """The network and the property of an instance."""
    folder = data_root() / "vnncomp" / name
    return network(folder / row["onnx"]), specification(folder / row["vnnlib"])


def counterexample(name: str, row: dict[str, str]) -> Tensor:
    """The stored counterexample, flattened, float64."""
    with np.load(data_root() / "vnncomp" / name / "counterexamples.npz") as archive:
        return torch.from_numpy(archive[row["ce_key"]]).double().flatten()


def homes(spec: Spec, x: Tensor) -> list[Region]:
    """The regions whose box (the float32 one, for a float32 point) holds the point; there is one, at least."""
    single = x.dtype == torch.float32
    found = []
    for region in spec.regions:
        box = region.box
        low, high = (box.float32_lower, box.float32_upper) if single else (box.lower, box.upper)
        if bool(((x >= low) & (x <= high)).all()):
            found.append(region)
    assert found, "the point lies in no box"
    return found


def row_of(label: str) -> LinearConstraint:
    """The row that a bound names: one of the property, or a combination of the rows of a disjunct."""
    left, relation = re.fullmatch(r"(.*) (<=?) 0", label).groups()  # type: ignore[union-attr]
    outputs: dict[int, Fraction] = {}
    inputs: dict[int, Fraction] = {}
    constant = Fraction(0)
    for sign, size, kind, place in re.findall(r"(-?) ?\+? ?(\d+(?:/\d+)?)? ?(?:([XY])_(\d+))?", left):
        number = Fraction(f"{sign}{size or 1}")
        if kind:
            (outputs if kind == "Y" else inputs)[int(place)] = number
        elif size:
            constant = number
    row = LinearConstraint(outputs, inputs, constant, relation == "<")
    assert str(row) == label
    return row


@pytest.mark.parametrize("name", SAT)
@torch.no_grad()
def test_every_stored_counterexample_violates_its_property(name: str) -> None:
    """In ONNX Runtime and in our graph at the nearest float32 point, and in our graph in float64 at the point."""
    rows = table(name, "sat")
    assert len(rows) == SAT[name]
    for row in rows:
        judge, spec = instance(name, row)
        stored = counterexample(name, row)
        single = judge.graph.to(torch.float32)
        judges = [(stored.float(), judge.runtime), (stored.float(), single)]
        if name not in FLOAT32_ONLY:
            judges.append((stored, judge.graph.to(torch.float64)))
        for x, execute in judges:
            y = execute(x.reshape(1, *judge.graph.input_shape)).flatten().tolist()
            assert any(region.is_unsafe(x.tolist(), y) for region in homes(spec, x)), row["ce_key"]


@pytest.mark.parametrize("name", SAT)
@pytest.mark.usefixtures("prover_only")
@torch.no_grad()
def test_no_property_with_a_counterexample_is_verified(name: str) -> None:
    """By the prover alone; and no row's bound exceeds the row at the counterexample, beyond rounding."""
    dtype = torch.float64 if name in IN_FLOAT64 else torch.float32
    begin = time.monotonic()
    rows = few(min(4 if name in DEEP else 12, SAT[name]), table(name, "sat"))
    for i, row in enumerate(rows):
        judge, spec = instance(name, row)
        result = verify(judge.graph, spec, dtype=dtype, effort="standard" if i < STANDARD else "fast")
        assert result.verdict is Verdict.UNKNOWN, row["ce_key"]
        x = counterexample(name, row)
        y = judge.graph.to(torch.float64)(x.reshape(1, *judge.graph.input_shape)).flatten().tolist()
        for region in homes(spec, x):
            position = spec.regions.index(region)
            for bound in result.margins:
                if bound.region == position:
                    value = float(row_of(bound.constraint).value(x.tolist(), y))
                    assert bound.lower is not None
                    # a thousandth of the bound is far above rounding, and far below what relaxations lose here
                    slack = 1e-3 * (abs(bound.lower) + abs(value))
                    assert bound.lower <= value + slack, (row["ce_key"], bound.constraint)
    print(f"{name}: {len(rows)} properties with counterexamples, none verified, {time.monotonic() - begin:.1f} s")


@pytest.mark.parametrize("name", SAT)
@pytest.mark.usefixtures("prover_only")
@torch.no_grad()
def test_no_property_with_a_counterexample_is_verified_at_any_effort_in_any_dtype(name: str) -> None:
    """One instance of each set, bounded in the dtype that the test above leaves out; all instances, dtypes, efforts and
    directions with ZONOCUDA_EXHAUSTIVE=1, each for a minute at most.
    """
    rows, other = table(name, "sat"), torch.float32 if name in IN_FLOAT64 else torch.float64
    settings: list[tuple[torch.dtype, str, str]] = [(other, "fast", "auto"), (other, "max", "auto")]
    if name in DEEP:
        settings = settings[:1]
    if EXHAUSTIVE:
        settings = list(product((torch.float32, torch.float64), ("fast", "standard", "max"), ("forward", "dual")))
    for row in rows if EXHAUSTIVE else rows[-1:]:
        judge, spec = instance(name, row)
        for dtype, effort, direction in settings:
            result = verify(
                judge.graph,
                spec,
                dtype=dtype,
                effort=effort,  # type: ignore[arg-type]
                direction=direction,  # type: ignore[arg-type]
                timeout=60 if EXHAUSTIVE else 3,
                split="none",
            )
            assert result.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT), (row["ce_key"], dtype, effort, direction)


@pytest.mark.parametrize("name", ["acasxu", "reach_prob_density", "mnist_fc"])
@pytest.mark.usefixtures("prover_only")
def test_no_property_with_a_counterexample_is_verified_by_splitting(name: str) -> None:
    """Some instances of each set; all of them, for a minute at most, with ZONOCUDA_EXHAUSTIVE=1."""
    rows = table(name, "sat")
    for row in rows if EXHAUSTIVE else few(3, rows):
        judge, spec = instance(name, row)
        result = verify(judge.graph, spec, timeout=60 if EXHAUSTIVE else 1)
        assert result.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT), row["ce_key"]
        assert result.splits


@pytest.mark.parametrize("name", SAT)
def test_every_stored_counterexample_is_replayed_as_falsified(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to float32, at a point of the float32 box, by ONNX Runtime; and where the search tries nothing but that
    point, which some instances show, the verdict is falsified.
    """
    for i, row in enumerate(table(name, "sat")):
        judge, spec = instance(name, row)
        x = counterexample(name, row).float()
        places = [spec.regions.index(region) for region in homes(spec, x)]
        point, subject = x.reshape(1, *judge.graph.input_shape), Subject.of(judge, None)
        assert any(replay(subject, spec.regions[position], position, point) for position in places), row["ce_key"]
        if i >= STANDARD and not EXHAUSTIVE:
            continue

        def stored(
            subject: Subject,
            graph: Graph,
            region: Region,
            position: int,
            *rest: object,
            point: Tensor = point,
            **o: object,
        ) -> Counterexample | None:
            return replay(subject, region, position, point)

        monkeypatch.setattr(verification, "falsify", stored)
        regions = tuple(spec.regions[position] for position in places)
        result = verify(judge, Spec(spec.inputs, spec.outputs, regions))
        assert result.verdict is Verdict.FALSIFIED, row["ce_key"]
        assert result.counterexample is not None
        assert torch.equal(result.counterexample.x.flatten(), x)


@pytest.mark.parametrize("name", UNSAT)
def test_no_property_that_others_proved_is_falsified(name: str) -> None:
    """An instance of each set (two in a thorough run), with the whole procedure, ONNX Runtime as the judge."""
    verdicts = []
    for row in (table(name, "unsat") or table(name, "unsat1"))[: 2 if THOROUGH else 1]:
        judge, spec = instance(name, row)
        result = verify(judge, spec, dtype=torch.float32, timeout=8 if THOROUGH else 3)
        verdicts.append(str(result.verdict))
        assert result.verdict is not Verdict.FALSIFIED, row["vnnlib"]
    print(f"{name}: {', '.join(verdicts)}")
    assert verdicts


# ---- the cases of the course of 2019 ---------------------------------------------------------------------------------


@cache
def course_network(name: str) -> Graph:
    """A network of the course, on pixels in [0, 1]."""
    return from_module(networks.rtai2019(name), (1, 28, 28))


def course_cases() -> list[dict[str, str]]:
    """The 30 cases, with what is known about them."""
    with (data_root() / "rtai2019" / "cases.csv").open() as file:
        return list(csv.DictReader(file))


def course_spec(case: dict[str, str]) -> Spec:
    """Robustness in the ball, intersected with [0, 1]; the file holds the label and 784 pixels."""
    label, *pixels = (data_root() / "rtai2019" / case["case"]).read_text().split()
    assert int(label) == int(case["label"])
    x = torch.tensor([float(p) for p in pixels], dtype=torch.float64).reshape(1, 28, 28)
    return Spec.robust(x, float(case["eps"]), int(label), clip=(0.0, 1.0))


@pytest.mark.usefixtures("prover_only")
def test_no_course_case_that_has_an_adversarial_image_is_verified() -> None:
    """By the prover: no margin exceeds the smallest one that an attack reached. All 30 in a thorough run, otherwise
    those with an adversarial image, and every third of the others.
    """
    begin = time.monotonic()
    verified = []
    cases = course_cases()
    assert len(cases) == 30
    attacked_ones, others = ([c for c in cases if (c["falsified_by_pgd"] == "1") is known] for known in (True, False))
    cases = [*attacked_ones, *few(9, others)]
    for case in cases:
        result = verify(course_network(case["net"]), course_spec(case), dtype=torch.float32, split="none")
        assert result.verdict in (Verdict.VERIFIED, Verdict.UNKNOWN)
        if case["falsified_by_pgd"] == "1":
            assert result.verdict is Verdict.UNKNOWN, case["case"]
        assert result.margin is not None
        attacked = float(case["pgd_margin"])
        assert result.margin <= attacked + 1e-3 * (1 + abs(attacked)), case["case"]
        if result.verdict is Verdict.VERIFIED:
            verified.append(case["case"])
            assert case["gt"] == "verified"
    print(f"rtai2019: {len(verified)} of {len(cases)} cases verified, {time.monotonic() - begin:.1f} s")
    assert verified


def test_every_course_case_that_has_an_adversarial_image_is_falsified() -> None:
    """The whole procedure; the image replays in the module itself, and lies in the ball and in [0, 1]."""
    cases = [case for case in course_cases() if case["falsified_by_pgd"] == "1"]
    assert len(cases) == 4
    for case in cases:
        spec = course_spec(case)
        result = verify(course_network(case["net"]), spec, dtype=torch.float32, timeout=60)
        assert result.verdict is Verdict.FALSIFIED, case["case"]
        found = result.counterexample
        assert found is not None
        assert bool(((found.x >= 0) & (found.x <= 1)).all())
        module = networks.rtai2019(case["net"])
        with torch.no_grad():
            y = module(found.x.unsqueeze(0))[0]
        assert int(y.argmax()) != int(case["label"]), case["case"]
