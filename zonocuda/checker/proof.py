"""One region's proof: combinations of rows, then bounds of rows on the whole box, or on every leaf of trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zonocuda.archive import Archive
from zonocuda.checker.arithmetic import balls
from zonocuda.checker.certificate import CertificateError, RegionClaim, forest_arrays, region_claim
from zonocuda.checker.combinations import read_combinations
from zonocuda.checker.derive import RootDerivation
from zonocuda.checker.exact import Disagreement, Sample
from zonocuda.checker.forest import read_forest
from zonocuda.checker.maps import Ends, Maps, attained
from zonocuda.checker.region import Progress, RegionCheck
from zonocuda.checker.sets import FloatNet, Sets
from zonocuda.checker.trees import ForestCheck
from zonocuda.specs import LinearConstraint, Region

SHARE = 1 / 1000
"""Of the rows that are carried in balls, too."""
MOST = 32
"""Rows of a region that are, at most."""

Rows = Sequence[LinearConstraint]


class NotProven(Exception):  # noqa: N818 - it is an outcome, not an error
    """Why a region is not proven safe."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Where arrays are, whether everything is computed in balls, who is told how far it is, and how many processes
    there are."""

    archive: Archive | None = None
    exact: bool = False
    progress: Progress = lambda phase, done, total: None
    jobs: int = 1


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
    if box.is_empty and not box.has_nan:
        return "the box is empty"
    if not bool((box.lower.isfinite() & box.upper.isfinite()).all()):
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
    return _bounded(network, region, region_claim(entry, network.sizes, sources.archive), disjuncts, sources)


def _left(network: Network, region: Region, entry: object) -> dict[int, Rows]:
    """The disjuncts that combinations of rows do not refute, with the rows that they add."""
    combinations = read_combinations(entry, region)
    ends: Ends = (balls(()), balls(()))
    if any(one.refutes and one.outputs for one in combinations):
        ends = attained(network.maps, (balls(region.box.lower.tolist()), balls(region.box.upper.tolist())))
    disjuncts: dict[int, Rows] = dict(enumerate(region.disjuncts))
    for one in combinations:
        if not one.refutes:
            disjuncts[one.disjunct] = (*disjuncts[one.disjunct], one.row(region))
        elif one.is_refuted(region, ends):
            del disjuncts[one.disjunct]
        else:
            raise CertificateError(f"the combination of rows of disjunct {one.disjunct} refutes nothing")
    return disjuncts


def _bounded(network: Network, region: Region, claim: RegionClaim, disjuncts: dict[int, Rows], sources: Sources) -> str:
    """A proof by bounds on the whole box."""
    rows = list({row: None for disjunct in disjuncts.values() for row in disjunct})
    if not all(0 <= number < len(rows) for number in claim.rows):
        raise CertificateError("rows[].row is no row of the specification")
    again = RegionCheck(network.maps, region, claim, sources.progress)
    bounds = {rows[number]: again.row_bound(rows[number], one.slopes) for number, one in claim.rows.items()}
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
    return (
        f"worst bound {worst[0]:.9g}, claimed {worst[1]:.9g} ({worst[2]}); "
        f"{again.passes} rows carried, {again.missed} claimed bounds of neurons not reached"
    )


def _never(row: LinearConstraint, bound: Any) -> bool:
    """Whether a row with a lower bound never holds."""
    return bool(bound > 0) or (row.strict and bool(bound >= 0))


def _split(network: Network, region: Region, entry: dict[str, Any], disjuncts: list[Rows], sources: Sources) -> str:
    """A proof by trees."""
    net, archive = network.floats, sources.archive
    box = tuple(end.double().numpy() for end in (region.box.lower, region.box.upper))
    sample = Sample(network.maps, 1.0, np.inf) if sources.exact else Sample(network.maps, SHARE, MOST)
    arrays = {**forest_arrays(entry["forest"], archive), "trees": entry.get("trees")}
    forest = read_forest(arrays, list(network.sizes.values()), len(box[0]), len(disjuncts))
    root: Sets | None = None
    if entry.get("activations"):
        claim = region_claim(entry, network.sizes, archive)
        with np.errstate(all="ignore"):
            root = RootDerivation(net, box[0][None], box[1][None], claim, sample).run()
    try:
        check = ForestCheck(net, (box[0], box[1]), disjuncts, forest, root, sample, sources.progress, sources.jobs)
        reason = check.run()
    except Disagreement as error:
        raise NotProven(f"the arithmetic of this machine is not what is assumed of it: {error}") from error
    if reason:
        raise NotProven(reason)
    return (
        f"{check.leaves} leaves, {len(forest.lemmas)} lemmas; worst bound {check.worst:.9g}; rows proven in float64 "
        f"{check.closed[0]}, in balls {check.closed[1]}; {sample.confirmed} rows confirmed in balls"
    )
