"""Graphs that follow their module, and the module's graph in loops.

A traced module bakes in two kinds of things. Its *structure* (flags, attributes, submodules, code) is compared with
what it was, by :mod:`zonocuda.importers.aten.fingerprint`; where it changed, the module is imported anew. Its *numbers*
are parameters and buffers. Operators hold most of them as they are. Those from which others are derived (statistics of
a batch normalisation, weights that are normalised, indices) are kept as copies and compared number by number, which no
way of writing to a tensor escapes (optimisers, ``.data``, ``load_state_dict``, numpy); where one changed, or where
gradients are recorded, everything is derived again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zonocuda.graph import Graph
from zonocuda.importers.aten.fingerprint import Fingerprint
from zonocuda.importers.aten.trace import LOCK
from zonocuda.importers.errors import UnsupportedNetworkError
from zonocuda.precision import plain_torch


@dataclass(frozen=True, eq=False)
class Imported:
    """A module as it was imported.

    Attributes:
        graph: its graph, without an origin and without gradients.
        leaves: the parameters, buffers and constants that the trace reads, by name.
        derived: names of those from which numbers of the graph are derived.
        fetch: the leaves of a module now, by name.
        derive: the graph of other leaves of the same types and shapes.
        structure: what else the trace depends on; what the module's own calls change is unknown.
    """

    graph: Graph
    leaves: Mapping[str, Tensor]
    derived: frozenset[str]
    fetch: Callable[[nn.Module], Mapping[str, Tensor]]
    derive: Callable[[Mapping[str, Tensor]], Graph]
    structure: Fingerprint


class ModuleOrigin:
    """A module, and its graph as of the last time that somebody asked.

    The module is not kept alive; when it is gone, its last parameters go on.
    """

    def __init__(self, model: nn.Module, load: Callable[[nn.Module], Imported]) -> None:
        self._model = weakref.ref(model)
        self._load = load
        self._take(load(model))

    def _take(self, imported: Imported) -> None:
        self._imported, self._graph, self._leaves = imported, imported.graph, imported.leaves
        self._copies = {name: imported.leaves[name].detach().clone() for name in imported.derived}

    @property
    def is_certain(self) -> bool:
        """Whether all that the trace depends on can be compared."""
        return not self._imported.structure.unknown

    def current(self) -> Graph:
        """The graph of the module as it is now.

        Raises:
            UnsupportedNetworkError, NetworkMismatchError: the module changed, and cannot be imported as it is now.
        """
        with LOCK, plain_torch():
            model = self._model()
            if model is not None:
                changed = self._imported.structure.difference(Fingerprint.of(model))
                if changed is not None:
                    self._reload(model, changed)
                self._follow(self._imported.fetch(model))
            if self._records_gradients():  # autograd frees what it has used: the next call needs its own
                return self._imported.derive(self._leaves)
            if self._numbers_changed():
                self._graph = self._imported.derive(self._leaves)
                self._copies = {name: self._leaves[name].detach().clone() for name in self._copies}
            return self._graph

    def _reload(self, model: nn.Module, changed: str) -> None:
        try:
            self._take(self._load(model))
        except UnsupportedNetworkError as error:
            raise UnsupportedNetworkError(f"{error} (since its graph was made {changed!r} changed)") from error

    def _follow(self, leaves: Mapping[str, Tensor]) -> None:
        """Takes over parameters that were replaced by others."""
        if any(leaves[name] is not leaf for name, leaf in self._leaves.items()):
            self._leaves = leaves
            with torch.no_grad():
                self._graph = self._imported.derive(leaves)

    def _records_gradients(self) -> bool:
        return torch.is_grad_enabled() and any(self._leaves[name].requires_grad for name in self._copies)

    def _numbers_changed(self) -> bool:
        return any(not torch.equal(self._leaves[name], copy) for name, copy in self._copies.items())


@dataclass
class _Entry:
    """The graphs of one module, by input shape."""

    module: weakref.ref[nn.Module]
    graphs: dict[tuple[int, ...], Graph] = field(default_factory=dict)


_ENTRIES: dict[int, _Entry] = {}


def remembered(
    model: nn.Module, input_shape: tuple[int, ...], load: Callable[[nn.Module, tuple[int, ...]], Graph]
) -> Graph:
    """The graph of a module for inputs ``[B, *input_shape]``, imported when it is first asked for and followed since.

    Only what can be compared as a whole is remembered: see :mod:`zonocuda.importers.aten.fingerprint`. Other modules
    are imported every time. What is remembered goes when the module goes.
    """
    with LOCK:
        entry = _ENTRIES.get(id(model))
        if entry is None or entry.module() is not model:
            key = id(model)
            entry = _Entry(weakref.ref(model, lambda gone: _forget(key, gone)))
        if input_shape in entry.graphs:
            return entry.graphs[input_shape]
        graph = load(model, input_shape)
        if isinstance(graph.origin, ModuleOrigin) and graph.origin.is_certain:
            _ENTRIES[id(model)] = entry
            entry.graphs[input_shape] = graph
        return graph


def _forget(key: int, gone: weakref.ref[nn.Module]) -> None:
    with LOCK:
        if key in _ENTRIES and _ENTRIES[key].module is gone:
            del _ENTRIES[key]
