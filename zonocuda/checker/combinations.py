"""Combinations of a disjunct's rows that a certificate names, in exact arithmetic.

A point that satisfies rows r_k <= 0 satisfies sum_k w_k r_k <= 0 for w_k > 0, and < 0 where one of them is strict.
Where the outputs y_i of the sum are within ends that intervals show, it refutes the disjunct if its least value on the
box is positive (or nonnegative, for a strict sum). A combination that does not claim this is one more row of the
disjunct, to be bounded like the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from zonocuda.checker.arithmetic import Array
from zonocuda.checker.certificate import CertificateError
from zonocuda.checker.maps import ratio
from zonocuda.specs import LinearConstraint, Region

_WEIGHT = re.compile(r"(-?)([0-9]{1,1000})(?:/([0-9]{1,1000}))?")


@dataclass(frozen=True)
class Claimed:
    """One of ``combinations``: positive weights of a disjunct's rows, what their sum has of outputs, and whether it
    refutes."""

    disjunct: int
    rows: dict[int, Fraction]
    outputs: dict[int, Fraction]
    refutes: bool

    def row(self, region: Region) -> LinearConstraint:
        """The weighted sum of the rows."""
        members = region.disjuncts[self.disjunct]
        sums: dict[tuple[str, int], Fraction] = {}
        constant, strict = Fraction(0), False
        for k, weight in self.rows.items():
            row = members[k]
            constant += weight * row.constant
            strict |= row.strict
            for kind, coefficients in (("y", row.outputs), ("x", row.inputs)):
                for i, c in coefficients.items():
                    sums[kind, i] = sums.get((kind, i), Fraction(0)) + weight * c
        outputs = {i: c for (kind, i), c in sums.items() if kind == "y"}
        return LinearConstraint(outputs, {j: c for (kind, j), c in sums.items() if kind == "x"}, constant, strict)

    def is_refuted(self, region: Region, box: tuple[list[float], list[float]], ends: tuple[Array, Array]) -> bool:
        """Whether the sum, for outputs between ``ends``, never holds on a box."""
        row = self.row(region)
        if dict(row.outputs) != self.outputs:
            return False
        least = row.constant
        for j, c in row.inputs.items():
            least += c * Fraction(box[0][j] if c > 0 else box[1][j])
        total = sum((ratio(c) * ends[0 if c > 0 else 1][i] for i, c in self.outputs.items()), ratio(least))
        return bool(total >= 0) if row.strict else bool(total > 0)


def read_combinations(entry: Any, region: Region) -> list[Claimed]:
    """The combinations of one element of ``certificate.regions``; none where the field is missing.

    Raises:
        CertificateError: one that is malformed, or a second one for a disjunct.
    """
    found: list[Claimed] = []
    listed = entry.get("combinations", []) if isinstance(entry, dict) else []
    if not isinstance(listed, list):
        raise CertificateError("combinations: must be a list")
    for one in listed:
        if not isinstance(one, dict) or type(one.get("refutes")) is not bool:
            raise CertificateError("combinations[]: must be an object that says whether it refutes")
        disjunct = one.get("disjunct")
        if type(disjunct) is not int or not 0 <= disjunct < len(region.disjuncts):
            raise CertificateError("combinations[].disjunct: is no disjunct of the region")
        if any(disjunct == other.disjunct for other in found):
            raise CertificateError("combinations[].disjunct: is there twice")
        rows = dict(_weights(one.get("rows"), "row"))
        outputs = dict(_weights(one.get("outputs"), "output"))
        if not all(k < len(region.disjuncts[disjunct]) for k in rows) or not rows:
            raise CertificateError("combinations[].rows: must be rows of the disjunct")
        found.append(Claimed(disjunct, rows, outputs, one["refutes"]))
    return found


def _weights(entry: Any, key: str) -> Iterator[tuple[int, Fraction]]:
    if not isinstance(entry, list):
        raise CertificateError(f"combinations[].{key}s: must be a list")
    seen: set[int] = set()
    for one in entry:
        place, weight = (one.get(key), one.get("weight")) if isinstance(one, dict) else (None, None)
        match = _WEIGHT.fullmatch(weight) if isinstance(weight, str) else None
        if type(place) is not int or place < 0 or place in seen or match is None:
            raise CertificateError(f"combinations[].{key}s[]: must have a {key}, once, and a weight p/q")
        seen.add(place)
        above, below = int(match[2]), int(match[3] or 1)
        if not (above and below) or (match[1] and key == "row"):
            raise CertificateError("combinations[]: a weight is not positive")
        yield place, Fraction(-above if match[1] else above, below)
