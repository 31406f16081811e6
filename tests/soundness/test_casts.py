"""Casts of values to narrower types: every bound, verdict and certificate counts their rounding."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import zonocuda
from tests.check.certificates import certified
from tests.soundness.rational import claims
from tests.verifier.exact import evaluate, exactly, rounded
from tests.verifier.graphs import casting, constraint, random_box, spec
from tests.verifier.verdicts import chain, matrix
from zonocuda.checker import check_proof
from zonocuda.checker.arithmetic import balls, precisely
from zonocuda.checker.maps import cast_error
from zonocuda.graph import Add, Cast, Graph, Node, Relu, ScaleShift
from zonocuda.importers import UnsupportedNetworkError, from_module
from zonocuda.specs import LinearConstraint
from zonocuda.verifier import Verdict, verify

TYPES = (torch.float16, torch.bfloat16, torch.float32)
UNIT = {torch.float16: Fraction(1, 2**11), torch.bfloat16: Fraction(1, 2**8), torch.float32: Fraction(1, 2**24)}


def of_type(x: float, dtype: torch.dtype) -> float:
    return torch.tensor(x, dtype=dtype).double().item()


@pytest.mark.parametrize("dtype", TYPES)
def test_the_rounding_that_tests_compare_with_is_that_of_torch(dtype: torch.dtype) -> None:
    """Float32 numbers: torch rounds float64 numbers to 16 bits by way of float32."""
    generator = torch.Generator().manual_seed(0)
    scales = 2.0 ** torch.randint(-30, 15, (2000,), generator=generator).double()
    numbers = torch.randn(2000, generator=generator, dtype=torch.float64) * scales
    numbers = numbers if dtype == torch.float32 else numbers.float().double()
    found = numbers.to(dtype).double()
    assert [rounded(Fraction(x), dtype) for x in numbers.tolist()] == [Fraction(y) for y in found.tolist()]
    ties = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-25, 3 * 2.0**-25], dtype=torch.float64)
    found = ties.to(dtype).double()
    assert [rounded(Fraction(x), dtype) for x in ties.tolist()] == [Fraction(y) for y in found.tolist()]


@pytest.mark.parametrize("dtype", TYPES)
def test_the_error_of_a_cast_covers_every_rounding_and_is_attained(dtype: torch.dtype) -> None:
    """At numbers of every size, subnormal ones among them, by way of float32 or not; with no more than a part in 2000
    to spare where a number lies half way."""
    op, info = Cast(dtype), torch.finfo(dtype)
    generator = torch.Generator().manual_seed(1)
    exponents = torch.arange(math.log2(info.tiny) - 26, math.log2(info.max), 0.37, dtype=torch.float64)
    numbers = 2.0**exponents * torch.randn(len(exponents), generator=generator, dtype=torch.float64).clamp(-1, 1)
    for x in [*numbers.tolist(), info.max, -info.max, 1 + info.eps / 2, info.tiny * info.eps / 2]:
        allowed = Fraction(op.error(torch.tensor(abs(x), dtype=torch.float64)).item())
        for found in (rounded(Fraction(x), dtype), Fraction(of_type(x, dtype))):
            assert abs(found - Fraction(x)) <= allowed, x
    half = Fraction(1) + UNIT[dtype]
    assert op.error(torch.tensor(float(half), dtype=torch.float64)) <= float(UNIT[dtype] * half) * (1 + 1 / 2000)
    assert op.error(torch.tensor(0.0)) == 0
    assert op.error(torch.tensor(info.max * 1.01, dtype=torch.float64)) == math.inf
    assert op.error(torch.tensor(math.nan)) == math.inf


@pytest.mark.parametrize("dtype", TYPES)
def test_the_check_s_own_error_covers_every_rounding(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    sizes = [1.0, 3.7, info.max, info.tiny / 3, info.tiny * info.eps / 2, 1 + info.eps / 2]
    with precisely():
        errors = cast_error(Cast(dtype), balls(-s / 2 for s in sizes), balls(sizes))
        for size, error in zip(sizes, errors, strict=True):
            for x in (size, -size / 2, size * 0.77):
                off = abs(rounded(Fraction(x), dtype) - Fraction(x))
                assert off * 2**200 <= Fraction(int((error * 2**200).floor().unique_fmpz()))
        (infinite,) = cast_error(Cast(dtype), balls([0.0]), balls([info.max * 1.01]))
        assert not infinite.is_finite()


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_bound_holds_for_rounded_values_where_rounding_is_counted(dtype: torch.dtype, counted: bool) -> None:
    """And not where it is not: on boxes of a point, whose bounds have nothing else to spare."""
    wrong = 0
    for seed in range(2):
        graph = casting(seed)
        for width in (0.0, 0.1):
            low, high = (b.to(dtype) for b in random_box(graph, width=width, seed=seed))
            rows = [constraint({0: 1.0}, 0.3), constraint({0: -1.0, 2: 0.7}, 0.0)]
            found = [claim for claim in claims(graph, (low, high), rows, dtype, counted) if not claim.holds]
            assert not (counted and found), found[0]
            wrong += len(found)
    assert counted or wrong


def planted(graph: Graph, x: Tensor, gap: Fraction) -> zonocuda.Spec:
    """On the box of a point: Y_0 <= y + ``gap`` is unsafe, y being the value there."""
    (value, *_) = evaluate(graph, exactly(x))
    row = LinearConstraint({0: Fraction(1)}, {}, -value - gap)
    return spec(x[0], x[0], [[row]], math.prod(graph.output_shape))


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("behind", [(), (Relu(),), (Relu(), matrix([0.7], [0.1]))])
def test_a_property_is_verified_only_beyond_the_rounding(dtype: torch.dtype, behind: tuple[object, ...]) -> None:
    """y = fl(2 x) is 2 x + d: what lies above 2 x - |d| may be attained, what lies a unit below it is not."""
    graph = chain(ScaleShift(torch.tensor([2.0], dtype=torch.float64), None), Cast(dtype), *behind, size=1)  # type: ignore[arg-type]
    for seed in range(8):
        x = torch.rand(1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
        assert verify(graph, planted(graph, x, Fraction(0))).verdict is not Verdict.VERIFIED
        assert verify(graph, planted(graph, x, Fraction(1, 10**9))).verdict is not Verdict.VERIFIED
        assert verify(graph, planted(graph, x, -5 * UNIT[dtype])).verdict is Verdict.VERIFIED


@pytest.mark.usefixtures("prover_only")
def test_what_a_cast_and_its_operand_differ_by_is_not_zero() -> None:
    """fl(x) - x at x = 0.1 is 1.49e-9, and at most 2^-24 x."""
    nodes = chain(Cast(torch.float32), size=1).nodes
    graph = Graph((*nodes, Node("y", Add(-1), (nodes[1].name, nodes[0].name), (1,))), "y")
    x = torch.tensor([[0.1]], dtype=torch.float64)
    (value,) = evaluate(graph, exactly(x))
    assert Fraction(1, 10**9) < value < Fraction(2, 10**9)

    def verdict(t: str) -> Verdict:
        return verify(graph, spec(x[0], x[0], [[LinearConstraint({0: Fraction(-1)}, {}, Fraction(t))]], 1)).verdict

    assert verdict("1e-9") is not Verdict.VERIFIED
    assert verdict("1e-8") is Verdict.VERIFIED


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("direction", ["forward", "dual"])
def test_a_cast_that_may_overflow_is_unknown_with_the_reason(direction: str) -> None:
    graph = chain(ScaleShift(torch.tensor([1e5], dtype=torch.float64), None), Cast(torch.float16), Relu(), size=1)
    for top, verdict in ((0.6, Verdict.VERIFIED), (0.7, Verdict.UNKNOWN)):
        box = torch.tensor([0.1], dtype=torch.float64), torch.tensor([top], dtype=torch.float64)
        result = verify(graph, spec(*box, [[constraint({0: 1.0}, 1.0)]], 1), direction=direction)  # type: ignore[arg-type]
        assert result.verdict is verdict
        if verdict is Verdict.UNKNOWN:
            assert f"may exceed the range of torch.float16 at the cast {graph.nodes[2].name!r}" in result.reason


@pytest.mark.parametrize("semantics", ["float32", "float64"])
def test_executed_semantics_refuse_a_cast(semantics: str) -> None:
    graph = chain(Cast(torch.float32), size=1)
    box = torch.zeros(1), torch.ones(1)
    with pytest.raises(ValueError, match="node 'cast1' changes the precision; use 'real'"):
        verify(graph, spec(*box, [[constraint({0: 1.0}, 1.0)]], 1), semantics=semantics)  # type: ignore[arg-type]


def test_a_graph_executes_its_casts() -> None:
    x = torch.tensor([[0.1]], dtype=torch.float64)
    assert chain(Cast(torch.float16), size=1)(x).item() == of_type(0.1, torch.float16)


# certificates


def without_casts(graph: Graph) -> Graph:
    nodes = (n if not isinstance(n.op, Cast) else Node(n.name, _same(n), n.inputs, n.shape) for n in graph.nodes)
    return Graph(tuple(nodes), graph.output)


def _same(node: Node) -> ScaleShift:
    return ScaleShift(torch.ones((1,) * len(node.shape), dtype=torch.float64), None)


@pytest.mark.parametrize("seed", range(3))
def test_a_certificate_of_a_network_with_casts_is_confirmed_and_one_that_forgets_them_is_not(seed: int) -> None:
    """The property is violated by the rounded values, and holds of the network without its casts."""
    graph = casting(seed)
    x, _ = random_box(graph, width=0.0, seed=seed)
    (exact, *_), (smooth, *_) = (evaluate(g, exactly(x)) for g in (graph, without_casts(graph)))
    sign = 1 if smooth > exact else -1
    between = LinearConstraint({0: Fraction(sign)}, {}, -sign * (exact + smooth) / 2)
    wrong = spec(x[0], x[0], [[between]], 3)
    forged = certified(without_casts(graph), wrong, effort="fast")
    assert check_proof(forged, without_casts(graph), wrong).confirmed
    assert not check_proof(forged, graph, wrong).confirmed
    safe = spec(x[0], x[0], [[LinearConstraint({0: Fraction(1)}, {}, -exact + 1)]], 3)
    assert check_proof(certified(graph, safe, effort="fast"), graph, safe).confirmed


# modules


class Body(nn.Module):
    """Two numbers to two, with a way to convert."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


