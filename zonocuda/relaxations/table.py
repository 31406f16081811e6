"""Which rule an activation has: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zonocuda.graph import Bilinear, Elementary, Graph, Node, Op, Relu, Staircase
from zonocuda.relaxations.bilinear import BilinearRule
from zonocuda.relaxations.elementary import elementary_rule
from zonocuda.relaxations.relu import ReluRule
from zonocuda.relaxations.rule import Rule
from zonocuda.relaxations.steps import StepRule

RULES: dict[type[Op], Callable[[Any], Rule]] = {
    Elementary: elementary_rule,
    Relu: lambda op: ReluRule(),
    Staircase: lambda op: StepRule(op),
    Bilinear: lambda op: BilinearRule(op.terms, op.most),
}
"""By the type of an operator, its rule, made for the operator."""


def has_rule(node: Node) -> bool:
    """Whether a node is an activation."""
    return type(node.op) in RULES


def rule_of(node: Node) -> Rule:
    """The rule of a node.

    Raises:
        NotImplementedError: its operator has none.
    """
    if not has_rule(node):
        raise NotImplementedError(f"relaxations: node {node.name!r} (op {node.op.kind}) has no rule")
    return RULES[type(node.op)](node.op)


def activations(graph: Graph) -> tuple[Node, ...]:
    """The nodes that have a rule, in order."""
    return tuple(node for node in graph.nodes if has_rule(node))
