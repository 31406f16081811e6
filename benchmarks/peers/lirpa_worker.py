"""auto_LiRPA behind a pipe: bounds of a network that is told operator by operator. Needs torch, numpy and auto_LiRPA.

Runs under the interpreter that has auto_LiRPA, imports nothing of zonocuda, and answers one JSON line for each line:

    {"do": "load", "file": FILE.npz}                      network, box and rows (benchmarks/peers/lirpa.py writes them)
    {"do": "bound", "method": M, "iterations": n}          lower bounds of the rows
    {"do": "trim"}                                         free memory goes back to the system (glibc)

A bound is computed with C = rows, so that rows are bounded themselves, as auto_LiRPA's own verifier does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what imports and auto_LiRPA print goes elsewhere

import auto_LiRPA  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from auto_LiRPA import BoundedModule, BoundedTensor  # noqa: E402
from auto_LiRPA.perturbations import PerturbationLpNorm  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Network(nn.Module):
    """The nodes of a graph, in order."""

    def __init__(self, nodes, arrays):
        super().__init__()
        self.nodes = nodes
        self.held = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(value)) for name, value in arrays.items()})

    def forward(self, x):
        values = {}
        for node in self.nodes:
            inputs = [values[name] for name in node["inputs"]]
            weight, bias = (self.held[node[key]] if node.get(key) else None for key in ("weight", "bias"))
            kind = node["kind"]
            if kind == "Input":
                y = x
            elif kind == "Linear":
                y = F.linear(inputs[0], weight, bias)
            elif kind == "Conv":
                y = F.conv2d(inputs[0], weight, bias, node["stride"], node["padding"])
            elif kind == "Relu":
                y = F.relu(inputs[0])
            elif kind == "Reshape":
                y = inputs[0].flatten(1) if len(node["shape"]) == 1 else inputs[0].reshape(-1, *node["shape"])
            elif kind == "Add":
                y = inputs[0] + inputs[1]
            else:
                raise ValueError(f"{kind} is not told to auto_LiRPA")
            values[node["name"]] = y
        return y


def load(path):
    """The bounded module, its input and the rows."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    nodes = json.loads(arrays.pop("nodes").tobytes().decode())
    lower, upper, rows = (torch.from_numpy(arrays.pop(name)) for name in ("box_lower", "box_upper", "rows"))
    network = Network(nodes, arrays).eval()
    center = (lower + upper) / 2
    bounded = BoundedModule(network, torch.empty_like(center), device="cpu")
    x = BoundedTensor(center, PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper))
    return bounded, x, rows.unsqueeze(0)


def main():
    """Answers until the pipe ends."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    facts = {"auto_LiRPA": getattr(auto_LiRPA, "__version__", "unknown"), "torch": torch.__version__}
    ANSWERS.write(json.dumps({**facts, "threads": torch.get_num_threads()}) + "\n")
    bounded = x = rows = None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "load":
            bounded, x, rows = load(asked["file"])
            ANSWERS.write("{}\n")
            continue
        if asked["do"] == "trim":
            ctypes.CDLL(None).malloc_trim(0)
            ANSWERS.write("{}\n")
            continue
        if asked["iterations"]:
            bounded.set_bound_opts({"optimize_bound_args": {"iteration": asked["iterations"]}})
            lower, _ = bounded.compute_bounds(x=(x,), C=rows, method="CROWN-Optimized", bound_upper=False)
        else:
            with torch.no_grad():
                lower, _ = bounded.compute_bounds(x=(x,), C=rows, method=asked["method"], bound_upper=False)
        ANSWERS.write(json.dumps({"lower": lower.detach().flatten().tolist()}) + "\n")


main()
