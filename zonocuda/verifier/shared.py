"""What the entrances of bounds ask where symbols are shared out over ranks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zonocuda.checkpoint import digest
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph


def check_ranks(caller: str, graph: Graph, zonotope: Zonotope, given: Mapping[str, Tensor]) -> None:
    """Compares what the ranks were given, where the zonotope is shared out over some; a collective then.

    Args:
        caller: for the message.
        graph: the network.
        zonotope: its center; of the generators each rank has others.
        given: other numbers, by what they are.

    Raises:
        ValueError: the ranks were given different things: a sum over them would be no bound of anything.
    """
    if zonotope.ranks is not None:
        things = [("networks", digest(graph)), ("inputs", digest(zonotope.center)), ("arguments", digest(dict(given)))]
        zonotope.ranks.check(caller, things, zonotope.center.device)
