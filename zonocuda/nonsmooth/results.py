"""What an audit finds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

TieClass = Literal["none", "compensation", "bifurcation", "not finite"]
Verdict = Literal["differentiable", "subgradient", "unknown"]


@dataclass(frozen=True)
class Certificate:
    """What is proven of a gradient: see :mod:`zonocuda.nonsmooth.certificate`."""

    verdict: Verdict
    theorem: str
    reason: str


@dataclass
class LayerReport:
    """One layer at one dtype, summed over the minibatches.

    Attributes:
        layer: the module, the kind of function, and a number where a module calls several.
        kind: the kind of function.
        calls: how often it was called.
        elements: arguments of a ReLU, or maxima.
        ties: exact zeros, or tied maxima.
        tied_positive: tied maxima above 0 (an argument of a ReLU has none).
        structural: ties that are still ties in float64 along the same routing.
        induced: the others, which only rounding to this dtype made.
        reached: ties with an incoming gradient other than zero, under the first convention.
        minibatches: how many there were.
        differing: in how many of them the choice of this layer alone changed the gradient.
        absolute: the largest change, in the Euclidean norm over all parameters.
        relative: the largest change over the norm of the gradient.
        persistence: of the change with the most decisive class: its size in float64 over that in float32.
        verdict: the class; the gravest of all minibatches.
        by_channel: ties of each channel (dimension 1), for the picture.
    """

    layer: str
    kind: str
    calls: int = 0
    elements: int = 0
    ties: int = 0
    tied_positive: int = 0
    structural: int = 0
    induced: int = 0
    reached: int = 0
    minibatches: int = 0
    differing: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    persistence: float | None = None
    verdict: TieClass = "none"
    by_channel: list[int] = field(default_factory=list)


@dataclass
class DtypeReport:
    """All layers at one dtype; ``total`` switches every layer at once."""

    dtype: str
    layers: list[LayerReport]
    total: LayerReport
    certificates: list[Certificate]
    unrecorded: dict[str, int]


@dataclass(frozen=True)
class AuditReport:
    """The whole audit: a report for each dtype, and what was compared.

    ``str(report)`` is the table; :func:`zonocuda.nonsmooth.page.html_page` makes the page.
    """

    model: str
    samples: int
    batch_size: int
    conventions: tuple[dict[str, Any], dict[str, Any]]
    dtypes: list[DtypeReport]
    versions: dict[str, str]
    device: str

    def to_json(self) -> dict[str, Any]:
        """The JSON document (schema: docs/json.md); numbers that JSON has not are strings."""
        return {"schema": "zonocuda.audit/1", **_plain(asdict(self))}

    def __getitem__(self, dtype: str) -> DtypeReport:
        for report in self.dtypes:
            if report.dtype == dtype:
                return report
        raise KeyError(dtype)

    def __str__(self) -> str:
        from zonocuda.nonsmooth.report import text

        return text(self)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
