"""The search for counterexamples; what it finds counts only after the network itself has replayed it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.brief import brief_repr
from zonocuda.graph import Graph
from zonocuda.graph.ops import Shape
from zonocuda.specs import Region
from zonocuda.verifier.model import Subject

FAR, NEAR = 0.25, 0.02
"""First steps of starts, in widths of the box."""
THINNED_AT, THINNED, LEAST_STARTS = (0.25, 0.5), 4, 16
"""After which shares of the steps only one start of so many goes on, those that lack least; how many do at least."""
SHARE = 0.2
"""Of the time that is left, what one search before or between proofs may take."""
MAX_VALUES = 2**26
"""Of rows at points that are held together, where that leaves the random starts that were asked for."""


@dataclass(frozen=True, eq=False)
class Counterexample:
    """A float32 point of a region's float32 box whose output, as executed by the network itself, is unsafe.

    Attributes:
        x: the input ``[*input features]``, float32.
        y: the output ``[*output features]`` of the network at ``x``.
        region: position of the region in the specification.
    """

    x: Tensor
    y: Tensor
    region: int

    __repr__ = brief_repr


def replay(subject: Subject, region: Region, position: int, points: Tensor) -> Counterexample | None:
    """The first of the float32 ``points`` ``[n, *input features]`` that is a counterexample, or None.

    A point counts if it lies in [fl32(lower), fl32(upper)] (and in the box itself, where the subject asks for it) and
    its output, in the network's own arithmetic, satisfies a disjunct exactly (the constraints are evaluated in
    rationals). Each point is executed alone, and one that counts a second time.

    Raises:
        NetworkMismatchError: a point that would count, and at which the network computes another output the second
            time, or one that its graph does not explain (:meth:`Subject.confirm`).
    """
    flat = points.reshape(len(points), -1)
    inside = ((flat >= region.box.float32_lower) & (flat <= region.box.float32_upper)).all(1)
    if not subject.rounded_box:
        inside &= ((flat.double() >= region.box.lower) & (flat.double() <= region.box.upper)).all(1)
    for x in points[inside]:
        y = subject.output(x)
        if region.is_unsafe(x.flatten().tolist(), y.flatten().tolist()):
            subject.confirm(x, y)
            return Counterexample(x, y, position)
    return None


def sample(region: Region, shape: Shape, seed: int, count: int = 128) -> Tensor:
    """Random points and random corners of a region's float32 box, ``[2 count, *shape]``."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    lower, upper = (b.reshape(shape) for b in (region.box.float32_lower, region.box.float32_upper))
    fraction = torch.rand((2 * count, *shape), generator=generator, dtype=torch.float32)
    fraction[count:] = fraction[count:].round()
    return torch.clamp(lower + (upper - lower) * fraction, lower, upper)


