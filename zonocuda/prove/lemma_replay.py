"""Lemmas that a search has found, once more, as they are written down.

Each leaf is bounded once, with the slopes and multipliers that the search had, rounded; what a lemma says is what its
leaves prove now. It is the least of them: most leaves prove more, with slopes that others have, too, and these are then
written down once (:func:`shared`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.dual_pass import Visit, flatten_rows
from zonocuda.bounds.dual.slopes import free_neurons
from zonocuda.bounds.interval import Bounds
from zonocuda.prove.lemmas import ROWS, LemmaLayer
from zonocuda.prove.sign_merge import merged
from zonocuda.prove.sign_record import LemmaProof, SignLeaves, known_signs, start_units
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import activations

Floats = NDArray[np.float64]
Least = Callable[[SignLeaves], Floats]
"""Bounds ``[L]`` of leaves, with the slopes and multipliers that they have."""


def replay_lemmas(
    arithmetics: Sequence[Arithmetic],
    boxes: Sequence[Bounds],
    intermediate: Mapping[str, Bounds],
    proofs: Sequence[LemmaProof],
    on_node: Visit,
    record: Callable[[LemmaProof], None],
) -> dict[str, Bounds]:
    """Bounds ``[1, *features]`` of the input of every activation, no looser than they were.

    Args:
        arithmetics, boxes, on_node: as in :func:`zonocuda.prove.lemmas.find_lemmas`.
        intermediate: bounds to begin with.
        proofs: of lemmas, in any order.
        record: is given those that improve a bound, in the order of the network.
    """
    graph, known = arithmetics[0].graph, dict(intermediate)
    by_name: dict[str, list[LemmaProof]] = {}
    for proof in proofs:
        by_name.setdefault(proof.name, []).append(proof)
    for node in activations(graph):
        if node.name not in by_name:
            continue
        left = compact(graph, known)
        layer = _Replay(arithmetics, boxes, left, left.graph[node.name], on_node, lambda: True)
        for found in layer.again(by_name[node.name], known_signs(graph, known)):
            record(found)
        known = left.widen(layer.intermediate)
    return known


class _Replay(LemmaLayer):
    """The lemmas of the input of one activation."""

    written = True

    def again(self, proofs: Sequence[LemmaProof], known: NDArray[np.int8]) -> Iterator[LemmaProof]:
        """Those of ``proofs`` that improve a bound still: for each bound the best one."""
        free = free_neurons(self.node, self.left.intermediate[self.node.name])
        neurons = self.neurons(free)
        index = free[torch.isin(neurons, torch.tensor([one.neuron for one in proofs], device=free.device))]
        if not len(index):
            return
        self.begin(index)
        place = {neuron: k for k, neuron in enumerate(self.neurons(index).tolist())}
        start, columns, trees = start_units(self.bounder.problem), self.columns, []
        for one in proofs:
            if one.neuron in place:
                own = one.leaves.onto(columns, start, known)
                row = place[one.neuron] + len(index) * one.upper
                trees.append(replace(own, row=np.full(len(own.row), row)))
        trees, least = shared([tree for tree in trees if len(tree.row)], self.least)
        best: dict[int, int] = {}
        for number, bound in enumerate(least.tolist()):
            row = int(trees[number].row[0])
            if np.isfinite(bound) and (row not in best or bound > least[best[row]]):
                best[row] = number
        rows = sorted(best)
        bounds = torch.from_numpy(least[[best[row] for row in rows]]).to(self.bounder.problem.like)
        self.note(torch.tensor(rows, device=index.device, dtype=torch.int64), bounds)
        lower, upper = (flatten_rows(b)[0, index].tolist() for b in self.left.intermediate[self.node.name])
        whole, count = self.neurons(index).tolist(), len(index)
        for row, bound in zip(rows, bounds.tolist(), strict=True):
            k, is_upper = row % count, row >= count
            if bound > (-upper[k] if is_upper else lower[k]):
                yield LemmaProof(self.node.name, whole[k], is_upper, trees[best[row]])

    def least(self, leaves: SignLeaves) -> Floats:
        """Bounds of leaves."""
        parts = leaves.parts(self.bounder.problem.like)
        runs = [slice(first, first + ROWS) for first in range(0, len(leaves.row), ROWS)]
        found = [self.bounder.as_it_is(parts.at(run)).parts.bound for run in runs]
        return torch.cat([parts.bound[:0], *found]).double().cpu().numpy()


def shared(trees: Sequence[SignLeaves], least: Least) -> tuple[list[SignLeaves], Floats]:
    """Smaller trees that prove as much with fewer slopes, and what each proves: the least bound of its leaves.

    A leaf that proves no less than that with the slopes of its tree's worst leaf has these.
    """
    if not trees:
        return [], np.zeros(0)
    runs, owner = _runs(trees)
    bounds = least(SignLeaves.cat(trees))
    goal = np.array([bounds[first:last].min() for first, last in runs])
    some = merged(trees, lambda leaves, number: least(leaves) >= goal[number])
    same = np.array([after is before for after, before in zip(some, trees, strict=True)])
    held, (runs, place) = bounds[same[owner]], _runs(some)
    every, bounds = SignLeaves.cat(some), np.empty(len(place))
    bounds[same[place]], owner = held, place
    changed = np.flatnonzero(~same[owner])
    if len(changed):
        bounds[changed] = least(every.at(changed))
    worst = np.array([first + int(bounds[first:last].argmin()) for first, last in runs])
    slopes, left = every.slopes.copy(), np.flatnonzero(bounds > bounds[worst][owner])
    new = slopes[worst[owner[left]]]
    ok = least(replace(every.at(left), slopes=new)) >= goal[owner[left]]
    slopes[left[ok]] = new[ok]
    found = replace(every, slopes=slopes)
    return [found.at(np.arange(first, last)) for first, last in runs], goal


def _runs(trees: Sequence[SignLeaves]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Where the leaves of each tree begin and end among those of all of them, and the tree of each."""
    counts = [len(tree.row) for tree in trees]
    return list(pairwise([0, *np.cumsum(counts).tolist()])), np.repeat(np.arange(len(trees)), counts)
