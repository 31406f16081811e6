"""One layer of each kind on a zonotope, by our kernels and in plain torch: one group a layer, time and ``memory``.

    pytest benchmarks/peers/bench_layers.py --benchmark-only --benchmark-json=FILE
    python -m benchmarks.peers.render FILE

The layers of :mod:`benchmarks.bench_layers`; plain torch is :mod:`zonocuda.reference`, the same blocks of generators.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.bench_layers import LAYERS, Layer
from benchmarks.machine import trim_memory
from benchmarks.peers.bench_bounds import ROUNDS, threads
from tests.peak import peak_growth
from zonocuda.domains import Backend, use_backend

BACKENDS: dict[str, Backend] = {"zonocuda": "native", "plain torch": "reference"}


@pytest.mark.parametrize("who", BACKENDS)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def bench_layer(benchmark: Any, layer: Layer, who: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    torch.manual_seed(0)
    try:
        with torch.no_grad(), use_backend(BACKENDS[who]):
            z = layer.start(torch.device("cpu"))
            benchmark.group = f"layer, {layer.name}"
            benchmark.pedantic(layer.apply, args=(z,), rounds=ROUNDS, warmup_rounds=1)
            trim_memory()
            _, memory = peak_growth(lambda: layer.apply(z))
    finally:
        torch.set_num_threads(before)
    shape = f"{z.symbols:,} symbols of {'x'.join(map(str, z.features))}"
    benchmark.extra_info |= {"layer": layer.name, "shape": shape, "who": who, "threads": threads(), "memory": memory}
