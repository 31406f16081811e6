"""Max pooling: how tight its bounds are beside the usual relaxation, and what it costs beside average pooling.

    python -m benchmarks.pooling [--seeds 12] [--json FILE]

Tightness: rows over 2x2 maxima of a map, bounded with optimised slopes (:func:`zonocuda.optimize_bounds`). The usual
relaxation takes below the input with the largest lower bound, above the largest upper bound, or an input that dominates
(DeepPoly, Singh et al. 2019), with the same bounds of the pool's inputs. The distance of either bound from the least of
4096 sampled values is printed as a ratio, ours over theirs, by the kind of problem:

    random   a random linear layer, 4x4 map, 2x2 windows, 16 random rows
    relu     as in verivital's networks: two 3x3 convolutions with ReLUs, 2x2 pooling behind each, one linear layer

``rows`` is how many there were, ``worse`` how many of them have a smaller bound than the usual one, ``median`` and
``largest`` the ratios. Cost: a forward sweep, and the dual pass of ten rows, of a 3x3 convolution with a ReLU on 16
maps of 32x32, 2x2 pooling and a linear layer, with maxima over with averages: seconds of CPU, the least of three;
``ended`` is the dual pass whose rows end at maxima, with the bounds that it needs. What
the pool's generators take of memory is counted in ``tests/verifier/test_piecewise.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import commit_info, machine_info
from zonocuda.bounds.dual.problem import RowProblem, dual_bound, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.dual.stops import Maxima
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module
from zonocuda.verifier import optimize_bounds

Affine = tuple[Tensor, Tensor]
"""A row ``[N]`` and a constant."""


def corner_bound(weight: Tensor, constant: Tensor, box: tuple[Tensor, Tensor]) -> Tensor:
    """The least weight . x + constant over a box."""
    return torch.where(weight >= 0, weight * box[0], weight * box[1]).sum() + constant


def pooled_row(row: Tensor, low: Tensor, high: Tensor) -> Affine:
    """A row ``[C, h, w]`` over 2x2 maxima of maps ``[C, 2 h, 2 w]`` in [low, high], by the usual relaxation."""
    windows = [t.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3) for t in (low, high)]  # [C, h, w, 4]
    best = windows[0].argmax(3, keepdim=True)
    others = windows[1].scatter(3, best, -torch.inf).amax(3)
    dominates = windows[0].amax(3) >= others
    exact = (row >= 0) | dominates
    chosen = torch.zeros_like(windows[0]).scatter(3, best, (row * exact).unsqueeze(3))
    constant = (row * windows[1].amax(3))[~exact].sum()
    maps, height, width = row.shape
    spread = chosen.reshape(maps, height, width, 2, 2).permute(0, 1, 3, 2, 4).reshape(low.shape)
    return spread, constant


def relu_row(row: Tensor, low: Tensor, high: Tensor) -> Affine:
    """A row over ReLUs of inputs in [low, high], by CROWN's relaxation."""
    crossing = (low < 0) & (high > 0)
    slope = torch.where(crossing, high / (high - low), (low >= 0).to(row))
    adaptive = torch.where(crossing, (high >= -low).to(row), slope)
    chosen = torch.where(row >= 0, adaptive, slope)
    return row * chosen, (torch.where(crossing, row.clamp(max=0), 0.0) * -slope * low).sum()


def usual(model: nn.Sequential, row: Tensor, known: dict[int, tuple[Tensor, Tensor]], box: Any) -> Tensor:
    """A lower bound of ``row`` over a network's output, for bounds of what its ReLUs and pools read, by layer."""
    with torch.enable_grad():
        constant = row.new_zeros(())
        for number in reversed(range(len(model))):
            layer = model[number]
            low, high = known[number]
            if isinstance(layer, nn.ReLU):
                row, more = relu_row(row, low, high)
            elif isinstance(layer, nn.MaxPool2d):
                row, more = pooled_row(row, low, high)
            else:
                x = torch.zeros_like(low, requires_grad=True)
                value = (layer(x.unsqueeze(0))[0] * row).sum()
                row, more = torch.autograd.grad(value, x)[0], value.detach()
            constant = constant + more
        return corner_bound(row, constant, box)


