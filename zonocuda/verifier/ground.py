"""A region of a network as it is sent to workers, and what they make of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from zonocuda.bounds.rounding.executed import Execution
from zonocuda.domains import Backend, use_backend
from zonocuda.graph import Graph
from zonocuda.graph.ops import Shape
from zonocuda.precision import check_arithmetic, confirm_arithmetic, full_precision, plain_torch
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Region
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.model import Subject
from zonocuda.verifier.sharing import Packet
from zonocuda.version import __version__

CPU = torch.device("cpu")
MOST_SUSPECTS = 16
"""Points of a packet that does not stop at the first."""


def _versions() -> dict[str, str]:
    return {"zonocuda": __version__, "torch": str(torch.__version__)}


@dataclass(frozen=True, eq=False)
class Ground:
    """All that bounds of a region's rows depend on.

    Attributes:
        graph: the network, as bounds are computed on it.
        region, position: the region, and its place in the specification.
        dtypes: to compute in.
        device: where.
        backend: ``native`` or ``reference``.
        execution: for a network as a machine executes it.
        replay_dtype, rounded_box: of the subject: how a counterexample is replayed.
        memory: bytes that open parts may take.
        versions: of the programs, which a worker must have, too.
        key: a name for it, of this run alone.
    """

    graph: Graph
    region: Region
    position: int
    dtypes: tuple[torch.dtype, ...]
    device: str
    backend: Backend
    execution: Execution | None
    replay_dtype: torch.dtype
    rounded_box: bool
    memory: int
    versions: dict[str, str] = field(default_factory=_versions)
    key: str = field(default_factory=lambda: os.urandom(16).hex())

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Inside, torch computes as bounds need it; what was computed inside is believed where this ends well.

        Raises:
            ValueError: other programs than those of the search.
            ArithmeticChangedError: arithmetic that no proof accounts for.
        """
        own = _versions()
        if own != self.versions:
            raise ValueError(f"the worker has other programs, {own}, than the search, {self.versions}")
        where = torch.device(self.device)
        with plain_torch(), torch.no_grad(), use_backend(self.backend), full_precision():
            check_arithmetic(where)
            yield
            confirm_arithmetic(where)

    def arithmetic(self, dtype: torch.dtype) -> Arithmetic:
        """The network in a dtype, made once."""
        if dtype not in self._arithmetics:
            self._arithmetics[dtype] = Arithmetic.of(self.graph, dtype, torch.device(self.device), self.execution)
        return self._arithmetics[dtype]

    @cached_property
    def _arithmetics(self) -> dict[torch.dtype, Arithmetic]:
        return {}

    @cached_property
    def subject(self) -> Subject:
        """The graph, which replays counterexamples in the stead of the network: the search has the last word."""
        single, dtype = self.graph.to(self.replay_dtype, CPU), self.replay_dtype
        subject = Subject(self.graph, lambda x: single(x.to(dtype)), lambda lower, upper: None, "graph")
        return replace(subject, dtype=dtype, rounded_box=self.rounded_box)

    @cached_property
    def search_graph(self) -> Graph:
        """The network in float32, where counterexamples are sought."""
        return self.graph.to(torch.float32, self.device)


class Suspects:
    """Hands points to an attack, and what it finds to nobody where a packet does not stop at it."""

    def __init__(self, attack: Callable[[Tensor], Counterexample | None], packet: Packet) -> None:  # type: ignore[type-arg]
        self.attack, self.stops = attack, packet.stops
        self.found: list[Tensor] = []

    def __call__(self, points: Tensor) -> Counterexample | None:
        """What makes the search end."""
        found = self.attack(points)
        if found is not None and len(self.found) < MOST_SUSPECTS:
            self.found.append(found.x)
        return found if self.stops else None

    def points(self, shape: Shape) -> Tensor:
        """All of them, ``[n, *shape]``, the shape of an input."""
        return torch.stack(self.found) if self.found else torch.zeros(0, *shape)
