"""``zonocuda check``: a verdict again, from its certificate and the files that it is about.

What is trusted: the reader of VNN-LIB files, which gives the exact rows and box of the specification; the library Arb;
Python. The graph of operators that the reader of ONNX files gives is compared, operator by operator and at random
numbers, with what the standard says (:mod:`zonocuda.checker.standard`). Nothing of the verifier is used, and of the
certificate only slopes, each of which is good whatever its value in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import flint
import numpy as np
import torch
from onnx import ModelProto

from zonocuda.checker.arguments import Claimed, HasDocument, compare_digest, document_of, network_of, spec_of
from zonocuda.checker.arithmetic import PRECISION, balls, precisely
from zonocuda.checker.certificate import FORMAT, OLDER, CertificateError, region_claim, upgraded
from zonocuda.checker.combinations import read_combinations
from zonocuda.checker.maps import Ends, Maps, interval, ratio
from zonocuda.checker.region import Progress, RegionCheck
from zonocuda.checker.standard import difference
from zonocuda.graph import Graph, interpret
from zonocuda.importers import Network
from zonocuda.importers.onnx.file import OnnxFile, parse_onnx
from zonocuda.specs import LinearConstraint, Region, Spec

MAX_NUMBERS = 2**22
"""Constants, and neurons, of a network: a ball takes two hundred bytes."""


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        confirmed: whether the verdict was proven again.
        reason: one line that says why, or why not.
        details: further lines.
    """

    confirmed: bool
    reason: str
    details: tuple[str, ...]

    def __bool__(self) -> NoReturn:
        """What a check found is no truth value.

        Raises:
            TypeError: always, with the remedy.
        """
        raise TypeError("what a check found is neither true nor false: ask .confirmed")


def check(
    certificate: str | Path | Mapping[str, object] | HasDocument,
    net: str | Path | ModelProto | Network | Graph,
    spec: str | Path | Spec,
    progress: Progress = lambda phase, done, total: None,
) -> Checked:
    """Proves a verdict again.

    ``verified``: for every region that is not empty, bounds of every ReLU's input and of the certificate's rows are
    derived anew in ball arithmetic, from the specification and the network themselves and the certificate's slopes.
    Confirmed where every disjunct has a row with a positive bound (or 0, for a strict row), or a combination of rows
    that contradicts itself. ``falsified``: ONNX Runtime executes the network at
    the counterexample; confirmed where that violates the specification at a point of its float32 box.

    Args:
        certificate: what ``zonocuda.verify(..., certificate=True)`` returned, the file that its ``save`` or
            ``zonocuda verify --json`` wrote, or the document itself.
        net: the network that the claim is checked for: an ONNX file or model. A Graph is taken as it is: that it is
            the network somebody means, nobody compares then.
        spec: the property: a VNN-LIB file, or a Spec.
        progress: is told how far each region is.

    Raises:
        CertificateError: no certificate that can be checked: another schema, files that are not these, a verdict
            without a proof, a certificate without data.
        ValueError: files that cannot be read, or do not fit each other.
        TypeError: an argument that is something else.
    """
    document, name = document_of(certificate)
    for kind, given in (("net", net), ("spec", spec)):
        compare_digest(document, name, kind, given)
    verdict, ran = document.get("verdict"), document.get("ran")
    if verdict not in ("verified", "falsified"):
        raise CertificateError(f"{name}: nothing to check: the verdict is {_quoted(verdict)!r}")
    semantics = ran.get("semantics") if isinstance(ran, dict) else None
    if semantics != "real":
        raise CertificateError(
            f"{name}: semantics {_quoted(semantics)!r}: only proofs in real arithmetic ('real') can be checked"
        )
    network, property_ = network_of(net), spec_of(spec)
    graph = network.graph
    sizes = math.prod(graph.input_shape), math.prod(graph.output_shape)
    if sizes != (property_.inputs, property_.outputs):
        what = spec if isinstance(spec, str | Path) else "the specification"
        raise CertificateError(f"{what} does not fit {network.name}: numbers of inputs and outputs differ")
    if verdict == "falsified":
        with precisely():
            return _counterexample(document.get("counterexample"), network, property_)
    if document.get("certificate") is None:
        raise CertificateError(
            f"{name}: holds no certificate of format {FORMAT}: zonocuda verify --json and "
            "zonocuda.verify(..., certificate=True) make one"
        )
    try:
        model = None if network.content is None else parse_onnx(network.content, network.name)
        return check_proof(document.get("certificate"), graph, property_, progress, model)
    except CertificateError as error:
        raise CertificateError(f"{name}: {error}") from error


def _quoted(value: object) -> str:
    """What a document says, where it should say a word or a sentence: anything else may be nested without end."""
    return value[:300] if isinstance(value, str) else f"a {type(value).__name__}"


