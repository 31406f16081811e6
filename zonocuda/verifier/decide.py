"""The entry: arguments, settings of torch, and what a result says of a verification."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch

from zonocuda.bounds.deadline import Deadline, TimeoutReached
from zonocuda.bounds.plan.planner import Direction
from zonocuda.checkpoint import CheckpointError
from zonocuda.domains import Backend, current_backend, use_backend
from zonocuda.executors import Executor
from zonocuda.functions import ulp_text
from zonocuda.host_memory import is_out_of_memory
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.precision import (
    ArithmeticChangedError,
    check_arithmetic,
    confirm_arithmetic,
    full_precision,
    plain_torch,
)
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.certify import obstacle
from zonocuda.prove.prover import Effort, check_effort
from zonocuda.prove.stages import Course, Progress
from zonocuda.relaxations import use_kink
from zonocuda.specs import Spec
from zonocuda.verifier.arguments import (
    Precision,
    Semantics,
    check_budget,
    check_checkpoint,
    check_choice,
    check_count,
    check_executor,
    check_semantics,
    check_sizes,
    check_ulp,
    describe_device,
    resolve_device,
    resolve_dtypes,
    resolve_spec,
    resolve_timeout,
)
from zonocuda.verifier.assumed import stated
from zonocuda.verifier.checkpoint import Checkpoints, identity
from zonocuda.verifier.documents import digests_of
from zonocuda.verifier.leaf import LEAVES, Leaf
from zonocuda.verifier.model import Model, Subject
from zonocuda.verifier.result import Ran, Verdict, VerifyResult
from zonocuda.verifier.semantics import executed
from zonocuda.verifier.sharing import PacketError
from zonocuda.verifier.splitting import (
    SPLITS,
    Split,
)
from zonocuda.verifier.verification import Verification
from zonocuda.version import __version__


@plain_torch()
def verify(
    model: Model,
    spec: Spec | str | Path,
    *,
    timeout: float | None = None,
    device: str | torch.device = "auto",
    dtype: Precision = "auto",
    backend: Backend = "auto",
    input_shape: tuple[int, ...] | None = None,
    direction: Direction = "auto",
    memory_budget: int | None = None,
    kink: KinkRule = "envelope",
    seed: int = 0,
    effort: Effort = "standard",
    semantics: Semantics = "real",
    ulp: Mapping[str, float] | None = None,
    split: Split = "auto",
    leaf: Leaf = "lp",
    certificate: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    executor: Executor | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> VerifyResult:
    """Decides whether a property holds for a network.

    For every region of the specification: a short search for a counterexample; the forward sweep with minimum-area
    slopes; for what it leaves open, the dual pass with the same intermediate bounds (with minimum-area and with
    adaptive slopes). Effort ``standard`` then tightens the intermediate bounds by the dual pass and optimises the
    slopes of the rows that are left. For what is still open, a longer search begins at the dual's worst corners; after
    it, ``standard`` and ``max`` optimise the slopes of the intermediate bounds, too, ``max`` until that no longer pays.

    Where few inputs vary, what the first dual passes leave open is split instead: the box into boxes, until every one
    is refuted, a counterexample is found, or time is up (:mod:`zonocuda.branch`). Elsewhere, what all of this leaves
    open is split by the signs of neurons.

    ``verified`` needs, in every region, one row with a positive lower bound in every disjunct (an empty box needs
    nothing), or that in every part of a split box. It holds for the network in real arithmetic, on the box that
    encloses the numbers of the specification, or, with other ``semantics``, for what a machine computes, whatever the
    rounding of the bounds' own computation, which is part of every bound (:mod:`zonocuda.bounds.rounding.arithmetic`);
    where that costs more than there is to spare, in the widest dtype allowed, the verdict is ``unknown``, and the
    reason says so. ``falsified`` needs a float32 point of the region's float32 box whose output, as the network itself
    computes it, satisfies a disjunct exactly. NaN or infinity in a bound is ``unknown``.

    Args:
        model: a path to an ONNX file, an ONNX model, a loaded Network, a Graph, a module, or what ``torch.export`` made
            of one. A final Softmax, or another strictly increasing function, of a file, an ONNX model or a Sequential
            is left out where the property compares pairs of outputs alone; the result says so.
        spec: the property, or a path to a VNN-LIB file.
        timeout: seconds; when they are used up, the verdict is ``timeout``. None for no limit.
        device: ``auto`` (CUDA where torch and this build have it, else the CPU), or a device.
        dtype: float32 or float64, of the bounds; ``auto`` begins in float32, and goes on in float64 with what that
            leaves open for want of precision (:mod:`zonocuda.prove.stages`).
        backend: ``native`` (which ``auto`` is) or ``reference``.
        input_shape: a module's input features, without the batch; by default the specification's, where it knows them.
        direction: how the intermediate bounds are found: ``forward`` (a zonotope), ``dual`` (passes for those
            neurons that intervals leave open), or ``auto``, whichever is expected to cost less; about an executed
            network ``dual``, whose errors do not grow by the norms of the layers behind them.
        memory_budget: bytes that generators may take; by default a share of what is free.
        kink: does not change a verdict; see :mod:`zonocuda.kink`.
        seed: of the random starts of the search.
        effort: ``fast`` (the plain passes), ``standard`` or ``max``.
        semantics: the arithmetic in which ``verified`` is to hold: ``real`` numbers; or ``float32`` or ``float64``, for
            the network as executed in it, sums in any order (:mod:`zonocuda.bounds.rounding.executed`), in float32 on
            the box rounded to it. In ``float64`` counterexamples are float32 points of the box itself, replayed in
            float64.
        ulp: about an executed network, what is assumed of its functions: by name (:data:`zonocuda.functions.FUNCTIONS`)
            within how many units in the last place of the exact value a machine computes them. Nothing guarantees it;
            the result's ``meaning``, and its certificate, repeat it.
        split: ``input`` splits the box, ``neuron`` the inputs by the signs of neurons (at points, and over the reals
            alone, where not all activations are ReLUs), for 60 s a region where there is no timeout; ``auto`` the box
            where at most 20 inputs vary, and neurons where more than 8 do (at points: where more than 20 do), after
            boxes had two fifths of the time; ``none`` nothing; effort ``fast`` never does.
        leaf: where neurons are split: ``lp`` lets linear programs find slopes and multipliers for parts with few
            unstable neurons, ``milp`` a mixed one look for a counterexample, too, which may help with small networks;
            ``none`` does without. Nothing of what a solver says is believed (docs/splitting.md).
        certificate: whether a proof's result holds what is needed to check it again
            (:mod:`zonocuda.prove.certify`).
        checkpoint: a directory to keep the state of searches in (docs/splitting.md): every few seconds, and where
            SIGINT or SIGTERM ends the program in a search. What is kept is believed as the process's own memory is.
        resume: whether to go on with what is kept there, perhaps with another timeout, device or memory budget; without
            anything there, the verification begins.
        executor: shares searches that last longer than a second out over its workers (:mod:`zonocuda.verifier.sharing`,
            docs/fleet.md), whichever these are: the verdict, and the certificate, do not depend on it. Nothing else may
            be in it.
        progress: is told how far each phase is.

    Raises:
        ValueError: a network that cannot be imported or is misread, a specification of another size, semantics that are
            not supported, or arithmetic that no proof accounts for (subnormal numbers flushed to zero); a checkpoint
            that is damaged, or of something else.
        OSError: no checkpoint can be written.
        TypeError: an argument that is something else.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()).eval()
        >>> never = Spec.linear([0, 0], [1, 1], [[-1, 0], [0, -1]], [0, 0])  # both outputs are at least 0
        >>> verify(model, never, input_shape=(2,)).verified
        True
    """
    started = time.monotonic()
    seconds_left = resolve_timeout(timeout)
    files = {kind: str(given) for kind, given in (("net", model), ("spec", spec)) if isinstance(given, str | Path)}
    digests = digests_of(files)
    spec = resolve_spec(spec)
    check_choice("verify", "direction", direction, get_args(Direction))
    check_choice("verify", "kink", kink, KINK_RULES)
    check_choice("verify", "backend", backend, get_args(Backend))
    check_budget("verify", memory_budget)
    check_count("verify", "seed", seed, 0)
    if not isinstance(certificate, bool):
        raise TypeError(f"verify: certificate must be True or False, got {certificate!r}"[:200])
    check_checkpoint(checkpoint, resume)
    check_executor(executor)
    if not callable(progress):
        raise TypeError(f"verify: progress must be callable, got {type(progress).__name__}")
    check_effort(effort)
    check_semantics(semantics)
    ulp = check_ulp(ulp, semantics)
    check_choice("verify", "split", split, SPLITS)
    check_choice("verify", "leaf", leaf, LEAVES)
    where = resolve_device(device)
    check_arithmetic(where)
    deadline = Deadline(seconds_left)
    read = Subject.of(model, input_shape or spec.input_shape, spec)
    subject, execution = executed(read, semantics, ulp)
    ulp = stated(read.graph, ulp)
    if execution is not None and direction == "auto":
        direction = "dual"
    course = Course(direction, memory_budget, deadline, progress)
    dtypes = resolve_dtypes(dtype, subject.graph)
    check_sizes(subject.graph, spec)
    checkpoints = Checkpoints.begin(
        checkpoint,
        resume,
        lambda: identity(
            subject.graph,
            spec,
            {
                "semantics": semantics,
                "assumed errors of functions": ulp_text(ulp),
                "effort": effort,
                "split": split,
                "leaf": leaf,
                "dtype": ", ".join(map(str, dtypes)),
                "direction": direction,
                "kink": kink,
                "seed": seed,
                "request for a certificate": certificate,
            },
        ),
    )
    with torch.no_grad(), use_backend(backend), use_kink(kink), full_precision():
        why_none = obstacle(read.graph, execution is not None)
        wanted = Certificate(why_none, semantics=semantics, ulp=ulp)
        run = Verification(
            subject, spec, course, where, dtypes, seed, effort, split, execution, wanted if certificate else None
        )
        run.leaf = leaf
        run.checkpoints, run.executor = checkpoints, executor
        checkpoints.confirm = lambda: confirm_arithmetic(where)
        try:
            try:
                verdict, reason = run.decide()
            except TimeoutReached as late:
                verdict = Verdict.TIMEOUT
                reason = f"not decided within {seconds_left:g} s{f': {late}' if str(late) else ''}"
            checkpoints.flush()
            if verdict is Verdict.VERIFIED:
                confirm_arithmetic(where)
        except (ArithmeticChangedError, PacketError) as error:
            verdict, reason = Verdict.UNKNOWN, str(error)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoints.path}: {error}") from error
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            verdict, reason = Verdict.UNKNOWN, f"out of memory on {where}"
        ran = Ran(
            str(run.dtype).removeprefix("torch."),
            describe_device(where),
            current_backend(),
            subject.runs_on,
            {"zonocuda": __version__, "torch": torch.__version__, **subject.versions},
            effort,
            semantics,
            str(subject.dtype).removeprefix("torch."),
            Counter(row.dtype for row in run.margins if row.is_positive),
            ulp,
        )
    seconds = {**course.seconds, "total": time.monotonic() - started}
    proof = run.certificate if verdict is Verdict.VERIFIED else None
    margins = tuple(run.margins)
    return VerifyResult(
        verdict,
        reason,
        margins,
        run.counterexample,
        run.layers,
        seconds,
        ran,
        run.plan,
        proof,
        tuple(run.splits),
        seconds_left,
        files,
        "" if subject.final is None else subject.final.kind,
        digests,
        checkpoints.resumed,
        checkpoints.fault,
        run.course.timeline.moments,
    )
