"""``zonocuda check``: a verdict again, from its certificate and the files that it is about.

What is trusted: the reader of VNN-LIB files, which gives the exact rows and box of the specification; the library Arb;
Python. The graph of operators that the reader of ONNX files gives is compared, operator by operator and at random
numbers, with what the standard says (:mod:`zonocuda.checker.standard`). Nothing of the verifier is used, and of the
certificate only slopes, each of which is good whatever its value in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import flint
import numpy as np
import torch
from onnx import ModelProto, TensorProto

from zonocuda.checker.arguments import Claimed, HasDocument, compare_digest, document_of, network_of, spec_of
from zonocuda.checker.arithmetic import PRECISION, balls, precisely
from zonocuda.checker.certificate import FORMATS, OLDEST, CertificateError, Document, upgraded
from zonocuda.checker.execution import SEMANTICS, executed
from zonocuda.checker.final import Loss, before_final, no_loss
from zonocuda.checker.journal import Arrays, Journal
from zonocuda.checker.maps import Ends, Maps, interval, ratio
from zonocuda.checker.parallel import Work, check_jobs
from zonocuda.checker.proof import Network as Net
from zonocuda.checker.proof import NotProven, Sources, region_proof
from zonocuda.checker.region import Progress
from zonocuda.checker.standard import difference
from zonocuda.functions import assumption, resolve_ulp
from zonocuda.graph import Graph, interpret
from zonocuda.importers import Network, check_names
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
    exact: bool = False,
    jobs: int = 1,
    resume: str | Path | None = None,
) -> Checked:
    """Proves a verdict again.

    ``verified``: for every region that is not empty, bounds of every ReLU's input and of the certificate's rows are
    derived anew, in float64 with a-priori errors and in balls where these leave something open, from the specification
    and the network themselves and the certificate's slopes; for executed semantics with what a machine may round.
    Confirmed where every disjunct has a row with a positive bound (or 0, for a strict row), or a combination of rows
    that contradicts itself. ``falsified``: ONNX Runtime executes the network at
    the counterexample; confirmed where that violates the specification at a point of its float32 box; for semantics
    ``float64`` the graph does in float64, at a point of the box itself, where the file computes in float32.

    Args:
        certificate: what ``zonocuda.verify(..., certificate=True)`` returned, the file that its ``save`` or
            ``zonocuda verify --certificate`` wrote, or the document itself.
        net: the network that the claim is checked for: an ONNX file or model. A Graph is taken as it is: that it is
            the network somebody means, nobody compares then.
        spec: the property: a VNN-LIB file, or a Spec.
        progress: is told how far each region is.
        exact: whether every number of a proof is computed in balls; else those that float64 with a-priori errors
            leaves open, and some at random.
        jobs: how many processes share the regions, or, where these are fewer, the rows of the bounds of a whole box and
            the leaves of a proof by splitting, each of them one batch at a time.
        resume: a file in which it is noted what is done, and with which a check of the same files that was interrupted
            goes on (:mod:`zonocuda.checker.journal`); it is removed at the end.

    Raises:
        CertificateError: no certificate that can be checked: another schema, files that are not these, a verdict
            without a proof, a certificate without data; a file to go on with that is damaged, or of something else.
        ValueError: files that cannot be read, or do not fit each other.
        TypeError: an argument that is something else; to go on, a certificate, a network or a property in memory.

    Examples:
        >>> net, spec = 'examples/networks/fc.onnx', 'examples/specs/fc_10_0.04.vnnlib'
        >>> check(verify(net, spec, certificate=True), net, spec).confirmed
        True
    """
    check_jobs(jobs)
    paths = {"certificate": certificate, "net": net, "spec": spec}
    journal = None if resume is None else Journal(resume, paths, {"exact": exact})
    try:
        document, name = document_of(certificate)
        try:
            found = _check(document, name, net, spec, Sources(document.archive, exact, progress, Work(jobs, journal)))
        finally:
            document.close()
        if journal is None:
            return found
        journal.confirm()
        return replace(found, details=(*found.details, *journal.words))
    finally:
        if journal is not None:
            journal.close()


def _check(
    claimed: Document,
    name: str,
    net: str | Path | ModelProto | Network | Graph,
    spec: str | Path | Spec,
    sources: Sources,
) -> Checked:
    document = claimed.fields
    for kind, given in (("net", net), ("spec", spec)):
        compare_digest(document, name, kind, given)
    verdict, ran = document.get("verdict"), document.get("ran")
    if verdict not in ("verified", "falsified"):
        raise CertificateError(f"{name}: nothing to check: the verdict is {_quoted(verdict)!r}")
    semantics = ran.get("semantics") if isinstance(ran, dict) else None
    if not isinstance(semantics, str) or semantics not in SEMANTICS:
        raise CertificateError(
            f"{name}: semantics {_quoted(semantics)!r} cannot be checked; {', '.join(SEMANTICS)} can"
        )
    ulp = _assumed(ran, name)
    if ulp and semantics == "real":
        raise CertificateError(f"{name}: ran.ulp is about executed functions, and semantics are 'real'")
    network, property_ = network_of(net), spec_of(spec)
    lost: Loss = no_loss
    if verdict == "verified" and semantics == "real" and document.get("left_out") and network.content is not None:
        try:
            before, lost = before_final(network.content, network.name, property_)
        except CertificateError as error:
            raise CertificateError(f"{name}: {error}") from error
        network = replace(network, graph=before.graph, content=before.onnx_bytes)
    graph = network.graph
    sizes = math.prod(graph.input_shape), math.prod(graph.output_shape)
    if sizes != (property_.inputs, property_.outputs):
        what = spec if isinstance(spec, str | Path) else "the specification"
        raise CertificateError(f"{what} does not fit {network.name}: numbers of inputs and outputs differ")
    if network.network is not None:
        check_names(network.network, property_.names)
    if sources.work.journal is not None:
        sources.work.journal.compare()
    if verdict == "falsified":
        with precisely():
            return _counterexample(document.get("counterexample"), network, property_, semantics)
    if document.get("certificate") is None:
        raise CertificateError(
            f"{name}: holds no certificate of format {FORMATS[-1]}: zonocuda verify --certificate and "
            "zonocuda.verify(..., certificate=True) make one"
        )
    try:
        model = None if network.content is None else parse_onnx(network.content, network.name)
        return check_proof(document.get("certificate"), graph, property_, model, sources, semantics, lost, ulp)
    except CertificateError as error:
        raise CertificateError(f"{name}: {error}") from error


def _assumed(ran: object, name: str) -> dict[str, float]:
    """What a certificate assumes of executed functions.

    Raises:
        CertificateError: it is no such statement.
    """
    try:
        return resolve_ulp(ran.get("ulp", {}) if isinstance(ran, dict) else {})
    except (TypeError, ValueError) as error:
        raise CertificateError(f"{name}: ran.{error}") from error


def _quoted(value: object) -> str:
    """What a document says, where it should say a word or a sentence: anything else may be nested without end."""
    return value[:300] if isinstance(value, str) else f"a {type(value).__name__}"


# ---- proofs --------------------------------------------------------------------------------------------------------


def check_proof(
    certificate: object,
    graph: Graph,
    spec: Spec,
    file: OnnxFile | None = None,
    sources: Sources | None = None,
    semantics: str = "real",
    lost: Loss = no_loss,
    ulp: Mapping[str, float] = MappingProxyType({}),
) -> Checked:
    """Proves a property again from the object ``certificate`` of a document; ``semantics`` says whose values it is
    about, and ``ulp`` what is assumed of functions that a machine executes. Where the network's last operator is left
    out, ``lost`` says whether the property is the same without it.

    With the ``file`` that the graph was read from, the graph is compared with what the standard says of it first
    (:mod:`zonocuda.checker.standard`): a network that was read wrongly confirms nothing.

    Raises:
        CertificateError: no certificate, one without data, a network of more than MAX_NUMBERS numbers, or one about
            whose execution nothing is known.
    """
    if not isinstance(certificate, dict) or certificate.get("format") not in FORMATS:
        raise CertificateError(f"holds no certificate of format {' or '.join(FORMATS)}")
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
        wrong = "" if file is None else difference(file, maps, lost)
        if wrong:
            return Checked(False, wrong, ())
        execution = executed(semantics, graph, ulp)
        if semantics == "float32" and file is not None and file.element_type != TensorProto.FLOAT:
            return Checked(False, "semantics 'float32': the network computes in another type", ())
        return _proof(certificate, maps.under(execution), spec, sources or Sources())


def _constants(graph: Graph) -> tuple[list[Any], list[torch.Tensor]]:
    """What operators hold, and the tensors among it."""
    held = [value for node in graph.nodes for value in vars(node.op).values()]
    return held, [value for value in held if isinstance(value, torch.Tensor)]


def _size(graph: Graph) -> int:
    """Numbers that become balls: constants, or neurons, whichever are more."""
    return max(sum(t.numel() for t in _constants(graph)[1]), sum(math.prod(node.shape) for node in graph.nodes))


def _proof(certificate: dict[str, Any], maps: Maps, spec: Spec, sources: Sources) -> Checked:
    entries = certificate.get("regions")
    by_region: dict[int, Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        number = entry.get("region") if isinstance(entry, dict) else None
        if type(number) is not int or number in by_region:
            return Checked(False, "certificate: regions[].region is no number, or there twice", ())
        by_region[number] = upgraded(entry) if certificate["format"] == OLDEST else entry
    execution = maps.execution
    whose = "in real arithmetic" if execution is None else f"as executed in {execution.name}, sums in any order"
    if execution is not None and execution.assumed:
        whose += f", {assumption(execution.ulp)}"
    details = [f"arithmetic  balls of {PRECISION} bits (Arb in python-flint {flint.__version__}), {whose}"]
    if not spec.regions:
        return Checked(True, "the specification has no unsafe region", tuple(details))
    network, regions = Net(maps), spec.regions
    work = sources.work
    within, shared = sources, Work(1, work.journal)
    if work.jobs > 1 and len(regions) >= work.jobs:
        within, shared = replace(sources, work=Work(), progress=lambda phase, done, total: None), work
        _ = network.floats  # once, for all processes

    def proven(position: int) -> tuple[str, str]:
        """What proves a region, or why nothing does."""
        try:
            with precisely():
                how = replace(within, work=within.work.part(str(position)))
                return region_proof(network, regions[position], by_region.get(position), how), ""
        except CertificateError as error:
            return "", f"certificate: {error}"
        except NotProven as missing:
            return "", str(missing)

    def prove(position: int) -> Arrays:
        return [np.frombuffer(text.encode(), np.uint8) for text in proven(position)]

    for position, told in enumerate(shared.each(prove, len(regions), lambda: b"regions")):
        how, why_not = (part.tobytes().decode() for part in told)
        if why_not:
            return Checked(False, f"region {position}: {why_not}", tuple(details))
        details.append(f"region {position}    {how}")
        if len(regions) > 1:
            sources.progress("regions", position + 1, len(regions))
    return Checked(True, f"every disjunct of {len(regions)} region(s) is refuted", tuple(details))


# ---- counterexamples -----------------------------------------------------------------------------------------------


def _counterexample(claim: object, network: Claimed, spec: Spec, semantics: str) -> Checked:
    """At a float32 point: of the box rounded to float32 or, for float64, of the box itself."""
    graph, is_double = network.graph, semantics == "float64"
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
    inside = bool(((wide >= box.lower) & (wide <= box.upper)).all())
    if is_double and not inside:
        return Checked(False, "counterexample: x lies outside the box", ())
    if not bool(((point >= box.float32_lower) & (point <= box.float32_upper)).all()):
        return Checked(False, "counterexample: x lies outside the box rounded to float32", ())
    output, executor = network.execute(point.reshape(1, *graph.input_shape)), network.executor
    if semantics == "float32" and output.dtype != torch.float32:
        return Checked(False, "semantics 'float32': the network computes in another type", ())
    if is_double and output.dtype != torch.float64:  # as verify does: the network's own program computes in float32
        if graph.executed:
            return Checked(False, "the network computes constants in its own precision: use semantics 'real'", ())
        output, executor = graph.to(torch.float64, "cpu")(wide.reshape(1, *graph.input_shape)), "the graph in float64"
    y = output.flatten().tolist()
    violated = region.is_unsafe(point.tolist(), y)
    where = "the box" if is_double else "the box rounded to float32"
    details = (
        f"arithmetic  the verdict is about what {executor} executes, in {where}",
        f"outputs     {'the same as' if y == fields.get('y') else 'other than'} the certificate's",
        f"exactly     {_exactly(graph, region, wide)}, at a point {'inside' if inside else 'outside'} the exact box",
    )
    reason = f"{executor}'s output {'violates the property' if violated else 'is not unsafe'}"
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
