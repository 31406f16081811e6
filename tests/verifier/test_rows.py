"""A region's constraints as rows: what they are, what they share, and when a disjunct is refuted."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.verifier.graphs import constraint, fc, random_box, region, sample_box
from zonocuda.bounds.dual.problem import dual_bound
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Input, Linear, Node
from zonocuda.specs import LinearConstraint

LIKE = torch.empty((), dtype=torch.float64)
A, B, C = constraint({0: 1, 1: -1}), constraint({1: 2}, -0.5), constraint({2: 1}, strict=True)


def rows(*disjuncts: list[LinearConstraint], like: torch.Tensor = LIKE) -> Rows:
    """Rows over two inputs and three outputs."""
    return Rows.of(region(torch.zeros(2), torch.ones(2), disjuncts), 2, 3, like)


def test_equal_constraints_share_a_row() -> None:
    again = constraint({1: -1, 0: 1})
    found = rows([A, B], [again], [B, C, A])
    assert found.count == 3
    assert found.disjuncts == ((0, 1), (0,), (1, 2, 0))
    assert found.labels == ("Y_0 - Y_1 <= 0", "2 Y_1 - 1/2 <= 0", "Y_2 < 0")
    assert torch.equal(found.output, torch.tensor([[1.0, -1, 0], [0, 2, 0], [0, 0, 1]], dtype=torch.float64))
    assert found.constant.tolist() == [0.0, -0.5, 0.0]


def test_a_strict_constraint_is_another_row_than_its_closure() -> None:
    assert rows([constraint({0: 1}), constraint({0: 1}, strict=True)]).count == 2


@pytest.mark.parametrize(
    ("lower", "refuted"),
    [
        ([1.0, -1.0, -1.0], [True, True, False]),
        ([-1.0, 1.0, -1.0], [True, False, True]),
        ([0.0, 0.0, 0.0], [False, False, True]),
        ([0.0, 0.0, -1e-300], [False, False, False]),
        ([-1.0, -1.0, 1e-300], [False, False, True]),
        ([torch.nan, torch.nan, torch.nan], [False, False, False]),
        ([torch.nan, 1.0, torch.inf], [True, False, True]),
        ([torch.inf, torch.inf, torch.inf], [False, False, False]),
        ([-torch.inf, 2.0, -torch.inf], [True, False, True]),
    ],
)
def test_a_disjunct_is_refuted_by_one_finite_row_that_is_positive_or_strict_at_zero(
    lower: list[float], refuted: list[bool]
) -> None:
    found = rows([A, B], [A], [B, C])
    assert found.refuted(torch.tensor(lower, dtype=torch.float64)) == refuted


def test_an_empty_conjunction_is_never_refuted_and_an_empty_disjunction_has_nothing_to_refute() -> None:
    found = rows([A], [])
    assert found.refuted(torch.tensor([5.0])) == [True, False]
    nothing = rows()
    assert (nothing.count, nothing.disjuncts, nothing.refuted(torch.zeros(0))) == (0, (), [])


def test_values_are_the_left_hand_sides() -> None:
    row = LinearConstraint({0: Fraction(1), 2: Fraction(-3)}, {1: Fraction(1, 2)}, Fraction(1, 4))
    x, y = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor([[3.0, 9.0, 1.0]], dtype=torch.float64)
    assert rows([row]).values(x, y).item() == float(row.value(x[0].tolist(), y[0].tolist())) == 1.25


def test_rows_with_input_terms_cancel_exactly() -> None:
    """The network copies its input: Y_0 - X_0 is zero at every point, whatever the box."""
    nodes = (
        Node("x", Input(), (), (2,)),
        Node("y", Linear(torch.tensor([[1.0, 0], [0, 1], [1, 1]], dtype=torch.float64)), ("x",), (3,)),
    )
    graph = Graph(nodes, "y")
    same = LinearConstraint({0: Fraction(1)}, {0: Fraction(-1)}, Fraction(1, 2))
    total = LinearConstraint({2: Fraction(1)}, {0: Fraction(-1), 1: Fraction(-1)}, Fraction(0))
    found = rows([same], [total])
    box = torch.full((1, 2), -3.0, dtype=torch.float64), torch.full((1, 2), 5.0, dtype=torch.float64)
    z = Zonotope.from_box(*box)
    low, high = found.image(z, sweep(graph, z).output).bounds()
    assert low.tolist() == high.tolist() == [[0.5, 0.0]]
    assert dual_bound(graph, found, box, {}).lower.tolist() == [[0.5, 0.0]]


def test_the_image_of_a_zonotope_encloses_the_rows_at_every_point() -> None:
    graph = fc(0, (2, 6, 3))
    box = random_box(graph, width=0.5)
    mixed = LinearConstraint({0: Fraction(1), 1: Fraction(2)}, {0: Fraction(-1), 1: Fraction(3)}, Fraction(1))
    found = rows([mixed], [A])
    z = Zonotope.from_box(*box)
    low, high = found.image(z, sweep(graph, z).output).bounds()
    x = sample_box(box[0][0], box[1][0], 300)
    values = found.values(x, graph(x))
    assert (values >= low - 1e-12).all()
    assert (values <= high + 1e-12).all()


def test_a_row_of_large_or_small_coefficients_is_divided_by_a_power_of_two() -> None:
    """x in [0, 1]: the row, times its unit, is the row as it was written."""
    for size in (Fraction(10) ** 400, Fraction(10) ** 39, Fraction(1, 10**200), Fraction(1), Fraction(1, 3)):
        row = LinearConstraint({0: 3 * size, 1: -size}, {1: size / 2}, size / 8)
        for dtype in (torch.float64, torch.float32):
            found = rows([row], like=torch.empty((), dtype=dtype))
            values = [found.output[0, 0], found.output[0, 1], found.input[0, 1], found.constant[0]]
            roundoff = Fraction(torch.finfo(dtype).eps) / 2
            for value, c in zip(values, (3 * size, -size, size / 2, size / 8), strict=True):
                assert abs(Fraction(value.item()) * found.unit[0] - c) <= 2 * roundoff * abs(c)
            unit = found.unit[0]
            assert unit > 0
            assert 1 in (unit.numerator, unit.denominator)
            assert (unit.numerator * unit.denominator).bit_count() == 1
        assert found.undo_unit(0, 1.0) == (float("inf") if size > 10**300 else float(found.unit[0]))
        assert found.undo_unit(0, -1.0) == -found.undo_unit(0, 1.0)


@pytest.mark.parametrize("small", [Fraction(1, 10**60), Fraction(1, 10**400)])
def test_a_row_whose_numbers_do_not_fit_the_dtype_is_never_refuted(small: Fraction) -> None:
    mixed = LinearConstraint({0: Fraction(1), 1: small}, {}, Fraction(5))
    single = rows([mixed], like=torch.empty(()))
    assert single.constant.isnan().all()
    bound = single.image(Zonotope.from_box(torch.zeros(1, 2), torch.ones(1, 2)), _outputs()).bounds()[0]
    assert single.refuted(bound[0]) == [False]
    assert rows([mixed]).constant.isnan().all() == (small < Fraction(1, 10**308))


def _outputs() -> Zonotope:
    return Zonotope.from_box(torch.zeros(1, 3), torch.ones(1, 3))
