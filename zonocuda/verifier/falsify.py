"""The search for counterexamples; what it finds counts only after the network itself has replayed it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.rows import Rows
from zonocuda.brief import brief_repr
from zonocuda.graph import Graph
from zonocuda.graph.ops import Shape
from zonocuda.specs import Region
from zonocuda.verifier.model import Subject

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
    restarts: int = 32,
    steps: int = 40,
    seed: int = 0,
) -> Counterexample | None:
    """Projected gradient descent from many points at once (Madry et al. 2018), in float32, inside the float32 box.

    Each start works on one disjunct: it lowers the largest of the disjunct's rows, by steps of the gradient's sign,
    scaled to the box and shrinking from a quarter of its width to a hundredth. A point where every row of some
    disjunct is at most zero is replayed on the network itself; where that fails, by rounding, the descent goes on.

    Args:
        subject: the network, for replays.
        graph: the network in float32, on the device to search on.
        region: the region, and its ``position`` in the specification.
        rows: its rows, in float32 on that device.
        deadline: when to give up.
        starts: points ``[n, *input features]`` to begin with, before random ones.
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
    index = torch.tensor([r for members in rows.disjuncts for r in members], device=like.device)
    owner = torch.tensor([d for d, members in enumerate(rows.disjuncts) for _ in members], device=like.device)
    count = min(max(restarts, len(rows.disjuncts)), max(restarts, MAX_VALUES // len(index)))
    shape = (count, *graph.input_shape)
    fraction = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu").to(like.device)
    points = lower + (upper - lower) * fraction
    points[0] = lower + (upper - lower) / 2
    if starts is not None:
        points = torch.cat([starts.to(like), points])
    points = torch.clamp(points, lower, upper)
    target = torch.arange(len(points), device=like.device) % len(rows.disjuncts)
    tried = 0
    for step in range(steps + 1):
        if deadline.remaining() <= 0:
            return None
        points = points.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            values = rows.values(points, graph(points))
            nothing = values.new_full((len(points), len(rows.disjuncts)), -torch.inf)
            per_disjunct = nothing.scatter_reduce(1, owner.expand(len(points), -1), values[:, index], "amax")
            loss = per_disjunct.gather(1, target.unsqueeze(1)).sum()
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
            (gradient,) = torch.autograd.grad(loss, points)
            size = 0.25 * (0.04 ** (step / max(1, steps - 1)))
            points = torch.clamp(points.detach() - size * (upper - lower) * gradient.sign(), lower, upper)
    return None
