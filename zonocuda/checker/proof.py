"""One region's proof: combinations of rows, then bounds of rows on the whole box, or on every leaf of trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb

from zonocuda.archive import Archive
from zonocuda.checker.arithmetic import balls
from zonocuda.checker.certificate import CertificateError, forest_arrays, region_claim
from zonocuda.checker.claims import RegionClaim
from zonocuda.checker.combinations import read_combinations
from zonocuda.checker.derive import Derivation, RootDerivation
from zonocuda.checker.exact import Disagreement, Sample
from zonocuda.checker.execution import box_of, sized
from zonocuda.checker.forest import read_forest
from zonocuda.checker.maps import Maps, attained
from zonocuda.checker.parallel import Work
from zonocuda.checker.region import Progress, RegionCheck, is_within
from zonocuda.checker.rows import Row
from zonocuda.checker.sets import FloatNet, Sets
from zonocuda.checker.trees import ForestCheck
from zonocuda.specs import LinearConstraint, Region

SHARE = 1 / 1000
"""Of the rows that are carried in balls, too."""
MOST = 32
"""Rows of a region that are, at most."""

MISSED = "claimed bounds of neurons not reached"

Rows = Sequence[LinearConstraint]


class NotProven(Exception):  # noqa: N818 - it is an outcome, not an error
    """Why a region is not proven safe."""


class Unsound(NotProven):
    """Nothing that this machine computes in floats proves anything."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Where arrays are, whether everything is computed in balls, who is told how far it is, and who does the work."""

    archive: Archive | None = None
    exact: bool = False
    progress: Progress = lambda phase, done, total: None
    work: Work = field(default_factory=Work)


class Network:
    """A network in balls, and in float64 where that is asked for."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps

    @cached_property
    def floats(self) -> FloatNet:
        """The operators in float64."""
        return FloatNet(self.maps)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of neurons of every ReLU, in order."""
        return {node.name: self.maps.size[node.name] for node in self.maps.graph.relus}


def region_proof(network: Network, region: Region, entry: object, sources: Sources) -> str:
    """What proves a region safe, in one line.

    Raises:
        NotProven: nothing does.
        CertificateError: what the certificate has for it is malformed.
    """
    box = region.box
    lower, upper = box_of(box, network.maps.execution)
    if bool((lower > upper).any()) and not box.has_nan:
        return "the box is empty"
    if not all(bool(end.isfinite().all()) for end in (lower, upper, box.lower, box.upper)):
        raise NotProven("the box is not bounded")
    if not region.disjuncts:
        return "no output is unsafe"
    if not isinstance(entry, dict):
        raise NotProven("the certificate has no slopes for it")
    disjuncts = _left(network, region, entry)
    if not disjuncts:
        return "combinations of rows refute every disjunct"
    if entry.get("forest") is not None:
        return _split(network, region, entry, list(disjuncts.values()), sources)
    return _bounded(network, region, _claim(network, entry, sources.archive), disjuncts, sources)


def _claim(network: Network, entry: object, archive: Archive | None) -> RegionClaim:
    return region_claim(entry, network.maps.layers, network.maps.size, archive)


def _left(network: Network, region: Region, entry: object) -> dict[int, Rows]:
    """The disjuncts that combinations of rows do not refute, with the rows that they add."""
    combinations = read_combinations(entry, region)
    maps = network.maps
    lower, upper = (end.tolist() for end in box_of(region.box, maps.execution))
    ends = balls(()), balls(())
    if any(one.refutes and one.outputs for one in combinations):
        known = attained(maps, (balls(lower), balls(upper)))
        _refuse(maps.overflow(lambda name: sized(*known[name])))
        ends = known[maps.graph.output]
        if maps.execution is not None:
            ends = maps.execution.stored(*ends)
    disjuncts: dict[int, Rows] = dict(enumerate(region.disjuncts))
    for one in combinations:
        if not one.refutes:
            disjuncts[one.disjunct] = (*disjuncts[one.disjunct], one.row(region))
        elif one.is_refuted(region, (lower, upper), ends):
            del disjuncts[one.disjunct]
        else:
            raise CertificateError(f"the combination of rows of disjunct {one.disjunct} refutes nothing")
    return disjuncts


def _refuse(reason: str) -> None:
    if reason:
        raise NotProven(reason)


def _bounded(network: Network, region: Region, claim: RegionClaim, disjuncts: dict[int, Rows], sources: Sources) -> str:
    """A proof by bounds on the whole box: in float64, and in balls where that leaves it open, or they are asked for, or
    not all activations are ReLUs."""
    rows = list({row: None for disjunct in disjuncts.values() for row in disjunct})
    if not all(0 <= number < len(rows) for number in claim.rows):
        raise CertificateError("rows[].row is no row of the specification")
    if not sources.exact and network.maps.is_piecewise:
        try:
            with np.errstate(all="ignore"):
                return _refuted(*_in_floats(network, region, claim, rows, sources), claim, rows, disjuncts)
        except Unsound:
            raise
        except NotProven:
            pass  # by little, perhaps
    return _refuted(*_in_balls(network, region, claim, rows, sources), claim, rows, disjuncts)


