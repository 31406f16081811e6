"""auto_LiRPA (https://github.com/Verified-Intelligence/auto_LiRPA).

ZONOCUDA_PEER_AUTO_LIRPA is a Python interpreter that has it, or a folder that holds it, for this interpreter; else it
is what this interpreter has.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers.process import PeerError, Worker
from benchmarks.tightness_cases import Case
from zonocuda.graph import Add, Conv, Graph, Input, Linear, Relu, Reshape

VARIABLE = "ZONOCUDA_PEER_AUTO_LIRPA"
SETTINGS: dict[str, tuple[str, int]] = {
    "CROWN": ("CROWN", 0),
    "alpha-CROWN, 3 iterations": ("CROWN-Optimized", 3),
    "alpha-CROWN, 5 iterations": ("CROWN-Optimized", 5),
    "alpha-CROWN, 20 iterations": ("CROWN-Optimized", 20),
}
"""Methods and iterations, all else as auto_LiRPA has it by default."""


def start(threads: int, script: Path | None = None) -> Worker | str:
    """The peer, or why it is absent; ``script`` runs there, by default that of this folder."""
    given = os.environ.get(VARIABLE, "")
    if not given and importlib.util.find_spec("auto_LiRPA") is None:
        return f"auto_LiRPA: not installed here, and {VARIABLE} names no interpreter that has it, nor a folder"
    folder = Path(given) if given and Path(given).is_dir() else None
    interpreter = given if given and folder is None else sys.executable
    try:
        return Worker(interpreter, script or Path(__file__).with_name("lirpa_worker.py"), threads, folder)
    except (OSError, PeerError) as error:
        return f"auto_LiRPA: {given or interpreter}: {error}"


def tell(worker: Worker, case: Case, folder: Path) -> None:
    """Hands a case to the peer.

    Raises:
        ValueError: an operator that the peer's script does not build.
    """
    nodes, arrays = described(case.graph)
    arrays |= {"box_lower": case.box[0].numpy(), "box_upper": case.box[1].numpy(), "rows": rows_of(case).numpy()}
    path = folder / "case.npz"
    np.savez(path, nodes=np.frombuffer(json.dumps(nodes).encode(), dtype=np.uint8), **arrays)
    worker.ask(do="load", file=str(path))


def rows_of(case: Case) -> Tensor:
    """y_label - y_j for all others, ``[R, outputs]``."""
    (classes,) = case.graph.output_shape
    others = [j for j in range(classes) if j != case.label]
    rows = np.zeros((len(others), classes), dtype=np.float32)
    rows[:, case.label] = 1
    rows[range(len(others)), others] = -1
    return Tensor(rows)


def described(graph: Graph) -> tuple[list[dict[str, object]], dict[str, NDArray[np.float32]]]:
    """Nodes as JSON values, and their constants by name."""
    nodes: list[dict[str, object]] = []
    arrays: dict[str, NDArray[np.float32]] = {}
    for number, node in enumerate(graph.nodes):
        op = node.op
        if not isinstance(op, Input | Linear | Conv | Relu | Reshape | Add):
            raise ValueError(f"node {node.name!r} (op {op.kind}) is not told to auto_LiRPA")
        told: dict[str, object] = {"kind": op.kind, "name": node.name, "inputs": node.inputs, "shape": node.shape}
        if isinstance(op, Linear | Conv):
            for name in ("weight", "bias"):
                held = getattr(op, name)
                if held is not None:
                    told[name] = f"{name}{number}"
                    arrays[f"{name}{number}"] = held.detach().float().numpy()
        if isinstance(op, Conv):
            told |= {"stride": op.stride, "padding": _padding(op)}
        if isinstance(op, Add) and op.sign != 1:
            raise ValueError(f"node {node.name!r}: a difference is not told to auto_LiRPA")
        nodes.append(told)
    return nodes, arrays


def _padding(op: Conv) -> list[int]:
    """The same before and after each axis."""
    pads = [tuple(pad) if isinstance(pad, tuple | list) else (pad, pad) for pad in op.padding]
    if any(before != after for before, after in pads) or op.groups != 1 or set(op.dilation) != {1}:
        raise ValueError("a convolution with uneven padding, groups or dilation is not told to auto_LiRPA")
    return [before for before, _ in pads]
