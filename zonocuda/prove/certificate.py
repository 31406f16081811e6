"""What a certificate holds; :mod:`zonocuda.prove.certify` makes it, docs/certificate.md says how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from zonocuda.prove.combine import Combination
from zonocuda.prove.forest import ForestRecord

UNIT = 128
"""Slopes of single neurons' rows are multiples of 1 / UNIT of the range of slopes, kept in a byte."""


@dataclass(frozen=True, eq=False)
class SidedSlopes:
    """Slopes of rows where v >= 0, and where v < 0; None for those that all rows share."""

    nonnegative: Tensor
    negative: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Ends:
    """Where a row ends at one node: where v < 0 (``negative``) or v > 0, at the places ``neurons`` (int32 [M],
    ascending) of its features."""

    negative: bool
    neurons: Tensor


@dataclass(frozen=True, eq=False)
class OwnSlopes:
    """For M ``neurons`` rows for their lower, then for their upper bounds.

    ``slopes`` holds ``[2 M, K]`` (uint8, in units of 1 / UNIT between its ``least`` and ``largest``) of every
    activation before.
    """

    neurons: Tensor
    slopes: Mapping[str, SidedSlopes]


@dataclass(frozen=True, eq=False)
class EndedRows:
    """How rows of an activation's neurons go that end at maxima: where, and slopes ``[K]`` of their own by activation
    before; the others as in the second pass."""

    ends: Mapping[str, Ends]
    slopes: Mapping[str, SidedSlopes]


@dataclass(frozen=True, eq=False)
class ActivationRecord:
    """The K neurons of an activation that are not settled by the bounds of the first sweep.

    Attributes:
        name: the node.
        op: the kind of its operator, such as ``Relu``.
        neurons: ``[K]`` (int32), places in the flattened features that it reads, ascending.
        lower, upper: ``[K]``, bounds of them.
        area: ``[K]``, slopes for both signs of v, of the first pass for every neuron.
        negative, nonnegative: ``[K]``, slopes of the second pass and of rows.
        refined: slopes of the rows of those neurons that have their own.
        least, largest: ``[K]``, the range of slopes; None for 0 and 1.
        ended: how rows of the neurons go that end; None where they do not.
    """

    name: str
    op: str
    neurons: Tensor
    lower: Tensor
    upper: Tensor
    area: Tensor
    negative: Tensor
    nonnegative: Tensor
    refined: OwnSlopes | None = None
    least: Tensor | None = None
    largest: Tensor | None = None
    ended: EndedRows | None = None


@dataclass(frozen=True, eq=False)
class RowRecord:
    """A row that refutes a disjunct: its number among the region's distinct rows, its bound and what rounding took off,
    slopes ``[K]`` of its own, by activation, and where it ends, by node."""

    row: int
    constraint: str
    lower: float
    slack: float | None
    slopes: Mapping[str, SidedSlopes] | None
    ends: Mapping[str, Ends] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RegionRecord:
    """One region's proof.

    Attributes:
        region: its position in the specification.
        second_pass: whether neurons need the second pass.
        activations: every one, in order; none where combinations refute every disjunct.
        rows: those that refute the disjuncts that combinations leave.
        combinations: of rows, which refute a disjunct, or are one more row of it.
        forest: of a proof by splitting.
    """

    region: int
    second_pass: bool
    activations: tuple[ActivationRecord, ...]
    rows: tuple[RowRecord, ...]
    combinations: tuple[Combination, ...] = ()
    forest: ForestRecord | None = None


@dataclass(frozen=True)
class ForestSize:
    """How large proofs by splitting are.

    Attributes:
        leaves: of all trees.
        depth: the most splits above one of them.
        lemmas: how many trees are those of lemmas.
        slopes: rows of the tables of slopes, which leaves share.
        bytes: of all arrays, before they are packed.
    """

    leaves: int
    depth: int
    lemmas: int
    slopes: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Certificate:
    """Of all regions that needed a proof; ``reason`` says why there is none, and is empty where there is one.

    ``semantics``: whose values it is about; ``ulp``: what is assumed of functions, where these are executed ones.
    """

    reason: str
    regions: tuple[RegionRecord, ...] = ()
    semantics: str = "real"
    ulp: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Certificate({self.reason or f'of {len(self.regions)} region(s)'})"

    @property
    def forest(self) -> ForestSize | None:
        """The size of all trees; None where nothing was split."""
        some = [one.forest for one in self.regions if one.forest is not None]
        if not some:
            return None
        return ForestSize(
            sum(one.leaves for one in some),
            max(one.depth for one in some),
            sum(one.lemmas for one in some),
            sum(len(one.arrays["nonnegative"]) for one in some),
            sum(one.bytes for one in some),
        )

    def save(self, path: str | Path, **fields: object) -> None:
        """Writes it to a file that ``zonocuda check`` reads (docs/certificate.md).

        Args:
            path: of the file, which is replaced.
            fields: more of the document, such as ``files``.

        Raises:
            OSError: it cannot be written.
        """
        from zonocuda.prove.certificate_file import write

        told = {
            "verdict": "verified",
            "reason": "",
            "ran": {"semantics": self.semantics, "ulp": dict(self.ulp)},
            **fields,
        }
        with Path(path).open("wb") as file:
            write(file, told, self)
