"""The audit of our own objective: slopes of a zonotope ReLU that sit on their kink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

RULES = ("envelope", "left", "right", "even", "min_norm")  # in the order of the native ops' numbers
Objective = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class RuleChange:
    """How far a rule on the kink moves the gradient of the slopes, against the first rule."""

    rule: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class SlopeReport:
    """What :func:`audit_slopes` finds on one device.

    Attributes:
        device: where it ran.
        slopes: of neurons that cross zero, so that the slope matters.
        on_kink: of these, how many lie within the tolerance of lam* = u / (u - l).
        exactly: of these, how many equal the rounded quotient.
        gradient: the norm of the slopes' gradient under the first rule.
        changes: for every other rule, how far it moves that gradient.
    """

    device: str
    slopes: int
    on_kink: int
    exactly: int
    gradient: float
    changes: tuple[RuleChange, ...]


@dataclass(frozen=True)
class SlopeAudit:
    """The reports, and how far the devices' gradients lie apart; None, with the reason, where there is one device."""

    devices: tuple[SlopeReport, ...]
    between_devices: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class _Rule(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts a rule into every backward of a zonotope ReLU, and counts slopes on the kink."""

    _BACKWARDS = ("zonocuda::_relu_backward", "zonocuda::_relu_relaxation_backward")

    def __init__(self, rule: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rule, self.slopes, self.on_kink, self.exactly = rule, 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func._schema.name not in self._BACKWARDS:
            return func(*args, **(kwargs or {}))
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        if given["slope"] is not None:
            self._count(given["lower"], given["upper"], given["slope"], given["kink_tolerance"])
        return func(**given | {"kink": self.rule})

    def _count(self, lower: Tensor, upper: Tensor, slope: Tensor, tolerance: float) -> None:
        crossing = (lower < 0) & (upper > 0)
        star = (upper / (upper - lower))[crossing]
        distance = (slope.clamp(0, 1)[crossing] - star).abs()
        self.slopes += star.numel()
        self.on_kink += int((distance <= tolerance).sum())
        self.exactly += int((distance == 0).sum())


def audit_slopes(
    objective: Objective, slopes: Sequence[Tensor], *, devices: Sequence[str] = ("cpu", "cuda")
) -> SlopeAudit:
    """How many slopes of a zonotope objective sit on the kink, and how far the choices there move its gradient.

    The usual start, lam = u / (u - l), is exactly where the offset mu(lam) has its kink, so that the derivative with
    respect to lam is a choice: see :mod:`zonocuda.kink` for the rules. Neurons whose slope is tied to the bounds have
    no kink and are not counted.

    Args:
        objective: takes the slopes, on one of the devices, and returns a scalar made of native ops on that device.
        slopes: what the objective takes; they are copied to every device.
        devices: where to run. "cuda" is left out, with the reason in the result, where torch sees none.

    Raises:
        ValueError: no device is left.

    Examples:
        >>> from zonocuda import ops
        >>> center, generators = torch.zeros(1, 2), torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        >>> objective = lambda slopes: ops.relu(center, generators, slopes[0]).offset.sum()
        >>> (report,) = audit_slopes(objective, [torch.full((1, 2), 0.5)], devices=["cpu"]).devices
        >>> report.slopes, report.on_kink
        (2, 2)
    """
    reports, gradients, missing = [], [], []
    for device in devices:
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            missing.append(f"{device}: torch sees no CUDA device")
            continue
        report, gradient = _on_device(objective, slopes, device)
        reports.append(report)
        gradients.append(gradient)
    if not reports:
        raise ValueError(f"audit_slopes: no device to run on ({'; '.join(missing)})")
    if len(reports) < 2:
        return SlopeAudit(tuple(reports), None, "; ".join(missing) or "one device was asked for")
    between = max(float((g - gradients[0]).norm()) for g in gradients[1:])
    return SlopeAudit(tuple(reports), between, "")


def _on_device(objective: Objective, slopes: Sequence[Tensor], device: str) -> tuple[SlopeReport, Tensor]:
    gradients, first = [], None
    for number, _ in enumerate(RULES):
        leaves = [s.detach().to(device).clone().requires_grad_() for s in slopes]
        with _Rule(number) as mode:
            value = objective(leaves)
            grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([g.double().cpu().flatten() for g in grads]))
        first = first or mode
    assert first is not None
    size = float(gradients[0].norm())
    changes = []
    for rule, gradient in zip(RULES[1:], gradients[1:], strict=True):
        moved = float((gradient - gradients[0]).norm())
        changes.append(RuleChange(rule, moved, moved / size if size > 0 else (float("inf") if moved else 0.0)))
    return SlopeReport(device, first.slopes, first.on_kink, first.exactly, size, tuple(changes)), gradients[0]
