"""Random formulas: a point satisfies the parsed property exactly where it satisfies the formula."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.specs.helpers import DECLARATIONS, has_counterexample_at, load_text

# A formula is a nested tuple (operator, arguments...); its leaves are variable names and (text, value) numbers.
Tree = Any

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
    "!=": operator.ne,
}
VARIABLES = ("X_0", "X_1", "Y_0", "Y_1")
OUTER_BOX = [("and", ("<=", ("-2", Fraction(-2)), x), ("<=", x, ("2", Fraction(2)))) for x in ("X_0", "X_1")]


def evaluate(tree: Tree, point: dict[str, Fraction]) -> Any:
    """The value of a tree at a point, straight from the meaning of its operators."""
    if isinstance(tree, str):
        return point[tree]
    head, *rest = tree
    if head in COMPARISONS:
        return all(starmap(COMPARISONS[head], pairwise(evaluate(t, point) for t in rest)))
    match head:
        case "and":
            return all(evaluate(t, point) for t in rest)
        case "or":
            return any(evaluate(t, point) for t in rest)
        case "not":
            return not evaluate(rest[0], point)
        case "=>":
            return (not evaluate(rest[0], point)) or evaluate(rest[1], point)
        case "xor" | "iff":
            return (evaluate(rest[0], point) != evaluate(rest[1], point)) == (head == "xor")
        case "ite":
            return evaluate(rest[1] if evaluate(rest[0], point) else rest[2], point)
        case "distinct":
            return len({evaluate(t, point) for t in rest}) == len(rest)
        case "+":
            return sum((evaluate(t, point) for t in rest), Fraction(0))
        case "*":
            return reduce(operator.mul, (evaluate(t, point) for t in rest))
        case "/":
            return evaluate(rest[0], point) / evaluate(rest[1], point)
        case "-" if len(rest) == 1:
            return -evaluate(rest[0], point)
        case "-":
            return reduce(operator.sub, (evaluate(t, point) for t in rest))
        case _:
            return rest[0]


def render(tree: Tree) -> str:
    if isinstance(tree, str):
        return tree
    if isinstance(tree[-1], Fraction):
        return str(tree[0])
    return f"({'=' if tree[0] == 'iff' else tree[0]} {' '.join(map(render, tree[1:]))})"


def spellings(value: Fraction, places: int) -> list[tuple[str, Fraction]]:
    """Ways to write a number with at most that many decimals."""
    digits = value * 10**places
    assert digits.denominator == 1
    whole, decimals = divmod(abs(digits.numerator), 10**places)
    sign = "-" if value < 0 else ""
    plain = f"{whole}.{decimals:0{places}d}"
    return [(sign + plain, value), (f"(- {plain})", -abs(value)), (f"{digits.numerator}e-{places}", value)]


def trees(numbers: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    divisors = st.sampled_from([("2", Fraction(2)), ("-4", Fraction(-4)), ("0.5", Fraction(1, 2))])
    leaves = st.one_of(st.sampled_from(VARIABLES), numbers)
    terms = st.recursive(
        leaves,
        lambda t: st.one_of(
            st.tuples(st.sampled_from("+-"), t),
            st.tuples(st.sampled_from("+-"), t, t),
            st.tuples(st.sampled_from("+-"), t, t, t),
            st.tuples(st.just("*"), numbers, t),
            st.tuples(st.just("*"), t, numbers),
            st.tuples(st.just("/"), t, divisors),
        ),
        max_leaves=4,
    )
    atoms = st.tuples(st.sampled_from(list(COMPARISONS)), terms, terms)
    chains = st.tuples(st.sampled_from(("<=", ">=", "<", ">", "=", "distinct")), terms, terms, terms)
    choices = st.tuples(st.sampled_from(("xor", "iff")), atoms, atoms)
    formulas = st.recursive(
        atoms,
        lambda f: st.one_of(
            st.lists(f, min_size=1, max_size=3).map(lambda fs: ("and", *fs)),
            st.lists(f, min_size=1, max_size=3).map(lambda fs: ("or", *fs)),
            st.tuples(st.just("not"), f),
            st.tuples(st.just("=>"), f, f),
        ),
        max_leaves=6,
    )
    # Not inside of others: normal forms of their negations grow too fast for a test.
    return st.one_of(formulas, chains, choices, st.tuples(st.just("ite"), atoms, atoms, atoms))


def numbers(denominator: int, places: int) -> st.SearchStrategy[Tree]:
    return st.integers(-2 * denominator, 2 * denominator).flatmap(
        lambda n: st.sampled_from(spellings(Fraction(n, denominator), places))
    )


def points(denominator: int) -> st.SearchStrategy[list[list[float]]]:
    coordinate = st.integers(-3 * denominator, 3 * denominator).map(lambda n: n / denominator)
    return st.lists(st.lists(coordinate, min_size=4, max_size=4), min_size=1, max_size=20)


def exact(point: Sequence[float]) -> dict[str, Fraction]:
    return {name: Fraction(v) for name, v in zip(VARIABLES, point, strict=True)}


SETTINGS = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@SETTINGS
@given(formulas=st.lists(trees(numbers(4, 2)), min_size=1, max_size=3), sample=points(4))
def test_a_point_is_a_counterexample_exactly_where_the_formula_holds(
    tmp_path: Path, formulas: list[Tree], sample: list[list[float]]
) -> None:
    # Bounds are quotients of small multiples of 1/4: none lies within rounding of a sampled point but not on it.
    assertions = [*OUTER_BOX, *formulas]
    spec = load_text(tmp_path, DECLARATIONS + "\n".join(f"(assert {render(f)})" for f in assertions))
    for point in sample:
        expected = all(evaluate(f, exact(point)) for f in assertions)
        assert has_counterexample_at(spec, point[:2], point[2:]) == expected, point


@SETTINGS
@given(formulas=st.lists(trees(numbers(10, 1)), min_size=1, max_size=3), sample=points(10))
def test_no_point_that_satisfies_a_decimal_formula_is_lost(
    tmp_path: Path, formulas: list[Tree], sample: list[list[float]]
) -> None:
    assertions = [*OUTER_BOX, *formulas]
    spec = load_text(tmp_path, DECLARATIONS + "\n".join(f"(assert {render(f)})" for f in assertions))
    for point in sample:
        if all(evaluate(f, exact(point)) for f in assertions):
            assert has_counterexample_at(spec, point[:2], point[2:]), point


@SETTINGS
@given(pairs=st.lists(st.tuples(st.fractions(), st.fractions()), min_size=1, max_size=3))
def test_boxes_are_empty_exactly_where_an_exact_lower_bound_exceeds_its_upper_bound(
    tmp_path: Path, pairs: list[tuple[Fraction, Fraction]]
) -> None:
    declared = "".join(f"(declare-const X_{j} Real)" for j in range(len(pairs))) + "(declare-const Y_0 Real)"
    text = "".join(
        f"(assert (>= X_{j} (/ {a.numerator} {a.denominator})))(assert (<= X_{j} (/ {b.numerator} {b.denominator})))"
        for j, (a, b) in enumerate(pairs)
    )
    box = load_text(tmp_path, declared + text).regions[0].box
    assert box.is_empty == any(a > b for a, b in pairs)
    assert bool((box.float32_lower > box.float32_upper).any()) == box.is_empty
