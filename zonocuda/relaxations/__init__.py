"""One rule for each activation: everything that bounds need to know of it. See :mod:`zonocuda.relaxations.rule`."""

from zonocuda.relaxations.relu import use_kink
from zonocuda.relaxations.rule import Band, Bounds, Counted, DualImage, Growth, Lines, Rule, Start
from zonocuda.relaxations.table import RULES, activations, has_rule, rule_of

__all__ = [
    "RULES",
    "Band",
    "Bounds",
    "Counted",
    "DualImage",
    "Growth",
    "Lines",
    "Rule",
    "Start",
    "activations",
    "has_rule",
    "rule_of",
    "use_kink",
]
