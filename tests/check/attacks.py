"""Certificates of proofs of every kind, and properties nearby that do not hold: a point violates them, exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.pooling import PROBLEMS, known_bounds, usual
from tests.check.certificates import least_sample
from tests.check.neuron_trees import neuron_proof
from tests.importers.modules import Apply
from tests.soundness.executions import ULP, Layers, Machine
from tests.soundness.test_assumed import NAMES, smooth
from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import constraint, fc, random_box, residual, sample_box, spec
from tests.verifier.test_transformers import run_in_balls
from zonocuda.archive import Archive
from zonocuda.checker import CertificateError, check_proof
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.proof import Sources
from zonocuda.checker.verdict import Checked
from zonocuda.graph import Elementary, Graph
from zonocuda.importers import from_module
from zonocuda.prove.certificate import Certificate
from zonocuda.specs import Spec
from zonocuda.verifier import verify

NOTHING: Mapping[str, float] = MappingProxyType({})
FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (torch.tanh, nn.functional.gelu, torch.sigmoid, torch.sin)
POINTS = 1000
LEAVES = range(3, 100)


@dataclass(frozen=True, eq=False)
class Proof:
    """A property that is proven: its row is the first output above a number."""

    graph: Graph
    property_: Spec
    certificate: Certificate
    semantics: str = "real"
    ulp: Mapping[str, float] = field(default_factory=dict)

    def checked(
        self, entry: object, property_: Spec | None = None, exact: bool = False, archive: Archive | None = None
    ) -> Checked:
        """What the checker says of an object ``certificate`` of a document, about another property perhaps."""
        about, sources = property_ or self.property_, Sources(archive, exact)
        try:
            return check_proof(entry, self.graph, about, None, sources, self.semantics, ulp=self.ulp)
        except CertificateError as error:
            return Checked(False, str(error), ())


def _proven(graph: Graph, width: float, gap: float, seed: int, ulp: Mapping[str, float] = NOTHING, **how: Any) -> Any:
    """A proof that the first output is above the least of some samples, less ``gap`` of its size."""
    lower, upper = random_box(graph, width=width, seed=seed)
    least = least_sample(graph, lower, upper)
    property_ = spec(
        lower[0], upper[0], [[constraint({0: 1.0}, gap * (1 + abs(least)) - least)]], graph.output_shape[0]
    )
    semantics = how.get("semantics", "real")
    given = graph if semantics == "real" else graph.to(torch.float32)
    result = verify(given, property_, certificate=True, timeout=30.0, ulp=ulp, **how)
    held = result.certificate
    if held is None or held.reason:
        return None
    if how.get("split") in ("input", "neuron") and (held.forest is None or held.forest.leaves not in LEAVES):
        return None  # one pass proved it, or it takes long to check often
    return Proof(given, property_, held, semantics, ulp)


def _network(seed: int) -> Graph:
    return residual(seed) if seed % 5 == 4 else fc(seed, (2 + seed % 3, 6, 6, 2))


def _lemmas(seed: int) -> Proof | None:
    graph = fc(seed, (3, 6, 6, 2))
    lower, upper = random_box(graph, width=1.0, seed=seed)
    least = least_sample(graph, lower, upper)
    property_ = spec(lower[0], upper[0], [[constraint({0: 1.0}, 0.01 * (1 + abs(least)) - least)]], 2)
    certificate, bound = neuron_proof(graph, property_.regions[0], lemmas=3)
    return Proof(graph, property_, certificate) if bound > 0 else None


@torch.no_grad()
def _maxima(seed: int) -> Proof | None:
    """A row that ends at maxima."""
    model, box = PROBLEMS["random"](seed)
    known, graph = known_bounds(model, box), from_module(model, tuple(box[0].shape))
    for i, unit in enumerate(torch.eye(16, dtype=torch.float64)):
        weight = torch.zeros(16, dtype=torch.float64)
        weight[i] = 1.0
        row = constraint({i: 1.0}, 1e-3 - float(usual(model, unit, known, box)))
        property_ = spec(box[0], box[1], [[row]], 16)
        held = verify(graph, property_, effort="fast", split="none", certificate=True).certificate
        if held is not None and not held.reason and any(one.ends for one in held.regions[0].rows):
            return Proof(graph, property_, held)
    return None


def _smooth(seed: int) -> Graph:
    torch.manual_seed(seed)
    function = Apply(FUNCTIONS[seed % len(FUNCTIONS)])
    model = nn.Sequential(nn.Linear(2, 5), function, nn.Linear(5, 5), function, nn.Linear(5, 2))
    graph = from_module(model.eval().requires_grad_(False), (2,)).to(torch.float64, "cpu").current()
    return Graph(graph.nodes, graph.output)


def _executed(seed: int) -> str:
    return "float64" if seed % 2 else "float32"


KINDS: dict[str, Callable[[int], Proof | None]] = {
    "bounds": lambda seed: _proven(_network(seed), 0.7, 3.0, seed, effort="fast"),
    "refined bounds": lambda seed: _proven(_network(seed), 1.0, 0.3, seed, effort="max", split="none"),
    "boxes": lambda seed: _proven(_network(seed), 2.5, 0.01, seed, split="input"),
    "neurons": lambda seed: _proven(_network(seed), 2.5, 0.01, seed, split="neuron"),
    "lemmas": _lemmas,
    "maxima": _maxima,
    "smooth": lambda seed: _proven(_smooth(seed), 0.3, 0.5, seed, effort="fast"),
    "smooth boxes": lambda seed: _proven(_smooth(seed), 2.0, 0.02, seed, split="input"),
    "executed": lambda seed: _proven(_network(seed), 0.7, 3.0, seed, effort="fast", semantics=_executed(seed)),
    "executed boxes": lambda seed: _proven(_network(seed), 2.0, 0.02, seed, split="input", semantics=_executed(seed)),
    "executed neurons": lambda seed: _proven(
        _network(seed), 2.0, 0.02, seed, split="neuron", semantics=_executed(seed)
    ),
    "ulp": lambda seed: _proven(
        smooth(seed), 0.1, 0.5, seed, dict.fromkeys(NAMES, float(ULP)), effort="fast", semantics=_executed(seed)
    ),
    "ulp boxes": lambda seed: _proven(
        smooth(seed), 3.0, 0.005, seed, dict.fromkeys(NAMES, float(ULP)), split="input", semantics=_executed(seed)
    ),
}


def false_claims(proof: Proof, count: int, seed: int) -> Iterator[Spec]:
    """The same row, moved so that a point of the box violates it by a part in 10^12 or more: of executed values, those
    of some machine; of smooth functions, an upper end of a ball."""
    (region,) = proof.property_.regions
    ((row,),) = region.disjuncts
    rng, shape = random.Random(seed), proof.graph.input_shape
    narrow = torch.float32 if proof.semantics == "float32" else torch.float64
    low, high = (end.to(narrow).double().reshape(shape) for end in (region.box.lower, region.box.upper))
    wide = proof.graph.to(torch.float64)
    (output,) = row.outputs
    points = sample_box(low, high, POINTS, seed=seed).to(narrow).double()
    worst = wide(points).reshape(len(points), -1)[:, output].argsort()[:count]  # where a proof comes closest
    layers = Layers(wide) if proof.semantics != "real" else None
    for number, x in enumerate(points[worst]):
        if layers is not None:
            machines = [Machine(narrow, seed * count + number + k) for k in range(3)]
            least = min(machine.run(layers, exactly(x))[1][output] for machine in machines)
        elif any(isinstance(node.op, Elementary) for node in wide.nodes):
            with precisely():
                least = Fraction(float(run_in_balls(wide, x)[1][output].upper()))
            least += abs(least) / 2**50
        else:
            least = evaluate(wide, exactly(x))[output]
        value = row.outputs[output] * least + row.constant
        less = value + abs(value) * Fraction(1, 10 ** rng.choice([3, 6, 9, 12]))
        moved = replace(row, constant=row.constant - less)
        yield spec(region.box.lower, region.box.upper, [[moved]], proof.property_.outputs)
