"""What a verification returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from zonocuda.bounds.forward.seen import LayerStats
from zonocuda.bounds.plan.planner import Step
from zonocuda.functions import assumption
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.row_bound import RowBound
from zonocuda.prove.timeline import Moments
from zonocuda.verifier.documents import certificate_archive, json_text, verify_document
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.html import result_html


class Verdict(StrEnum):
    """The outcome: a proof, a counterexample, neither, or neither in time.

    Examples:
        >>> str(Verdict.VERIFIED)
        'verified'
    """

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"

    def __bool__(self) -> NoReturn:
        """A verdict is no truth value: ``unknown`` and ``falsified`` would count as true.

        Raises:
            TypeError: always, with the remedy.
        """
        raise TypeError("a verdict is neither true nor false: ask result.verified, or verdict is Verdict.VERIFIED")


@dataclass(frozen=True)
class SplitStats:
    """The search in one region.

    Attributes:
        region: position of the region in the specification.
        boxes: how many boxes were bounded; where neurons were split, how many parts of the box, those of lemmas too.
        depth: the most splits above one of them.
        open: boxes or parts that were neither refuted nor split any further.
        worst: the smallest bound of one of these, inf where there is none.
        is_proven: whether every box or part was refuted.
        seconds: what it took.
        split: what was split: ``input`` or ``neuron``.
        lemmas: bounds of neurons that searches of their own improved.
        packets: of parts that workers of an executor searched.
        work_seconds: what the packets took, all together.
    """

    region: int
    boxes: int
    depth: int
    open: int
    worst: float
    is_proven: bool
    seconds: float
    split: str = "input"
    lemmas: int = 0
    packets: int = 0
    work_seconds: float = 0.0

    @property
    def noun(self) -> str:
        """What the box was split into."""
        return "boxes" if self.split == "input" else "parts"

    @property
    def reason(self) -> str:
        """What it left open; empty if nothing."""
        if self.is_proven:
            return ""
        return f"{self.open} {self.noun} are open after {self.boxes} were bounded; the worst bound is {self.worst:.6g}"


@dataclass(frozen=True)
class Ran:
    """What the result was computed with.

    Attributes:
        dtype: the widest one that bounds were computed in, such as ``float64``.
        device: such as ``cpu`` or ``cuda:0 (NVIDIA H200)``.
        backend: ``native`` or ``reference``.
        replay: what counterexamples were replayed on: ``onnxruntime``, ``module`` or ``graph``.
        versions: of zonocuda and torch.
        effort: ``fast``, ``standard`` or ``max``.
        semantics: the arithmetic in which ``verified`` holds: ``real``, or ``float32`` or ``float64`` as executed.
        replay_dtype: the precision in which counterexamples were replayed.
        settled: by dtype, how many rows were refuted in it.
        ulp: what was assumed of the functions that the network executes: units in the last place, by name.
    """

    dtype: str
    device: str
    backend: str
    replay: str
    versions: Mapping[str, str]
    effort: str
    semantics: str
    replay_dtype: str
    settled: Mapping[str, int] = field(default_factory=dict)
    ulp: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class VerifyResult:
    """A verdict and what it rests on.

    Attributes:
        verdict: the outcome.
        reason: one line that says why.
        margins: the bounds of every row that was looked at; a proof needs one positive row in every disjunct.
        counterexample: the point found, for ``falsified``.
        layers: what the last forward sweep saw at each activation.
        seconds: time by phase (``check``, ``falsify``, ``forward``, ``dual``, ``refine``) and in ``total``.
        ran: what it was computed with.
        plan: the planner's decisions in the last sweep, node by node.
        certificate: of a proof, where it was asked for.
        timeout: seconds that it was given; inf for no limit.
        files: paths of the network (``net``) and the property (``spec``), where these were files.
        digests: SHA-256 of these files, as they were when the verification began.
        left_out: a last operator of the network, such as ``Softmax``, that bounds and margins do not include.
        splits: what splitting the box took, for each region where that was tried; the margins are those of the whole
            box.
        resumed: whether it goes on with a checkpoint, which is believed.
        checkpoint_fault: why no more checkpoints were written, where that is so.
        history: what was reached when: the margin and the open parts against time, a few hundred moments at most.

    Examples:
        >>> result = verify("examples/networks/fc.onnx", "examples/specs/fc_10_0.04.vnnlib")
        >>> str(result.verdict), result.verified, result.counterexample is None
        ('verified', True, True)
    """

    verdict: Verdict
    reason: str
    margins: tuple[RowBound, ...]
    counterexample: Counterexample | None
    layers: tuple[LayerStats, ...]
    seconds: Mapping[str, float]
    ran: Ran
    plan: tuple[Step, ...] = ()
    certificate: Certificate | None = None
    splits: tuple[SplitStats, ...] = ()
    timeout: float = math.inf
    files: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False
    checkpoint_fault: str = ""
    history: Moments = field(default_factory=Moments)

    def __bool__(self) -> NoReturn:
        """A result is no truth value.

        Raises:
            TypeError: always, with the remedy.
        """
        raise TypeError("a result is neither true nor false: ask result.verified")

    def __repr__(self) -> str:
        margin = "" if self.margin is None else f", margin {self.margin:.6g}"
        return f"VerifyResult({self.verdict}{margin}: {self.reason})"

    def _repr_html_(self) -> str:
        return result_html(self)

    @property
    def verified(self) -> bool:
        """Whether the property is proven; ``falsified``, ``unknown`` and ``timeout`` are not."""
        return self.verdict is Verdict.VERIFIED

    def to_json(self, net: str | Path | None = None, spec: str | Path | None = None) -> dict[str, object]:
        """The document ``zonocuda.verify/1`` (docs/json.md), as ``zonocuda verify --json`` writes it.

        It holds what is needed to check a proof again where ``verify`` was called with ``certificate=True``.

        Args:
            net, spec: the files that the result is about, whose digests the document gets; by default those that
                ``verify`` was given, if it was given paths.

        Raises:
            OSError: one of the files cannot be read.
        """
        return verify_document(self, net or self.files.get("net"), spec or self.files.get("spec"))

    def save(self, path: str | Path, net: str | Path | None = None, spec: str | Path | None = None) -> None:
        """Writes :meth:`to_json` to a file, which :func:`zonocuda.check` and ``zonocuda check`` read.

        Raises:
            OSError: the file cannot be written, or one of the others not be read.
        """
        Path(path).write_text(json_text(self.to_json(net, spec)), encoding="utf-8")

    def proof(self, net: str | Path | None = None, spec: str | Path | None = None) -> bytes:
        """The certificate as a file's content (docs/certificate.md), as ``zonocuda verify --certificate`` writes it.

        Args:
            net, spec: as for :meth:`to_json`.

        Raises:
            OSError: one of the files cannot be read.
        """
        return certificate_archive(self, net or self.files.get("net"), spec or self.files.get("spec"))

    @property
    def meaning(self) -> str:
        """What the verdict says of which network, on which box.

        A counterexample and a proof speak of different arithmetics, and can both be right.
        """
        semantics = self.ran.semantics
        enclosing = "the box that encloses the specification's numbers"
        if self.verdict is Verdict.VERIFIED and semantics == "real":
            text = f"holds in real arithmetic, in which casts to narrower types round, on {enclosing}"
            return f"{text}; {self._without}" if self.left_out else text
        if self.verdict is Verdict.VERIFIED:
            box = "the box rounded to float32" if semantics == "float32" else enclosing
            text = f"holds as executed in {semantics}, sums in any order, with or without fused multiply-add, on {box}"
            return f"{text}, {assumption(self.ran.ulp)}" if self.ran.ulp else text
        if self.verdict is Verdict.FALSIFIED:
            box = "the box" if semantics == "float64" else "the box rounded to float32"
            return f"fails as executed by {self.ran.replay} in {self.ran.replay_dtype} at a point of {box}"
        return "nothing is known"

    @property
    def _without(self) -> str:
        return (
            f"proven of what the final {self.left_out} reads, whose every comparison of two outputs is one of its "
            "results; executed, it may round two of them to one number"
        )

    @property
    def margin(self) -> float | None:
        """The smallest of the rows' bounds; None where no row was bounded."""
        bounds = [row.lower for row in self.margins]
        known = [b for b in bounds if b is not None]
        return min(known) if known else None
