"""The search for counterexamples inside a search that splits: at points of open parts, and from the best of them."""

from __future__ import annotations

import torch
from torch import Tensor

from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph
from zonocuda.specs import Region
from zonocuda.verifier.falsify import Counterexample, falsify, replay
from zonocuda.verifier.model import Subject
from zonocuda.verifier.ridge import along_ridge

REPLAYS = 4
"""Points of a batch that are replayed at most."""
FIRST_DESCENT = 1024
"""Points of open boxes that are looked at before gradients are followed."""
DESCEND_AFTER = 4
"""Times as many until they are followed again."""
STARTS, MOST_STARTS = 1024, 2048
"""Random ones of the first descent, twice as many each time; from the best of the points, and of CANDIDATES times as
many random ones, a quarter as many each."""
CANDIDATES = 8
STEPS, MOST_STEPS = 30, 480
"""Of the first descent, twice as many each time."""
RIDGES, APART = 3, 8
"""Of the best points so many, so far apart in their order, from where linear programs go on before a descent, where
rows meet: points beside each other are often of one box."""


class Attack:
    """Looks for counterexamples at points ``[n, N]``; where there is a deadline, from the best of them, too, by linear
    programs and gradients, whenever DESCEND_AFTER times as many points have been seen as the last time."""

    def __init__(
        self,
        subject: Subject,
        graph: Graph,
        region: Region,
        position: int,
        like: Rows,
        deadline: Deadline | None = None,
        seen: int = 0,
        seed: int = 0,
    ) -> None:
        """``like`` has the sizes and the device of the rows; ``deadline``: of descents; none is made without one;
        ``seen``: points that others have looked at."""
        self.subject, self.graph, self.region, self.position, self.deadline = subject, graph, region, position, deadline
        box = region.box
        example = torch.empty((), dtype=torch.float32, device=like.constant.device)
        self.rows = Rows.of(region, like.input.shape[1], like.output.shape[1], example)
        self.low, self.high = (end.to(example.device) for end in (box.float32_lower, box.float32_upper))
        self.members = [list(disjunct) for disjunct in self.rows.disjuncts]
        self.seen, self.next, self.descents, self.seed = seen, FIRST_DESCENT, 0, seed
        while self.next <= seen:
            self.next, self.descents = DESCEND_AFTER * self.next, self.descents + 1

    def __call__(self, points: Tensor) -> Counterexample | None:
        """At points ``[n, N]``."""
        with torch.no_grad():
            x = torch.clamp(points.float(), self.low, self.high).reshape(-1, *self.graph.input_shape)
            values = self.rows.values(x, self.graph(x))
            excess, nearest = torch.stack([values[:, rows_of].amax(1) for rows_of in self.members]).min(0)
        order = excess.nan_to_num(torch.inf).argsort(stable=True)
        chosen = order[:REPLAYS]
        chosen = chosen[excess[chosen] <= 0]
        found = replay(self.subject, self.region, self.position, x[chosen].cpu()) if len(chosen) else None
        self.seen += len(points)
        if found is not None or self.deadline is None or self.seen < self.next:
            return found
        self.next = DESCEND_AFTER * self.seen
        again, self.descents = self.descents, self.descents + 1
        best = order[: RIDGES * APART : APART].tolist()
        found = self.ridges([(x[i], self.members[int(nearest[i])]) for i in best])
        if found is not None:
            return found
        starts = min(MOST_STARTS, STARTS * 2**again)
        with torch.enable_grad():
            return falsify(
                self.subject,
                self.graph,
                self.region,
                self.position,
                self.rows,
                self.deadline,
                near=x[order[: starts // 4]],
                candidates=CANDIDATES * starts,
                restarts=starts,
                steps=min(MOST_STEPS, STEPS * 2**again),
                seed=self.seed + self.descents,
            )

    def ridges(self, starts: list[tuple[Tensor, list[int]]]) -> Counterexample | None:
        """By linear programs from points, each with the rows of a disjunct, where these are several."""
        assert self.deadline is not None
        box = self.low.reshape(self.graph.input_shape), self.high.reshape(self.graph.input_shape)
        for point, members in starts:
            if len(members) == 1 or self.deadline.remaining() <= 0:
                continue
            end = along_ridge(self.graph, self.rows, members, box, point)
            found = replay(self.subject, self.region, self.position, end.unsqueeze(0).cpu())
            if found is not None:
                return found
        return None
