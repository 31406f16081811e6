"""Certificates of networks with smooth functions and products: confirmed where they are right, and never where not."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.check.certificates import array, inline, random_slopes
from tests.check.test_forests import checked, forest_of
from tests.check.test_standard import compared
from tests.check.test_tampering import confirmed, mutated
from tests.importers.modules import Apply
from tests.importers.smooth_models import SMOOTH
from tests.importers.test_normal import FILES as NORMAL
from tests.importers.test_products import FILES as PRODUCTS
from tests.thorough import few
from tests.verifier.graphs import constraint, sample_box, spec
from tests.verifier.test_transformers import MODULES, run_in_balls
from zonocuda.checker import check_proof
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.certificate import region_claim
from zonocuda.checker.claims import RowClaim
from zonocuda.checker.derive import Derivation
from zonocuda.checker.maps import Maps
from zonocuda.checker.region import RegionCheck
from zonocuda.checker.sets import FloatNet
from zonocuda.domains import Zonotope
from zonocuda.graph import Elementary, Graph
from zonocuda.importers import from_module
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, compute_bounds, verify

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "atan": torch.atan,
    "softsign": nn.functional.softsign,
    "softplus": nn.functional.softplus,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "mish": nn.functional.mish,
    "elu": lambda x: nn.functional.elu(x, 0.7),
    "celu": lambda x: nn.functional.celu(x, 0.7),
    "hardswish": nn.functional.hardswish,
    "sin": torch.sin,
    "cos": torch.cos,
    "square": torch.square,
    "cube": lambda x: x**3,
    "log": lambda x: torch.log(x.exp() + 1),
    "log1p": lambda x: torch.log1p(x.exp()),
    "sqrt": lambda x: torch.sqrt(x * x + 0.1),
    "rsqrt": lambda x: torch.rsqrt(x * x + 0.1),
    "reciprocal": lambda x: torch.reciprocal(x * x + 0.5),
    "products": lambda x: x[:, :4] * x[:, 4:],
    "steps": lambda x: torch.floor(3 * x) + torch.sign(x),
    "round": lambda x: torch.round(2 * x) - torch.ceil(x),
    "relu": lambda x: torch.relu(x) + torch.tanh(x),
}
QUICK = (
    "exp",
    "tanh",
    "softsign",
    "gelu",
    "mish",
    "elu",
    "hardswish",
    "sin",
    "cube",
    "rsqrt",
    "reciprocal",
    "products",
    "steps",
    "relu",
)
SPLIT = ("tanh", "gelu", "sin", "products", "relu", "rsqrt")
SEED = 20331


class Net(nn.Module):
    """Two layers of eight neurons with one function, on inputs of two numbers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function = nn.Linear(2, 8), Apply(function)
        wide = int(function(torch.zeros(1, 8)).shape[1])
        self.second, self.last = nn.Linear(wide, 8), nn.Linear(wide, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.function(self.second(self.function(self.first(x)))))
        return out


@cache
def graph_of(name: str) -> Graph:
    torch.manual_seed(7)
    build, shape = MODULES[name] if name in MODULES else (lambda: Net(FUNCTIONS[name]), (2,))
    with torch.no_grad():
        graph = from_module(build().eval(), shape).to(torch.float64, "cpu").current()
        return Graph(graph.nodes, graph.output)


def property_of(name: str, share: float) -> tuple[Graph, Spec]:
    """``Y_0 > t`` on a box, t between the forward bound (0) and the least of many samples (1)."""
    graph = graph_of(name)
    width = 0.05 if name in MODULES else 0.4
    center = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(3))
    lower, upper = (center - width).double()[None], (center + width).double()[None]
    with torch.no_grad():
        bound = float(compute_bounds(graph, Zonotope.from_box(lower, upper)).lower.flatten()[0])
        least = float(graph(sample_box(lower[0], upper[0], 2000, seed=1)).reshape(2000, -1)[:, 0].min())
    row = constraint({0: 1.0}, -(bound + (least - bound) * share))
    return graph, spec(lower.flatten(), upper.flatten(), [[row]], int(np.prod(graph.output_shape)))


