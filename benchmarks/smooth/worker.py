"""auto_LiRPA behind a pipe, for networks of benchmarks/smooth/models.py. Needs torch, numpy and auto_LiRPA.

Runs under the interpreter that has auto_LiRPA, imports models.py beside it and nothing of zonocuda, and answers one
JSON line for each line:

    {"do": "load", "name": N, "file": FILE.npz}           a network's weights
    {"do": "bound", "point": [...], "radius": r, "iterations": n}
                   bounds of the outputs; n = 0 is CROWN, n > 0 alpha-CROWN with so many iterations
"""

from __future__ import annotations

import json
import os
import sys
import time

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what imports and auto_LiRPA print goes elsewhere

import auto_LiRPA  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from auto_LiRPA import BoundedModule, BoundedTensor  # noqa: E402
from auto_LiRPA.perturbations import PerturbationLpNorm  # noqa: E402
from models import NETWORKS  # noqa: E402

OPTIONS = {"conv_mode": "matrix", "sparse_features_alpha": False}
"""Its defaults fail on products and on tokens."""


def load(name, path):
    """The network with its weights."""
    with np.load(path) as archive:
        weights = {key: torch.from_numpy(archive[key]) for key in archive.files}
    network = NETWORKS[name](plain=True)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def bound(network, asked):
    """Bounds, and the processor's time for them without that of the module's analysis."""
    point = torch.tensor([asked["point"]])
    value = network(point)
    bounded = BoundedModule(network, torch.empty_like(point), OPTIONS, device="cpu")
    x = BoundedTensor(point, PerturbationLpNorm(norm=float("inf"), eps=asked["radius"]))
    begin = time.process_time()
    if asked["iterations"]:
        bounded.set_bound_opts({"optimize_bound_args": {"iteration": asked["iterations"]}})
        lower, upper = bounded.compute_bounds(x=(x,), method="CROWN-Optimized")
    else:
        with torch.no_grad():
            lower, upper = bounded.compute_bounds(x=(x,), method="CROWN")
    seconds = time.process_time() - begin
    lower, upper = (b.detach().flatten().tolist() for b in (lower, upper))
    return {"lower": lower, "upper": upper, "value": value.flatten().tolist(), "seconds": seconds}


def main():
    """Answers until the pipe ends."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    facts = {"auto_LiRPA": getattr(auto_LiRPA, "__version__", "unknown"), "torch": torch.__version__}
    ANSWERS.write(json.dumps({**facts, "threads": torch.get_num_threads()}) + "\n")
    network = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["do"] == "load":
                network, answer = load(asked["name"], asked["file"]), {}
            else:
                answer = bound(network, asked)
        except Exception as error:  # the peer's own, of any kind: this network or box is not for it
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        ANSWERS.write(json.dumps(answer) + "\n")


main()
