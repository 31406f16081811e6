"""The commands: each reads its files, calls the library, and prints."""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from tqdm import tqdm

from zonocuda.cli import report
from zonocuda.cli.arrays import load_array
from zonocuda.cli.output import Outputs, printable
from zonocuda.cli.program import children
from zonocuda.domains import Zonotope, use_backend
from zonocuda.executors import Executor, Notice
from zonocuda.fleet.runner import search_executor
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.vnncomp import results_text
from zonocuda.fleet.work import verify_with
from zonocuda.importers import BeforeFinal, check_names, load_for_comparisons, load_network
from zonocuda.specs import load_vnnlib
from zonocuda.verifier.arguments import check_sizes, describe_device, resolve_device
from zonocuda.verifier.bounds import compute_bounds
from zonocuda.verifier.documents import digests_of, json_text
from zonocuda.version import __version__

NOT_CONFIRMED = 1

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def verify(options: argparse.Namespace, outputs: Outputs) -> None:
    """``zonocuda verify NET SPEC``."""
    files = {"net": str(options.net), "spec": str(options.spec)}
    digests = digests_of(files)  # of what is read, whatever is written there meanwhile
    network = load_for_comparisons(options.net)
    spec = load_vnnlib(options.spec)
    try:
        check_sizes((network.before if isinstance(network, BeforeFinal) else network).graph, spec)
        check_names(network, spec.names)
    except ValueError as error:
        raise ValueError(f"{options.spec} does not fit {options.net}: {error}") from error
    with _ProgressBar() as bar, _executor(options, outputs) as executor:
        result = verify_with(
            Settings.of_options(vars(options), "--certificate" in outputs),
            network,
            spec,
            timeout=options.timeout,
            checkpoint=options.checkpoint,
            resume=options.resume,
            executor=executor,
            progress=bar.update,
        )
    result = replace(result, files=files, digests=digests)
    outputs.say(result.verdict)
    outputs.write("--results-file", lambda: results_text(result))
    outputs.write("--certificate", lambda: result.proof(options.net, options.spec))
    outputs.write("--json", lambda: json_text(result.to_json(options.net, options.spec)))
    if not options.quiet:
        outputs.say(*report.plain_lines(result, spec, list(outputs.places.values())))
    if options.verbose:
        outputs.say(*report.detail_lines(result))


def _executor(options: argparse.Namespace, outputs: Outputs) -> AbstractContextManager[Executor | None]:
    """What a search is shared out over, if anything."""
    if options.executor is None and options.workers is None:
        return nullcontext()

    def notice(event: Notice) -> None:
        if event.kind == "lost" and not options.quiet:
            outputs.say(printable(f"{event.text}; its packet is searched again"))

    return search_executor(options.executor or "local", options.workers, options.device, notice, children)


def check(options: argparse.Namespace, outputs: Outputs) -> int:
    """``zonocuda check CERT NET SPEC``; 0 where the verdict is confirmed, else 1."""
    from zonocuda.checker import check as check_again

    started = time.monotonic()
    with _ProgressBar() as bar:
        how = {"exact": options.exact, "jobs": options.jobs, "resume": options.resume}
        result = check_again(options.certificate, options.net, options.spec, bar.update, **how)
    outputs.say("confirmed" if result.confirmed else "not confirmed")
    outputs.say(*report.wrapped((f"reason      {result.reason}", *result.details), 12))
    outputs.say(f"seconds     {time.monotonic() - started:.3f}")
    return 0 if result.confirmed else NOT_CONFIRMED


def bounds(options: argparse.Namespace, outputs: Outputs) -> None:
    """``zonocuda bounds NET --center X.npy --eps E``."""
    network = load_network(options.net)
    graph = network.graph
    dtype, device = _DTYPES[options.dtype], resolve_device(options.device)
    center = _load_center(options.center, graph.input_shape).to(device, dtype).unsqueeze(0)
    try:
        zonotope = Zonotope.from_ball(center, options.eps, options.clip and tuple(options.clip))
    except ValueError as error:
        raise ValueError(f"{options.center} with --eps {options.eps:g}: {error}") from error
    low, high = ((b.double().cpu().squeeze(0)) for b in zonotope.bounds())
    network.check(low, high)
    with torch.no_grad(), use_backend(options.backend):
        result = compute_bounds(
            graph,
            zonotope,
            direction=options.direction,
            memory_budget=options.memory_budget,
            backend=options.backend,
        )
    lower, upper = (b.flatten().tolist() for b in (result.lower, result.upper))
    outputs.say(*(f"Y_{i} in [{a!r}, {b!r}]" for i, (a, b) in enumerate(zip(lower, upper, strict=True))))
    outputs.write("--json", lambda: json_text(report.bounds_document(result, options, describe_device(device))))
    outputs.say(*report.wrapped(report.layer_lines(result.stats)), *report.wrapped(report.plan_lines(result.plan)))


def audit(options: argparse.Namespace, outputs: Outputs) -> None:
    """``zonocuda audit MODEL --data X.npy``."""
    from zonocuda.cli.audit import audit as audit_ties  # with scipy, which takes as long to load as a small proof

    audit_ties(options, outputs)


def info(options: argparse.Namespace, outputs: Outputs) -> None:
    """``zonocuda info``."""
    from zonocuda.ops import build_info, cpu_capability, has_cuda_stream

    build = build_info()
    cuda = f"{build['cuda']} for {build['cuda_architectures']}" if build["cuda"] else "not in this build"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["none seen by torch"]
    outputs.say(
        f"zonocuda     {__version__}",
        f"python       {platform.python_version()}",
        f"torch        {torch.__version__} (built against {build['torch']})",
        f"compiler     {build['compiler']}",
        f"flags        {build['flags']}",
        f"CUDA kernels {cuda}",
        f"CUDA stream  {'that of torch' if has_cuda_stream() else 'none: torch has no CUDA'}",
        f"GPUs         {', '.join(gpus)}",
        f"CPU kernels  {cpu_capability()}, {torch.get_num_threads()} threads",
    )


def _load_center(path: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One input from a .npy file, in the network's input shape."""
    center = torch.from_numpy(load_array(path, "numbers"))
    if center.numel() != math.prod(shape):
        raise ValueError(
            f"{path}: holds {center.numel()} numbers, the network's input {list(shape)} needs {math.prod(shape)}"
        )
    return center.reshape(shape)


class _ProgressBar:
    """A bar on stderr for work that lasts more than two seconds, if stderr is a terminal."""

    def __enter__(self) -> _ProgressBar:
        self._bar: tqdm[object] | None = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, phase: str, done: int, total: int) -> None:
        """Shows that ``done`` of ``total`` steps of ``phase`` are done."""
        if self._bar is None:
            self._bar = tqdm(delay=2, disable=not sys.stderr.isatty(), leave=False, file=sys.stderr)
        self._bar.total = total
        self._bar.set_description(phase, refresh=False)
        self._bar.update(done - self._bar.n)