def known_bounds(model: nn.Sequential, box: tuple[Tensor, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """Bounds of what every layer reads: by the usual relaxation behind layers with weights, by intervals elsewhere."""
    known = {0: box}
    for number in range(1, len(model)):
        low, high = known[number - 1]
        layer = model[number - 1]
        if isinstance(layer, nn.ReLU | nn.MaxPool2d | nn.Flatten | nn.Unflatten):
            known[number] = (layer(low.unsqueeze(0))[0], layer(high.unsqueeze(0))[0])
            continue
        front = model[:number]
        shape = front(box[0].unsqueeze(0))[0].shape
        units = torch.eye(shape.numel(), dtype=low.dtype).reshape(-1, *shape)
        ends = [torch.stack([usual(front, sign * unit, known, box) for unit in units]) for sign in (1, -1)]
        known[number] = (ends[0].reshape(shape), -ends[1].reshape(shape))
    return known


def random_problem(seed: int) -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """A random linear layer, and pooling of a 4x4 map."""
    inputs, eps = [(4, 0.3), (16, 0.1), (16, 0.5), (64, 0.05)][seed % 4]
    torch.manual_seed(seed)
    head = nn.Linear(4, 16, bias=False)
    model = nn.Sequential(nn.Linear(inputs, 16), nn.Unflatten(1, (1, 4, 4)), nn.MaxPool2d(2), nn.Flatten(), head)
    x = torch.randn(inputs, dtype=torch.float64)
    return model.double(), (x - eps, x + eps)


def relu_problem(seed: int) -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """Convolutions with ReLUs and pooling, on an image of 12x12."""
    torch.manual_seed(seed)
    front = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*front, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 10))
    x, eps = torch.rand(1, 12, 12, dtype=torch.float64), (0.005, 0.02, 0.05)[seed % 3]
    return model.double(), (x - eps, x + eps)


PROBLEMS: dict[str, Callable[[int], tuple[nn.Sequential, tuple[Tensor, Tensor]]]] = {
    "random": random_problem,
    "relu": relu_problem,
}


@torch.no_grad()
def tightness(kind: str, seeds: int) -> dict[str, Any]:
    """Ratios of distances, over all rows of some problems."""
    ratios = []
    for seed in range(seeds):
        model, box = PROBLEMS[kind](seed)
        known = known_bounds(model, box)
        outputs = model(box[0].unsqueeze(0)).shape[1]
        units = torch.eye(outputs, dtype=torch.float64)
        theirs = torch.stack([usual(model, unit, known, box) for unit in units])
        zonotope = Zonotope.from_box(*(end.unsqueeze(0) for end in box))
        ours = optimize_bounds(model, zonotope, units).lower[0]
        points = box[0] + (box[1] - box[0]) * torch.rand(4096, *box[0].shape, dtype=torch.float64)
        least = model(points).amin(0)
        assert bool((ours <= least).all())
        assert bool((theirs <= least).all())
        ratios.append((least - ours) / (least - theirs))
    ratio = torch.cat(ratios)
    return {
        "kind": kind,
        "rows": len(ratio),
        "worse": int((ratio > 1 + 1e-6).sum()),
        "median": float(ratio.median()),
        "largest": float(ratio.max()),
    }


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call, the least of three."""
    found = []
    for _ in range(3):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


@torch.no_grad()
def cost() -> dict[str, Any]:
    """Seconds of 2x2 pooling, of maxima over averages."""
    found: dict[str, Any] = {}
    for name, pool in (("average", nn.AvgPool2d(2)), ("largest", nn.MaxPool2d(2))):
        torch.manual_seed(0)
        front = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), pool)
        graph: Graph = from_module(nn.Sequential(front, nn.Flatten(), nn.Linear(4096, 10)), (3, 32, 32)).to(
            torch.float32
        )
        x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        zonotope = Zonotope.from_ball(x, 8 / 255)
        inputs = sweep(graph, zonotope).intermediate
        rows = Rows(
            torch.eye(10), torch.zeros(10, 3072), torch.zeros(10), (1,) * 10, tuple((i,) for i in range(10)), ("",) * 10
        )

        def ended(graph: Graph = graph, z: Zonotope = zonotope, inputs: Any = inputs, rows: Rows = rows) -> None:
            maxima = Maxima(graph, inputs, z.bounds())
            usual = maxima.usual({name: s.flat() for name, s in initial_slopes(graph, inputs, "adaptive").items()})
            problem = RowProblem(output_rows(graph, rows, 1), z.bounds(), inputs, stops=maxima.stops)
            problem.bound(lambda node: usual[node.name], ends=True)

        found[name] = {
            "ended": seconds(ended),
            "sweep": seconds(lambda g=graph, z=zonotope: sweep(g, z)),
            "dual": seconds(lambda g=graph, z=zonotope, i=inputs, r=rows: dual_bound(g, r, z.bounds(), i)),
        }
    return {
        **found,
        "ratio": {way: found["largest"][way] / found["average"][way] for way in ("sweep", "dual", "ended")},
    }


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'kind':8} {'rows':>6} {'worse':>6} {'median':>8} {'largest':>8}")
    rows = []
    for kind in PROBLEMS:
        rows.append(tightness(kind, arguments.seeds))
        row = rows[-1]
        print(f"{kind:8} {row['rows']:6} {row['worse']:6} {row['median']:8.3f} {row['largest']:8.3f}", flush=True)
    costs = cost()
    print("seconds of maxima over those of averages: " + ", ".join(f"{k} {v:.2f}" for k, v in costs["ratio"].items()))
    if arguments.json:
        about = {"date": date.today().isoformat(), "machine": machine_info(), "commit_info": commit_info()}
        arguments.json.write_text(json.dumps({**about, "tightness": rows, "cost": costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