@cache
def whole(name: str, share: float = -0.05) -> tuple[Graph, Spec, dict[str, Any]]:
    """A proof on the whole box."""
    graph, property_ = property_of(name, share)
    result = verify(graph, property_, effort="max" if share > 0 else "fast", split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert not result.certificate.reason
    return graph, property_, inline(result.certificate)


@pytest.mark.parametrize(
    "name",
    [*QUICK, *MODULES, *few(3, [name for name in FUNCTIONS if name not in QUICK])],
)
def test_a_proof_by_bounds_is_confirmed_with_the_bounds_that_it_claims(name: str) -> None:
    graph, property_, certificate = whole(name)
    result = check_proof(certificate, graph, property_)
    assert result.confirmed, result
    assert "0 claimed bounds of neurons not reached" in result.details[-1]


@pytest.mark.parametrize(("name", "share"), few(1, [("gelu", 0.15), ("transformer", 0.1)]))
def test_a_proof_with_slopes_that_have_learned_is_confirmed(name: str, share: float) -> None:
    graph, property_, certificate = whole(name, share)
    (entry,) = certificate["regions"]
    assert entry["second_pass"], "the property was meant to need refined bounds"
    result = check_proof(certificate, graph, property_)
    assert result.confirmed, result


@pytest.mark.parametrize(
    "name",
    ["gelu", "products", "relu", *few(1, [name for name in SPLIT if name not in ("gelu", "products", "relu")])],
)
def test_a_proof_by_splitting_the_box_is_confirmed_in_floats_and_in_balls(name: str, tmp_path: Path) -> None:
    graph, property_ = property_of(name, 0.6)
    result = verify(graph, property_, certificate=True, split="input", timeout=100.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert forest_of(result.certificate).leaves > 1, "the property was meant to need splits"
    for exact in (False, True):
        found = checked(graph, property_, result.certificate, tmp_path / "c.zip", exact=exact)
        assert found.confirmed, found
    assert not checked(graph, wrong_one(graph, property_), result.certificate, tmp_path / "c.zip").confirmed


def exact_outputs(graph: Graph, property_: Spec, count: int = 12) -> list[Any]:
    """Balls around the first output at points of the box."""
    box = property_.regions[0].box
    ends = [end.double().reshape(graph.input_shape) for end in (box.lower, box.upper)]
    return [run_in_balls(graph, x)[1][0] for x in sample_box(ends[0], ends[1], count, seed=4)]


def wrong_one(graph: Graph, property_: Spec) -> Spec:
    """The same constraint, moved so that a point violates it by little."""
    least = min(float(y.upper()) for y in exact_outputs(graph, property_))
    box = property_.regions[0].box
    row = constraint({0: 1.0}, -least - abs(least) * 1e-9)
    return spec(box.lower, box.upper, [[row]], property_.outputs)


@pytest.mark.parametrize("name", ["tanh", *few(0, ["gelu", "transformer"])])
def test_no_edit_confirms_a_false_property(name: str) -> None:
    graph, property_, certificate = whole(name, 0.15 if name == "gelu" else -0.05)
    wrong = wrong_one(graph, property_)
    assert not confirmed(certificate, graph, wrong)
    rng = random.Random(SEED)
    still = 0
    for trial in range(12):
        edited = mutated(certificate, rng)
        assert not confirmed(edited, graph, wrong), f"seed {SEED}, trial {trial}"
        still += confirmed(edited, graph, property_)
    assert still < 12


@pytest.mark.parametrize("name", ["tanh", "mish", "cube", "products", "layer norm"])
def test_bounds_are_below_exact_values_for_any_slopes(name: str) -> None:
    graph, property_, certificate = whole(name)
    exact = exact_outputs(graph, property_, 6)
    (region,) = property_.regions
    ((row,),) = region.disjuncts
    for seed in range(3):
        (entry,) = random_slopes(certificate, seed)["regions"]
        with precisely():
            maps = Maps(graph)
            claim = region_claim(entry, maps.layers, maps.size)
            bound = RegionCheck(maps, region, claim).row_bound(row, RowClaim(0.0, None))
            shift = bound.__class__(row.constant.numerator) / row.constant.denominator
        assert bound.is_finite()
        assert all(bound <= y + shift for y in exact)


def test_a_function_of_another_name_and_slopes_that_are_no_numbers_are_seen() -> None:
    graph, property_, certificate = whole("tanh")
    first = certificate["regions"][0]["activations"][0]

    def reason(**changed: Any) -> str:
        edited = copy.deepcopy(certificate)
        edited["regions"][0]["activations"][0].update(changed)
        result = check_proof(edited, graph, property_)
        assert not result.confirmed
        return result.reason

    size = first["neurons"]["shape"]
    for key in ("area", "negative", "nonnegative", "least", "largest"):
        for value in (float("nan"), float("inf")):
            assert "a slope is no finite number" in reason(**{key: array(torch.full(size, value, dtype=torch.float64))})
    assert "'gelu' is not supported; supported: tanh" in reason(op="gelu")
    assert "must be there" in reason(op=None)
    assert "must be an object" in reason(least=None)
    steep = {key: array(torch.full(size, 1e30, dtype=torch.float64)) for key in ("area", "negative", "nonnegative")}
    assert "is not refuted" in reason(**steep)


def test_another_network_refuses_the_certificate_of_one_with_the_same_shapes() -> None:
    graph, property_, certificate = whole("sin")
    nodes = tuple(
        node
        if not isinstance(node.op, Elementary)
        else type(node)(node.name, Elementary("cos"), node.inputs, node.shape)
        for node in graph.nodes
    )
    assert not check_proof(certificate, Graph(nodes, graph.output), property_).confirmed


@pytest.mark.parametrize("name", ["gelu", "products", "layer norm", "softmax"])
def test_float_bounds_of_every_activation_hold_on_batches_of_boxes(name: str) -> None:
    graph, property_ = property_of(name, 0.0)
    box = property_.regions[0].box
    low, high = (end.double().numpy() for end in (box.lower, box.upper))
    middle = low + (high - low) / 2
    with precisely(), np.errstate(all="ignore"):
        derivation = Derivation(FloatNet(Maps(graph)), np.stack([low, middle]), np.stack([middle, high]))
        derivation.run()
    for number, (a, b) in enumerate(((low, middle), (middle, high))):
        ends = [torch.from_numpy(end).reshape(graph.input_shape) for end in (a, b)]
        for x in sample_box(ends[0], ends[1], 4, seed=5):
            values, _ = run_in_balls(graph, x)
            for node, (least, most) in derivation.ends.items():
                for y, first, last in zip(values[node], least[number].tolist(), most[number].tolist(), strict=True):
                    assert not y < first
                    assert not y > last


@pytest.mark.parametrize("name", [*SMOOTH, *NORMAL, *PRODUCTS])
def test_a_file_agrees_with_what_the_standard_says(name: str) -> None:
    cases = {**SMOOTH, **NORMAL, **PRODUCTS}
    assert compared(cases[name].model()) == ""
