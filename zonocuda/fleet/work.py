"""What a worker does with an instance; networks that it has loaded are kept."""

from __future__ import annotations

import resource
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import torch

from zonocuda.bounds.plan.planner import Direction
from zonocuda.domains import Backend
from zonocuda.fleet.digest import file_sha256, network_sha256
from zonocuda.fleet.outcome import Outcome
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.vnncomp import results_text
from zonocuda.functions import parse_ulp
from zonocuda.host_memory import is_out_of_memory
from zonocuda.importers import BeforeFinal, Network, load_for_comparisons
from zonocuda.prove.prover import check_effort
from zonocuda.specs import Spec, load_vnnlib
from zonocuda.verifier import VerifyResult, verify
from zonocuda.verifier.arguments import check_choice, check_semantics, check_ulp, resolve_device
from zonocuda.verifier.documents import json_text, numbers, verify_document
from zonocuda.verifier.leaf import LEAVES
from zonocuda.verifier.model import Model
from zonocuda.verifier.splitting import SPLITS

_KEPT = 1 << 28
"""Bytes of the files of the networks that a worker keeps."""

_Loaded = Network | BeforeFinal
_networks: OrderedDict[str, _Loaded] = OrderedDict()
"""By digest, the last used at the end."""


def prepare(threads: int, memory: int | None) -> None:
    """Makes a process ready.

    Args:
        threads: that torch may use.
        memory: bytes of addresses that the process may add to those it has now; None for no limit. What asks for more
            fails, and says so, where the system would kill a process. On a GPU, which maps its memory and the host's
            into them, there is no limit.
    """
    torch.set_num_threads(threads)
    if memory is None or torch.cuda.is_available():
        return
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = own + memory if most == resource.RLIM_INFINITY else min(own + memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def check_settings(settings: Settings) -> None:
    """Raises ValueError for what ``verify`` refuses whatever the instance."""
    check_choice("run", "direction", settings.direction, get_args(Direction))
    check_choice("run", "backend", settings.backend, get_args(Backend))
    check_choice("run", "dtype", settings.dtype, ("auto", "float32", "float64"))
    check_choice("run", "split", settings.split, SPLITS)
    check_choice("run", "leaf", settings.leaf, LEAVES)
    check_effort(settings.effort)
    check_semantics(settings.semantics)
    check_ulp(parse_ulp(settings.ulp), settings.semantics)
    resolve_device(settings.device)


def verify_with(settings: Settings, model: Model, spec: Spec, **more: Any) -> VerifyResult:
    """:func:`zonocuda.verify` with some settings, and ``more`` of its arguments."""
    given = settings.to_json()
    ulp = parse_ulp(given.pop("ulp"))
    return verify(model, spec, certificate=given.pop("certificates"), ulp=ulp, **given, **more)


def decide(net: str, spec: str, timeout: float | None, settings: Settings) -> Outcome:
    """Verifies a property of a network, both in files."""
    started = time.monotonic()
    digests = "", ""
    try:
        digests = network_sha256(Path(net)), file_sha256(Path(spec))
        network, read = _load(Path(net), digests[0]), load_vnnlib(spec)
        loaded = time.monotonic()
        result = verify_with(settings, network, read, timeout=timeout)
        ended = time.monotonic()
        proof = result.proof(net, spec) if settings.certificates else b""
        document = verify_document(replace(result, certificate=None), net, spec)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | RuntimeError) and not is_out_of_memory(error):
            raise  # a fault of the program, which the worker's log holds
        out_of_memory = "out of memory" if is_out_of_memory(error) else ""
        return Outcome(*digests, error=out_of_memory or " ".join(str(error).split())[:2000])
    return Outcome(
        *digests,
        verdict=str(result.verdict),
        reason=result.reason,
        meaning=result.meaning,
        margin=result.margin,
        phases={name: seconds for name, seconds in result.seconds.items() if name != "total"},
        splits=tuple(cast(list[dict[str, Any]], document["splits"])),
        loading=loaded - started,
        seconds=ended - loaded,
        document=json_text({**document, "input": _input(network, read, result)}),
        counterexample=results_text(result) if result.counterexample is not None else "",
        certificate=proof,
    )


def _load(path: Path, digest: str) -> _Loaded:
    """The network of a digest, from the file where it is not kept.

    Raises:
        ValueError: the file changed while it was read, or as ``load_for_comparisons`` does.
    """
    if digest not in _networks:
        network = load_for_comparisons(path)
        if network_sha256(path) != digest:
            raise ValueError(f"{path}: changed while it was read")
        _networks[digest] = network
    _networks.move_to_end(digest)
    while len(_networks) > 1 and sum(len(_network(n).onnx_bytes) for n in _networks.values()) > _KEPT:
        _networks.popitem(last=False)
    return _networks[digest]


def _network(loaded: _Loaded) -> Network:
    return loaded.before if isinstance(loaded, BeforeFinal) else loaded


def _input(loaded: _Loaded, spec: Spec, result: VerifyResult) -> dict[str, object]:
    """The shape of the network's input, and for a counterexample its box."""
    entry: dict[str, object] = {"shape": list(_network(loaded).graph.input_shape)}
    if result.counterexample is not None:
        box = spec.regions[result.counterexample.region].box
        entry |= {"lower": numbers(box.lower.tolist()), "upper": numbers(box.upper.tolist())}
    return entry
