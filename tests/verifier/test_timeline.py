"""The history of a verification: the margin and the open parts against time."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest

from tests.verifier.checkpoint_cases import CASES, small_batches
from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import sample_box
from zonocuda.prove import timeline
from zonocuda.prove.timeline import Moment, Moments, Timeline
from zonocuda.verifier import verify

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")


@pytest.mark.parametrize("name", ["input", "neuron"])
def test_a_search_is_in_the_history_from_the_whole_box_to_the_end(name: str) -> None:
    make, options = CASES[name]
    graph, problem = make()
    with small_batches(name):
        result = verify(graph, problem, device="cpu", timeout=60.0, **options)
    assert result.verified
    history = result.history
    seconds = [moment.seconds for moment in history]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= result.seconds["total"]
    assert {moment.phase for moment in history} == {"bounds", name}
    assert {moment.region for moment in history} == {0}
    whole = [moment for moment in history if moment.phase == "bounds"]
    assert all(moment.open == 1 for moment in whole), "the box alone is not enough"
    assert whole[-1].margin == result.margin
    assert [m.margin for m in whole] == sorted(m.margin for m in whole), "bounds only improve"
    (region,) = problem.regions
    (row,) = region.disjuncts[0]
    points = sample_box(region.box.lower.double(), region.box.upper.double(), 20, seed=1)
    values = [evaluate(graph, exactly(x)) for x in points]
    least = min(sum(Fraction(w) * y[i] for i, w in row.outputs.items()) + Fraction(row.constant) for y in values)
    assert all(Fraction(m.margin) <= least for m in history if m.open and math.isfinite(m.margin))
    assert max(moment.open for moment in history) > 1
    assert (history[-1].open, history[-1].margin) == (0, math.inf)
    (line, *_) = history.plot().get_lines()
    assert len(line.get_xdata()) == sum(math.isfinite(moment.margin) for moment in history)


def test_few_moments_are_kept_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(timeline.time, "monotonic", lambda: now)
    found, asked = Timeline(began=0.0), 0

    def worst() -> float:
        nonlocal asked
        asked += 1
        return -1.0

    found.note("bounds", 1, -2.0)
    watch = found.watch("input")
    for step in range(20_000):
        now = step / 100
        watch(step, worst)
    moments = found.moments
    assert timeline.MOST / 2 <= len(moments) <= timeline.MOST
    assert asked < 8 * timeline.MOST, "what is thrown away is not asked for"
    assert moments[0] == Moment(0.0, 0, "bounds", 1, -2.0)
    assert moments[-1].seconds > 198
    gaps = [b.seconds - a.seconds for a, b in pairwise(moments)]
    assert max(gaps) < 200 / timeline.MOST * 6, "no stretch of it is missing"
    assert isinstance(moments, Moments)
