"""One ReLU of neuron splitting, two ways: what the search does, and the op ``dual_split``.

    python -m benchmarks.split_image [--rows 256] [--neurons 4096] [--repeat 30] [--json F]

The search keeps signs, slopes and multipliers of the crossing neurons alone, ``[S, K]``, side by side for all layers,
and its image of rows ``[S, N]`` is made of products and sums (:mod:`zonocuda.bounds.dual.signs`). The op takes all of
them for every neuron, ``[1, S, N]``. A line for each share of neurons that cross: CPU seconds of the image and of its
backward pass with the derivatives of slopes and multipliers, the least of all repeats, over those of the search;
``op, spread`` writes what the search keeps into tensors of every neuron first. Nothing else of a pass differs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import commit_info, machine_info
from zonocuda import ops
from zonocuda.bounds.dual.signs import KnownSigns, SignLayer, _SignedImage
from zonocuda.graph import Node, Relu

SHARES = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Row:
    """Seconds of one share of crossing neurons."""

    share: float
    search: float
    op: float
    spread: float
    difference: float


class Case:
    """Rows at a ReLU of which some neurons cross; one in ten of those is split in each row."""

    def __init__(self, rows: int, neurons: int, share: float) -> None:
        generator = torch.Generator().manual_seed(0)

        def rand(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        count = round(share * neurons)
        order = torch.randperm(neurons, generator=generator)
        lower, upper = -rand(1, neurons) - 0.1, rand(1, neurons) + 0.1
        lower[0, order[count::2]], upper[0, order[count + 1 :: 2]] = 0.05, -0.05
        self.lower, self.upper = lower, upper
        self.layer = SignLayer.of(Node("relu", Relu(), ("x",), (neurons,)), (lower, upper))
        self.rows = (2 * rand(rows, neurons) - 1).requires_grad_()
        self.signs = (rand(rows, count) < 0.1).float() * (2 * (rand(rows, count) < 0.5).float() - 1)
        self.slopes, self.multipliers = (rand(rows, count).requires_grad_() for _ in range(2))
        self.known = KnownSigns.of(self.signs, self.layer.slope)
        self.full = [self.spread(t.detach()) for t in (self.signs, self.multipliers, self.slopes)]
        self.full[1:] = [t.requires_grad_() for t in self.full[1:]]

    def spread(self, t: Tensor) -> Tensor:
        """``[S, K]`` as ``[1, S, N]``."""
        return t.new_zeros(1, *self.rows.shape).index_copy(2, self.layer.index, t.unsqueeze(0))

    def search(self) -> list[Tensor]:
        """The image and the derivatives as the search has them."""
        image, low = _SignedImage.apply(  # type: ignore[no-untyped-call]
            self.rows, self.slopes, self.multipliers, self.known, self.layer
        )
        return self._backward(image, low, [self.rows, self.slopes, self.multipliers])

    def op(self) -> list[Tensor]:
        """By the op, for tensors of every neuron."""
        splits, multipliers, slopes = self.full
        return self._by_op(splits, multipliers, slopes, [self.rows, slopes, multipliers])

    def op_and_spread(self) -> list[Tensor]:
        """By the op, for what the search keeps."""
        splits, multipliers, slopes = (self.spread(t) for t in (self.signs, self.multipliers, self.slopes))
        return self._by_op(splits, multipliers, slopes, [self.rows, self.slopes, self.multipliers])

    def _by_op(self, splits: Tensor, multipliers: Tensor, slopes: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        rows = self.rows.unsqueeze(0)
        out = ops.dual_split(rows, self.lower, self.upper, splits.to(torch.int8), multipliers, None, slopes)
        return self._backward(out.rows.squeeze(0), out.low.squeeze(0), leaves)

    def _backward(self, image: Tensor, low: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        gradients = torch.autograd.grad([image, low], leaves, [torch.ones_like(image), torch.ones_like(low)])
        return [image.detach(), low.detach(), *gradients]


def least(call: Callable[[], object], repeat: int) -> float:
    """CPU seconds of the fastest of some calls."""
    call()
    found = []
    for _ in range(repeat):
        begin = time.process_time()
        call()
        found.append(time.process_time() - begin)
    return min(found)


def measured(rows: int, neurons: int, share: float, repeat: int) -> Row:
    """One line, after both ways gave the same."""
    case = Case(rows, neurons, share)
    pairs = zip(case.search(), case.op_and_spread(), strict=True)
    difference = max(float((a - b).abs().max() / (1 + a.abs().max())) for a, b in pairs)
    return Row(share, *(least(call, repeat) for call in (case.search, case.op, case.op_and_spread)), difference)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--neurons", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| crossing | search, ms | op | op, spread | difference |\n|---|---|---|---|---|")
    found = []
    for share in SHARES:
        row = measured(options.rows, options.neurons, share, options.repeat)
        found.append(row)
        ratios = f"{row.op / row.search:.2f} | {row.spread / row.search:.2f}"
        print(f"| {share:.0%} | {1e3 * row.search:.2f} | {ratios} | {row.difference:.1e} |", flush=True)
    if options.json is not None:
        document = {
            "command": f"python -m benchmarks.split_image --rows {options.rows} --neurons {options.neurons}",
            "datetime": datetime.now().isoformat(timespec="seconds"),
            "machine_info": machine_info(),
            "commit_info": commit_info(),
            "rows": [asdict(row) for row in found],
        }
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