def falsify(
    subject: Subject,
    graph: Graph,
    region: Region,
    position: int,
    rows: Rows,
    deadline: Deadline,
    *,
    starts: Tensor | None = None,
    near: Tensor | None = None,
    candidates: int = 0,
    restarts: int = 32,
    steps: int = 40,
    seed: int = 0,
) -> Counterexample | None:
    """Projected gradient descent from many points at once (Madry et al. 2018), in float32, inside the float32 box.

    Each start works on one disjunct: it lowers the largest of the disjunct's rows, by steps of the gradient's sign, or,
    three of four, by those of Adam (Kingma and Ba 2015), whose momentum leads over ridges where signs go to and fro;
    scaled to the box and shrinking to a 25th, from a quarter of its width. A point where every row of some
    disjunct is at most zero is replayed on the network itself; where that fails, by rounding, the descent goes on.

    Args:
        subject: the network, for replays.
        graph: the network in float32, on the device to search on.
        region: the region, and its ``position`` in the specification.
        rows: its rows, in float32 on that device.
        deadline: when to give up.
        starts: points ``[n, *input features]`` to begin with, before random ones.
        near: the same, for steps of NEAR of the box's width at first: points that lack little lie beside a ridge where
            rows meet, which longer steps leave.
        candidates: random points of which the best, a quarter as many as restarts, are ``near``, too.
        restarts: number of random starts, at least one for each disjunct (up to MAX_VALUES of the rows' values).
        steps: steps of each start.
        seed: of the random starts.

    Returns:
        A counterexample, or None.
    """
    like = rows.constant
    lower, upper = (
        b.to(like.device).reshape(graph.input_shape) for b in (region.box.float32_lower, region.box.float32_upper)
    )
    if not region.disjuncts or bool((lower > upper).any()) or not bool((lower.isfinite() & upper.isfinite()).all()):
        return None
    generator = torch.Generator(device="cpu").manual_seed(seed)
    count = min(max(restarts, len(rows.disjuncts)), max(restarts, MAX_VALUES // sum(map(len, rows.disjuncts))))
    shape = (count, *graph.input_shape)
    fraction = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu").to(like.device)
    points = lower + (upper - lower) * fraction
    points[0] = lower + (upper - lower) / 2
    if starts is not None:
        points = torch.cat([starts.to(like), points])
    reach = points.new_full((len(points), *[1] * len(graph.input_shape)), FAR)
    close = [] if near is None else [near.to(like)]
    if candidates:
        close.append(_best(graph, rows, (lower, upper), generator, candidates, max(1, count // 4)))
    for extra in close:
        points, reach = (
            torch.cat([points, extra]),
            torch.cat([reach, reach.new_full((len(extra), *reach.shape[1:]), NEAR)]),
        )
    points = torch.clamp(points, lower, upper)
    number = torch.arange(len(points), device=like.device)
    target = number % len(rows.disjuncts)
    plain = (number // len(rows.disjuncts) % 4 == 0).reshape(-1, *[1] * len(graph.input_shape))
    mean, square = torch.zeros_like(points), torch.zeros_like(points)
    tried, thinned = 0, {round(share * steps) for share in THINNED_AT}
    for step in range(steps + 1):
        if deadline.remaining() <= 0:
            return None
        points = points.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            per_disjunct, loss = _excess_and_loss(rows, points, graph(points), target)
        unsafe = (per_disjunct <= 0).any(1).nonzero().squeeze(1)
        if len(unsafe) and tried < 200:
            chosen = unsafe[per_disjunct[unsafe].amin(1).argsort()[:4]]
            tried += len(chosen)
            found = replay(subject, region, position, points.detach()[chosen].cpu())
            if found is not None:
                return found
        if step < steps:
            if not loss.requires_grad:  # the rows do not depend on the input
                return None
            (gradient,) = torch.autograd.grad(loss.sum(), points)
            if (step + 1) in thinned and len(points) > LEAST_STARTS:
                lacks = per_disjunct.detach().gather(1, target.unsqueeze(1)).squeeze(1).nan_to_num(torch.inf)
                keep = lacks.argsort(stable=True)[: max(LEAST_STARTS, len(points) // THINNED)]
                state = points, gradient, mean, square, target, plain, reach
                points, gradient, mean, square, target, plain, reach = (one[keep] for one in state)
            mean.mul_(0.9).add_(gradient, alpha=0.1)
            square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
            direction = torch.where(plain, gradient.sign(), _adam(mean, square, step))
            size = reach * (0.04 ** (step / max(1, steps - 1)))
            points = torch.clamp(points.detach() - size * (upper - lower) * direction, lower, upper)
    return None


def _excess(rows: Rows, x: Tensor, y: Tensor) -> Tensor:
    """``[n, D]``: the largest row of every disjunct."""
    return _largest(rows, *_by_disjunct(rows, x, y))


def _largest(rows: Rows, values: Tensor, owner: Tensor) -> Tensor:
    nothing = values.new_full((len(values), len(rows.disjuncts)), -torch.inf)
    return nothing.scatter_reduce(1, owner.expand(len(values), -1), values, "amax")


def _by_disjunct(rows: Rows, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all disjuncts ``[n, M]``, and whose each is, ``[M]``."""
    index = torch.tensor([r for members in rows.disjuncts for r in members], device=x.device)
    owner = torch.tensor([d for d, members in enumerate(rows.disjuncts) for _ in members], device=x.device)
    return rows.values(x, y)[:, index], owner


def _excess_and_loss(rows: Rows, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`_excess`, and a loss ``[n]`` of the disjunct that each point works on: its largest row, where there are
    several smoothed, t log sum exp(row / t) with t what it lacks, which leads along ridges where rows meet."""
    values, owner = _by_disjunct(rows, x, y)
    excess = _largest(rows, values, owner)
    largest = excess.gather(1, target.unsqueeze(1))
    if max(map(len, rows.disjuncts)) == 1:
        return excess, largest.squeeze(1)
    top = largest.detach()
    smooth = top.clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    parts = ((values - top) / smooth).masked_fill(owner != target.unsqueeze(1), -torch.inf)
    return excess, (top + smooth * parts.logsumexp(1, keepdim=True)).squeeze(1)


def _best(graph: Graph, rows: Rows, box: Bounds, generator: torch.Generator, count: int, kept: int) -> Tensor:
    """Of so many random points those where some disjunct lacks least."""
    lower, upper = box
    fraction = torch.rand((count, *graph.input_shape), generator=generator, dtype=torch.float32, device="cpu")
    points = torch.clamp(lower + (upper - lower) * fraction.to(lower.device), lower, upper)
    with torch.no_grad():
        lacks = _excess(rows, points, graph(points)).amin(1).nan_to_num(torch.inf)
    return points[lacks.argsort(stable=True)[:kept]]


def _adam(mean: Tensor, square: Tensor, step: int) -> Tensor:
    """The direction for running means of the gradient (decay 0.9) and of its square (0.99)."""
    return (mean / (1 - 0.9 ** (step + 1))) / (square / (1 - 0.99 ** (step + 1))).sqrt().clamp(min=1e-30)