class Normalised(Body):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(((x.double() - 0.1307) / 0.3081).float())
        return y


class RoundTrip(Body):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.layer(x).double()).float() + x.double().float()
        return y


class Half(Body):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(torch.relu(x.half()).float() + x.bfloat16().float())
        return y


class Flags(Body):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x * torch.tensor([True, False]).float() * torch.tensor([3, 4]).to(x.dtype))
        return y


@pytest.mark.parametrize(
    ("make", "casts"),
    [
        (Normalised, [torch.float32]),
        (RoundTrip, []),
        (Half, [torch.float16, torch.bfloat16]),
        (Flags, []),
    ],
)
def test_modules_that_convert_are_read_and_proven(make: type[Body], casts: list[torch.dtype]) -> None:
    """What was float32 and was only moved or rectified since is float32 still: no rounding there."""
    torch.manual_seed(0)
    module = make().eval()
    graph = from_module(module, (2,))
    assert [node.op.target for node in graph.nodes if isinstance(node.op, Cast)] == casts
    x = torch.tensor([0.3, 0.7])
    with torch.no_grad():
        y = module(x[None])[0]
    property_ = spec(x - 1e-3, x + 1e-3, [[constraint({0: 1.0}, -y[0].item() + 0.1)]], 2)
    assert verify(module, property_, input_shape=(2,)).verdict is Verdict.VERIFIED


class Promoted(Body):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + torch.tensor([[0.1, 0.2]], dtype=torch.float64)
        return y


class Summed(Body):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True, dtype=torch.float64)


@pytest.mark.parametrize("make", [Promoted, Summed])
def test_what_torch_widens_by_itself_has_no_float32_semantics(make: type[Body]) -> None:
    graph = from_module(make().eval(), (2,))
    assert [node.dtype for node in graph.nodes] == [torch.float32, torch.float64]
    box = torch.zeros(2), torch.ones(2)
    property_ = spec(*box, [[constraint({0: 1.0}, 1.0)]], math.prod(graph.output_shape))
    with pytest.raises(ValueError, match=r"holds more digits; use 'float64' or 'real'"):
        verify(graph, property_, semantics="float32")


def test_a_cast_to_integers_is_refused_in_clear_words() -> None:
    class Integers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long().float()

    with pytest.raises(UnsupportedNetworkError, match=r"torch.int64 is no continuous function"):
        from_module(Integers(), (2,))