# ---- proofs --------------------------------------------------------------------------------------------------------


def check_proof(
    certificate: object,
    graph: Graph,
    spec: Spec,
    progress: Progress = lambda phase, done, total: None,
    file: OnnxFile | None = None,
) -> Checked:
    """Proves a property again from the object ``certificate`` of a document.

    With the ``file`` that the graph was read from, the graph is compared with what the standard says of it first
    (:mod:`zonocuda.checker.standard`): a network that was read wrongly confirms nothing.

    Raises:
        CertificateError: no certificate, one without data, or a network of more than MAX_NUMBERS numbers.
    """
    if not isinstance(certificate, dict) or certificate.get("format") not in (FORMAT, OLDER):
        raise CertificateError(f"holds no certificate of format {FORMAT} or {OLDER}")
    if certificate.get("available") is not True:
        raise CertificateError(f"nothing to check: {_quoted(certificate.get('reason'))}")
    held, tensors = _constants(graph)
    if _size(graph) > MAX_NUMBERS:
        raise CertificateError(f"a network of more than {MAX_NUMBERS} constants or neurons is too large to check")
    numbers = [value for value in held if isinstance(value, float)]
    if not all(bool(t.isfinite().all()) for t in tensors) or not all(map(math.isfinite, numbers)):
        return Checked(False, "the network holds a NaN or an infinity", ())
    with precisely():
        maps = Maps(graph)
        wrong = "" if file is None else difference(file, maps)
        return Checked(False, wrong, ()) if wrong else _proof(certificate, maps, spec, progress)


def _constants(graph: Graph) -> tuple[list[Any], list[torch.Tensor]]:
    """What operators hold, and the tensors among it."""
    held = [value for node in graph.nodes for value in vars(node.op).values()]
    return held, [value for value in held if isinstance(value, torch.Tensor)]


def _size(graph: Graph) -> int:
    """Numbers that become balls: constants, or neurons, whichever are more."""
    return max(sum(t.numel() for t in _constants(graph)[1]), sum(math.prod(node.shape) for node in graph.nodes))