Bounds = tuple[dict[LinearConstraint, Any], str]
"""Of rows, as balls, and how they were found."""


def _in_balls(network: Network, region: Region, claim: RegionClaim, rows: Rows, sources: Sources) -> Bounds:
    again = RegionCheck(network.maps, region, claim, sources.progress, sources.work)
    _refuse(again.overflow)
    bounds = {rows[number]: again.row_bound(rows[number], one) for number, one in claim.rows.items()}
    return bounds, f"{again.passes} rows carried in balls, {again.missed} {MISSED}"


def _in_floats(network: Network, region: Region, claim: RegionClaim, rows: Rows, sources: Sources) -> Bounds:
    lower, upper = (end.numpy()[None] for end in box_of(region.box, network.maps.execution))
    sample = Sample(network.maps, SHARE, MOST)
    root = RootDerivation(network.floats, lower, upper, claim, sample, sources.progress, sources.work)
    with _believed():
        sets = root.run()
        _refuse(_overflow(network, sets))
        found = root.row_bounds([(Row.of(root.net, rows[number]), one) for number, one in claim.rows.items()])
    bounds = {rows[number]: arb(bound) for number, bound in zip(claim.rows, found, strict=True)}
    missed = 0
    for name, one in claim.activations.items():
        low, high = (end[0, one.neurons].tolist() for end in (sets.relus[name].low, sets.relus[name].high))
        missed += sum(not is_within(one, k, *ends) for k, ends in enumerate(zip(low, high, strict=True)))
    carried = f"{root.passes} rows carried, {sample.confirmed} of them also in balls"
    return bounds, f"{carried}, {missed} {MISSED}"


def _refuted(
    bounds: dict[LinearConstraint, Any],
    how: str,
    claim: RegionClaim,
    rows: list[LinearConstraint],
    disjuncts: dict[int, Rows],
) -> str:
    """That every disjunct has a row whose bound refutes it, in one line; raises NotProven."""
    worst: tuple[float, float, LinearConstraint] | None = None
    for number, disjunct in disjuncts.items():
        proven = [row for row in disjunct if row in bounds and _never(row, bounds[row])]
        if not proven:
            known = [f"{float(bounds[row].mid()):.6g}" for row in disjunct if row in bounds]
            raise NotProven(f"disjunct {number} is not refuted (bounds found: {', '.join(known) or 'none'})")
        best = max(proven, key=lambda row: float(bounds[row].mid()))
        found, claimed = float(bounds[best].mid()), claim.rows[rows.index(best)].lower
        if worst is None or found < worst[0]:
            worst = found, claimed, best
    assert worst is not None, "there are disjuncts"
    return f"worst bound {worst[0]:.9g}, claimed {worst[1]:.9g} ({worst[2]}); {how}"


@contextmanager
def _believed() -> Iterator[None]:
    """Raises NotProven, for good, where the machine's floats turn out to be others than is assumed."""
    try:
        yield
    except Disagreement as error:
        raise Unsound(f"the arithmetic of this machine is not what is assumed of it: {error}") from error


def _overflow(network: Network, sets: Sets) -> str:
    """Why values may overflow on a box whose bounds were derived."""
    return network.maps.overflow(lambda name: balls(sets.sizes[name][0].tolist()))


def _never(row: LinearConstraint, bound: Any) -> bool:
    """Whether a row with a lower bound never holds; false for NaN, and for an infinity."""
    return bool(bound > 0 or (row.strict and bound >= 0)) and bool(bound < arb("inf"))


def _split(network: Network, region: Region, entry: dict[str, Any], disjuncts: list[Rows], sources: Sources) -> str:
    """A proof by trees."""
    net, archive = network.floats, sources.archive
    box = tuple(end.numpy() for end in box_of(region.box, network.maps.execution))
    sample = Sample(network.maps, 1.0, np.inf) if sources.exact else Sample(network.maps, SHARE, MOST)
    arrays = {**forest_arrays(entry["forest"], archive), "trees": entry.get("trees")}
    relus, others = list(network.sizes.values()), [net.size[node.inputs[0]] for node in net.split[len(net.relus) :]]
    forest = read_forest(arrays, relus, len(box[0]), len(disjuncts), others)
    root: Sets | None = None
    if entry.get("activations"):
        if not network.maps.is_piecewise:
            raise CertificateError("forest: activations beside ReLUs have no bounds of a whole box beside a forest")
        claim = _claim(network, entry, archive)
        with np.errstate(all="ignore"), _believed():
            ends = box[0][None], box[1][None]
            root = RootDerivation(net, *ends, claim, sample, sources.progress, sources.work).run()
    if network.maps.execution is not None:
        with np.errstate(all="ignore"):
            _refuse(_overflow(network, root or Derivation(net, box[0][None], box[1][None]).run()))
    check = ForestCheck(net, (box[0], box[1]), disjuncts, forest, root, sample, sources.progress, sources.work)
    with _believed():
        _refuse(check.run())
    return (
        f"{check.leaves} leaves, {len(forest.lemmas)} lemmas; worst bound {check.worst:.9g}; rows proven in float64 "
        f"{check.closed[0]}, in balls {check.closed[1]}; {sample.confirmed} rows confirmed in balls"
    )
