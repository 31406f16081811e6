"""Branch and bound: which parts of a problem are open, what to split, in which order. It knows no bound method."""

from zonocuda.branch.choice import CHOICES, Choice, Estimate, worst_bound
from zonocuda.branch.neurons import SignOutcome, SignSearch, SignSettings, deepen, refuted
from zonocuda.branch.queue import MEMORY
from zonocuda.branch.record import RecordedTree, Recorder
from zonocuda.branch.search import Bounded, Bounder, Outcome, SearchStopped, Settings, search
from zonocuda.branch.signs import SignBounded, SignBounder, SignParts
from zonocuda.branch.subproblems import Subproblems

__all__ = [
    "CHOICES",
    "MEMORY",
    "Bounded",
    "Bounder",
    "Choice",
    "Estimate",
    "Outcome",
    "RecordedTree",
    "Recorder",
    "SearchStopped",
    "Settings",
    "SignBounded",
    "SignBounder",
    "SignOutcome",
    "SignParts",
    "SignSearch",
    "SignSettings",
    "Subproblems",
    "deepen",
    "refuted",
    "search",
    "worst_bound",
]