def _proof(certificate: dict[str, Any], maps: Maps, spec: Spec, progress: Progress) -> Checked:
    how = f"arithmetic  balls of {PRECISION} bits (Arb in python-flint {flint.__version__}), in real arithmetic"
    entries = certificate.get("regions")
    by_region: dict[int, Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        number = entry.get("region") if isinstance(entry, dict) else None
        if type(number) is not int or number in by_region:
            return Checked(False, "certificate: regions[].region is no number, or there twice", (how,))
        by_region[number] = upgraded(entry) if certificate["format"] == OLDER else entry
    if not spec.regions:
        return Checked(True, "the specification has no unsafe region", (how,))
    details = [how]
    for position, region in enumerate(spec.regions):
        reason = "".join(_region(maps, region, by_region.get(position), position, details, progress))
        if reason:
            return Checked(False, f"region {position}: {reason}", tuple(details))
    return Checked(True, f"every disjunct of {len(spec.regions)} region(s) is refuted", tuple(details))


def _region(
    maps: Maps, region: Region, entry: object, position: int, details: list[str], progress: Progress
) -> Iterator[str]:
    """Why a region is not proven safe; nothing if it is. What was found is added to ``details``."""
    box = region.box
    if box.is_empty and not box.has_nan:
        details.append(f"region {position}    the box is empty")
        return
    if not bool((box.lower.isfinite() & box.upper.isfinite()).all()):
        yield "the box is not bounded"
        return
    if not region.disjuncts:
        details.append(f"region {position}    no output is unsafe")
        return
    if entry is None:
        yield "the certificate has no slopes for it"
        return
    try:
        combinations = read_combinations(entry, region)
    except CertificateError as error:
        yield f"certificate: {error}"
        return
    nonnegative: frozenset[int] = frozenset()
    if any(one.outputs for one in combinations):
        ends = balls(box.lower.tolist()), balls(box.upper.tolist())
        low, _ = interpret(maps.graph, ends, lambda node, before: interval(maps, node, list(before)))
        nonnegative = frozenset(i for i, value in enumerate(low) if value >= 0)
    disjuncts = dict(enumerate(region.disjuncts))
    for one in combinations:
        if not one.refutes:
            disjuncts[one.disjunct] = (*disjuncts[one.disjunct], one.row(region))
        elif one.is_refuted(region, nonnegative):
            del disjuncts[one.disjunct]
        else:
            yield f"certificate: the combination of rows of disjunct {one.disjunct} refutes nothing"
            return
    if not disjuncts:
        details.append(f"region {position}    combinations of rows refute every disjunct")
        return
    rows = list({row: None for disjunct in disjuncts.values() for row in disjunct})
    try:
        claim = region_claim(entry, {node.name: maps.size[node.name] for node in maps.graph.relus})
    except CertificateError as error:
        yield f"certificate: {error}"
        return
    if not all(0 <= number < len(rows) for number in claim.rows):
        yield "certificate: rows[].row is no row of the specification"
        return
    again = RegionCheck(maps, region, claim, progress)
    bounds = {rows[number]: again.row_bound(rows[number], one.slopes) for number, one in claim.rows.items()}
    worst: tuple[float, float, LinearConstraint] | None = None
    for number, disjunct in disjuncts.items():
        proven = [row for row in disjunct if row in bounds and _never(row, bounds[row])]
        if not proven:
            known = [f"{float(bounds[row].mid()):.6g}" for row in disjunct if row in bounds]
            yield f"disjunct {number} is not refuted (bounds found: {', '.join(known) or 'none'})"
            return
        best = max(proven, key=lambda row: float(bounds[row].mid()))
        found, claimed = float(bounds[best].mid()), claim.rows[rows.index(best)].lower
        if worst is None or found < worst[0]:
            worst = found, claimed, best
    assert worst is not None, "there are disjuncts"
    details.append(
        f"region {position}    worst bound {worst[0]:.9g}, claimed {worst[1]:.9g} ({worst[2]}); "
        f"{again.passes} rows carried, {again.missed} claimed bounds of neurons not reached"
    )


def _never(row: LinearConstraint, bound: Any) -> bool:
    """Whether a row with a lower bound never holds."""
    return bool(bound > 0) or (row.strict and bool(bound >= 0))


# ---- counterexamples -----------------------------------------------------------------------------------------------


def _counterexample(claim: object, network: Claimed, spec: Spec) -> Checked:
    graph = network.graph
    fields = claim if isinstance(claim, dict) else {}
    number, x = fields.get("region"), fields.get("x")
    if type(number) is not int or not 0 <= number < len(spec.regions):
        return Checked(False, "counterexample: region is no region of the specification", ())
    if not isinstance(x, list) or len(x) != spec.inputs or not all(type(v) is float for v in x):
        return Checked(False, f"counterexample: x must be {spec.inputs} numbers", ())
    region = spec.regions[number]
    box = region.box
    wide = torch.tensor(x, dtype=torch.float64, device="cpu")
    point = wide.float()
    if not bool(((point.double() == wide) & point.isfinite()).all()):
        return Checked(False, "counterexample: x is no float32 point", ())
    if not bool(((point >= box.float32_lower) & (point <= box.float32_upper)).all()):
        return Checked(False, "counterexample: x lies outside the box rounded to float32", ())
    y = network.execute(point.reshape(1, *graph.input_shape)).flatten().tolist()
    violated = region.is_unsafe(point.tolist(), y)
    inside = bool(((wide >= box.lower) & (wide <= box.upper)).all())
    details = (
        f"arithmetic  the verdict is about what {network.executor} executes, in the box rounded to float32",
        f"outputs     {'the same as' if y == fields.get('y') else 'other than'} the certificate's",
        f"exactly     {_exactly(graph, region, wide)}, at a point {'inside' if inside else 'outside'} the exact box",
    )
    reason = f"{network.executor}'s output {'violates the property' if violated else 'is not unsafe'}"
    return Checked(violated, reason, details)


def _exactly(graph: Graph, region: Region, x: torch.Tensor) -> str:
    """What exact arithmetic says of a point."""
    if _size(graph) > MAX_NUMBERS:
        return f"not computed: the network has more than {MAX_NUMBERS} constants or neurons"
    maps = Maps(graph)
    point = balls(x.tolist())
    low, high = interpret(graph, (point, point), lambda node, before: interval(maps, node, list(before)))
    values: dict[LinearConstraint, Ends] = {}
    for row in {row for rows in region.disjuncts for row in rows}:
        total = ratio(row.constant) + sum(ratio(c) * point[j] for j, c in row.inputs.items())
        ends = [
            total + sum(ratio(c) * (end if (c > 0) == up else other)[i] for i, c in row.outputs.items())
            for up, (end, other) in ((False, (high, low)), (True, (high, low)))
        ]
        values[row] = np.array(ends[:1], dtype=object), np.array(ends[1:], dtype=object)

    def holds(row: LinearConstraint) -> bool:
        value = values[row][1][0]
        return bool(value < 0 if row.strict else value <= 0)

    def fails(row: LinearConstraint) -> bool:
        value = values[row][0][0]
        return bool(value >= 0 if row.strict else value > 0)

    if any(all(map(holds, rows)) for rows in region.disjuncts):
        return "exact arithmetic violates the property, too"
    if all(any(map(fails, rows)) for rows in region.disjuncts):
        return "exact arithmetic does not violate the property"
    return "exact arithmetic is too close to the boundary to tell"
