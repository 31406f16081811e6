"""Branch and bound: which parts of a problem are open, what to split, in which order. It knows no bound method."""

from zonocuda.branch.choice import CHOICES, Choice, Estimate, worst_bound
from zonocuda.branch.neurons import SignOutcome, SignSearch, SignSettings, SignState, deepen, refuted
from zonocuda.branch.points import PointParts
from zonocuda.branch.queue import MEMORY
from zonocuda.branch.record import RecordedTree, Recorder, RecorderState, best_rows
from zonocuda.branch.search import Bounded, Bounder, Keep, Outcome, SearchState, SearchStopped, Settings, search
from zonocuda.branch.signs import PartBounder, SignBounded, SignBounder, SignParts
from zonocuda.branch.subproblems import Subproblems

__all__ = [
    "CHOICES",
    "MEMORY",
    "Bounded",
    "Bounder",
    "Choice",
    "Estimate",
    "Keep",
    "Outcome",
    "PartBounder",
    "PointParts",
    "RecordedTree",
    "Recorder",
    "RecorderState",
    "SearchState",
    "SearchStopped",
    "Settings",
    "SignBounded",
    "SignBounder",
    "SignOutcome",
    "SignParts",
    "SignSearch",
    "SignSettings",
    "SignState",
    "Subproblems",
    "best_rows",
    "deepen",
    "refuted",
    "search",
    "worst_bound",
]
