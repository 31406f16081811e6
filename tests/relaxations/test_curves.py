"""Where smooth functions bend and turn, and the error of their derivatives, by ball arithmetic.

A function is a power series in a ball: its second coefficient is f'' / 2 on the whole ball.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from flint import arb, arb_series, ctx

from tests.relaxations.functions import CASES, Case, intervals
from zonocuda.relaxations.curve import CONVEX, STRAIGHT, Curve
from zonocuda.relaxations.gated import FAR
from zonocuda.relaxations.smooth import SmoothRule

Series = Callable[[arb_series], arb_series]


def _sigmoid(x: arb_series) -> arb_series:
    return 1 / (1 + (-x).exp())


def _gelu_tanh(x: arb_series) -> arb_series:
    return x * _sigmoid(2 * (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x * x * x))


def _mish(x: arb_series) -> arb_series:
    w = x.exp()
    n = w * (w + 2)
    return x - 2 * x / (n + 2) if x[0] > 0 else x * (n / (n + 2))


SERIES: dict[str, Series] = {
    "sigmoid": _sigmoid,
    "tanh": lambda x: 2 * _sigmoid(2 * x) - 1,
    "erf": lambda x: x.erf(),
    "atan": lambda x: x.atan(),
    "softplus": lambda x: (1 + x.exp()).log() if x[0] < 5 else x + (1 + (-x).exp()).log(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "gelu": lambda x: x * (1 + (x / arb(2).sqrt()).erf()) / 2,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * _sigmoid(x),
    "mish": _mish,
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.exp() - 1,
    "log": lambda x: x.log(),
    "log1p": lambda x: (1 + x).log(),
    "sqrt": lambda x: x.sqrt(),
    "rsqrt": lambda x: x.rsqrt(),
    "reciprocal": lambda x: 1 / x,
}
CURVES = [case for case in CASES if isinstance(case.rule, SmoothRule)]
GATES = [case for case in CURVES if case.function in ("gelu", "gelu_tanh", "silu", "mish")]


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """256 bits."""
    before = ctx.prec
    ctx.prec = 256
    yield
    ctx.prec = before


def curve_of(case: Case) -> Curve:
    rule = case.rule
    assert isinstance(rule, SmoothRule)
    return rule.curve


def series(case: Case, x: arb, terms: int) -> list[arb]:
    """f and its derivatives on a ball, each over the factorial of its number."""
    before = ctx.cap
    ctx.cap = terms
    try:
        variable = arb_series([x, 1])
        if case.function == "power":
            found = arb_series([1])
            for _ in range(int(case.parameter)):
                found = found * variable
        elif case.function in ("elu", "celu", "softsign", "hardswish"):
            found = piece_of(case, variable, float(x.mid()))
        else:
            found = SERIES[case.function](variable)
        return [found[i] for i in range(terms)]
    finally:
        ctx.cap = before


def piece_of(case: Case, x: arb_series, at: float) -> arb_series:
    """A function that formulas give in pieces, on that of ``at``."""
    alpha = arb(case.parameter)
    if case.function == "softsign":
        return x / (1 + x) if at > 0 else x / (1 - x)
    if case.function == "hardswish":
        return 0 * x if at <= -3 else (x if at >= 3 else x * (x + 3) / 6)
    inner = x if case.function == "elu" else x / alpha
    return x if at > 0 else alpha * (inner.exp() - 1)


def bends(case: Case, bend: int, a: float, b: float) -> bool:
    """Whether f'' has the sign of a bend on [a, b]."""
    steps = math.ceil(4 * (b - a))
    pending = [(a + (b - a) * i / steps, a + (b - a) * (i + 1) / steps) for i in range(steps)]
    count = 0
    while pending:
        first, last = pending.pop()
        count += 1
        middle = (first + last) / 2
        try:
            if series(case, arb(middle, (last - first) / 2 + 1e-13), 3)[2] * bend > 0:
                continue
        except ValueError:  # a quotient by a ball around 0
            pass
        if count > 20000 or last - first < 1e-12:
            return False
        pending += [(first, middle), (middle, last)]
    return True


@pytest.mark.parametrize("case", GATES, ids=str)
def test_gates_bend_where_their_curves_say(case: Case) -> None:
    """f'' has one sign up to 2^-14 from an inflection point, and |f'''| < 1 and of one sign there: so f'' has one zero
    within 2^-14, and that is within 2^-50 of the break, as f'' changes its sign about it."""
    curve, near = curve_of(case), 2.0**-14
    far = 8.0 if case.function == "gelu_tanh" else FAR
    for number, bend in enumerate(curve.bends):
        a, b = (max(-far, min(far, end)) for end in curve.piece(number))
        assert bends(case, bend, a if a == -far else a + near, b if b == far else b - near)
    for point, bend in zip(curve.breaks, curve.bends, strict=False):
        third = 6 * series(case, arb(point, near * 1.001), 4)[3]
        assert abs(third) < 1
        assert third * bend < 0
        for side in (-1, 1):
            assert series(case, arb(point) + side * arb(2) ** -50, 3)[2] * bend * side < 0


def test_gates_bend_no_more_beyond_what_is_tried() -> None:
    """Mish, by w = e^x: f'' = 2 g' + x g'', each over w before -FAR, and times w^2 behind FAR.

    SiLU: f'' = s (1 - s) (2 - x tanh(x / 2)). GELU: phi (2 - x^2). GELU by tanh: over s (1 - s), f'' is 2 y' + x y'' -
    x tanh(y / 2) y'^2 with y' = c (1 + 3 k x^2), even in x, and less than 0 from 8 on.
    """
    small = arb(0).union(arb(-FAR).exp())  # w, or 1 / w
    w, n = small, small * (small + 2)
    first = 2 * (2 + 2 * w) / (n + 2) ** 2  # g' / w, g = 1 - 2 / (n + 2)
    second = (4 + 8 * w) / (n + 2) ** 2 - 4 * (2 * w + 2) ** 2 * w / (n + 2) ** 3  # g'' / w
    assert 2 * first - FAR * second < 0
    v = small
    q = 1 + 2 * v + 2 * v**2  # (n + 2) / w^2
    first = 2 * (2 + 2 * v) / q**2  # g' w^2
    second = 2 * (4 + 2 * v) / q**2 - 4 * (2 + 2 * v) ** 2 / q**3  # g'' w^2
    assert 2 * first + FAR * second < 0
    scale, cubic = 2 * (2 / arb.pi()).sqrt(), 3 * arb("0.044715")
    steep = scale * (1 + cubic * 64)  # y' at 8, which grows as x^2
    assert 2 * steep + 8 * (2 * cubic * scale * 8) - 8 * arb("0.999") * steep**2 < 0


@pytest.mark.parametrize("case", [c for c in CURVES if c not in GATES and c.function not in ("sin", "cos")], ids=str)
def test_the_other_functions_bend_where_their_curves_say(case: Case) -> None:
    curve = curve_of(case)
    for number, bend in enumerate(curve.bends):
        first, last = (max(case.least, min(case.most, end)) for end in curve.piece(number))
        if first >= last:
            continue
        a, b = max(first, -20.0), min(last, 20.0)
        a, b = (a + 0.05 if a == first else a), (b - 0.05 if b == last else b)
        if bend == STRAIGHT:
            assert series(case, arb((a + b) / 2, (b - a) / 2), 3)[2] == 0
        else:
            parts = [(a, b)] if case.function != "power" or a * b > 0 else [(a, -0.05), (0.05, b)]
            assert all(bends(case, bend, *part) for part in parts)


@pytest.mark.parametrize("case", [c for c in CURVES if curve_of(c).turn is not None], ids=str)
def test_functions_turn_where_their_curves_say(case: Case) -> None:
    """f' < 0 at the first number, > 0 at the last, and f is at least the value between."""
    turn = curve_of(case).turn
    assert turn is not None
    if turn.first == turn.last:
        assert series(case, arb(turn.first), 2)[1] == 0
        assert series(case, arb(turn.first), 2)[0] == arb(turn.value)
        return
    assert series(case, arb(turn.first), 2)[1] < 0 < series(case, arb(turn.last), 2)[1]
    middle, radius = (arb(turn.first) + arb(turn.last)) / 2, (turn.last - turn.first) / 2
    steep = series(case, arb(float(middle.mid()), radius * 1.01), 2)[1]
    least = series(case, middle, 2)[0] - abs(steep) * radius * 1.01
    assert arb(turn.value) <= least
    assert least - arb(turn.value) < 1e-15
    assert curve_of(case).bends[1] == CONVEX


@pytest.mark.parametrize("case", CURVES, ids=str)
def test_derivatives_are_within_their_error(case: Case) -> None:
    lower, upper = intervals(case, torch.float64, 6, seed=11)
    curve = curve_of(case)
    points = torch.cat([lower, upper])
    points = torch.cat([points, points[points.abs() < 40] / 8 + 1e-3])
    points = points[(points > case.least) & (points < case.most) & (points.abs() <= 2.0**20)]
    value, error = curve.derivative(points)
    assert bool((error <= 1e-12 * (1 + value.abs())).all())
    count, grows = 0, case.function in ("atan", "softsign", "sin", "cos", "power", "reciprocal")
    ctx.prec = 3000
    for x, found, e in zip(points.tolist(), value.tolist(), error.tolist(), strict=True):
        if curve.bends[sum(x > point for point in curve.breaks)] == STRAIGHT:
            continue
        at = x if grows or case.least > -math.inf else max(-1e4, min(1e4, x))  # f' changes no more there
        exact = series(case, arb(at), 2)[1]
        assert abs(exact - arb(found)) <= arb(e), x
        count += 1
    assert count > 10
