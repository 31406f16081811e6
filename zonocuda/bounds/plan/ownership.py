"""Which zonotopes of a sweep may be overwritten: those whose memory is theirs alone and which nobody needs again."""

from __future__ import annotations

from zonocuda.bounds.transform import allocates
from zonocuda.graph import Graph, Input, Node


class Ownership:
    """Says for each node, in the order of the sweep, whether its inputs' generators may be overwritten.

    A value *owns* its generators where no other value lies in the same memory: it was allocated for it, or its inputs
    owned theirs and died with it. A value loses what it owns to an image in the same memory that does not replace it, a
    reshape, say, of a value that is needed again. Overwriting needs inputs that own their generators and are used here
    for the last time. The network's input belongs to the caller and is never overwritten; nor is anything where
    ``enabled`` is false, as it must be while gradients are recorded or values are kept.
    """

    def __init__(self, graph: Graph, enabled: bool) -> None:
        self._enabled = enabled
        self._owned: set[str] = set()
        self._last_use = graph.last_use

    def may_overwrite(self, node: Node) -> bool:
        """Whether ``node`` may overwrite its inputs' generators; also settles what its own value owns."""
        names = node.inputs
        dying = len(set(names)) == len(names) and all(self._last_use[name] == node.name for name in names)
        overwrite = self._enabled and dying and all(name in self._owned for name in names)
        if overwrite or (not isinstance(node.op, Input) and allocates(node.op)):
            self._owned.add(node.name)
        else:  # the value may lie in its inputs' memory, and lives beside them
            self._owned.difference_update(names)
        return overwrite
