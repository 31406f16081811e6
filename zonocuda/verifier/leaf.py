"""What parts of a search by neurons are bounded by besides the ascent, and counterexamples of mixed programs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import torch

from zonocuda.branch import SignOutcome
from zonocuda.prove.mixed_program import least_point
from zonocuda.prove.sign_forms import SignForms
from zonocuda.verifier.falsify import Counterexample

if TYPE_CHECKING:
    from zonocuda.verifier.neuron_search import NeuronCourse

Leaf = Literal["lp", "milp", "none"]
LEAVES: tuple[Leaf, ...] = get_args(Leaf)

SHARE = 0.25
"""Of the time that is left, what mixed programs may take."""


def with_mixed(course: NeuronCourse, outcome: SignOutcome[Counterexample]) -> SignOutcome[Counterexample]:
    """What a short search on the whole box found, or a counterexample where a mixed program of an open disjunct has its
    least point, if such programs are wanted and small enough."""
    if course.search.leaf != "milp" or course.rounds or not course.goes_on(outcome):
        return outcome
    problem = course.rows_on(course.intermediate).problem
    if not SignForms.fit(problem):
        return outcome
    assert course.tree is not None, "a search was begun"
    forms, groups = SignForms(problem), sorted(set(course.tree.pool.parts.group.tolist()))
    for done, number in enumerate(groups):
        seconds = SHARE * course.left / (len(groups) - done)
        point = least_point(forms, course.members[number], seconds) if seconds > 0 else None
        if point is not None:
            found = course.search.attack(torch.from_numpy(point).to(problem.like).unsqueeze(0))
            if found is not None:
                return replace(outcome, found=found)
    return outcome
