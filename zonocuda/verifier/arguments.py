"""What a verification is asked to do, checked before it begins; and errors that are none of the program's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zonocuda.domains import Zonotope, has_cuda_kernels
from zonocuda.functions import resolve_ulp
from zonocuda.graph import Affine, Graph, fan_in
from zonocuda.specs import Box, LinearConstraint, Region, Spec, load_vnnlib

Semantics = Literal["real", "float32", "float64", "float16", "bfloat16"]
"""Whose arithmetic a proof is about: real numbers, or what a machine executes."""

Precision = Literal["auto", "float32", "float64"] | torch.dtype
"""A dtype of bounds; ``auto`` is float32, and float64 where that does not suffice."""

SMALL = 5e8
"""Below so many multiplications of carrying one symbol for each input through a network, overheads that are the same in
every dtype rule: float32 is no faster than float64, and ``auto`` begins with float64."""


def resolve_dtypes(dtype: Precision, network: Graph) -> tuple[torch.dtype, ...]:
    """The dtypes that bounds are computed in, one after the other while rounding is in the way.

    Raises:
        ValueError: a dtype without proofs.
    """
    if dtype == "auto":
        products = sum(
            fan_in(node.op, network[node.inputs[0]].shape) * math.prod(node.shape)
            for node in network.nodes
            if isinstance(node.op, Affine)
        )
        is_small = products * math.prod(network.input_shape) < SMALL
        return (torch.float64,) if is_small else (torch.float32, torch.float64)
    named = {"float32": torch.float32, "float64": torch.float64}
    chosen = named.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.float64):
        raise ValueError(f"verify: dtype must be float32 or float64, or 'auto', got {dtype!r}")
    return (chosen,)


def check_semantics(semantics: str) -> None:
    """Raises ValueError for semantics that are unknown or not supported, with the reason."""
    if semantics in ("float16", "bfloat16"):
        limit = 2048 if semantics == "float16" else 256
        raise ValueError(
            f"semantics {semantics!r}: no bound holds for sums of {limit} terms and more in any order; use 'real', or "
            "'float32' for a network that is executed in it"
        )
    if semantics not in get_args(Semantics):
        raise ValueError(f"semantics must be one of {', '.join(get_args(Semantics))}, got {semantics!r}")


def check_ulp(ulp: object, semantics: str) -> dict[str, float]:
    """What is stated of executed functions; None is nothing.

    Raises:
        TypeError, ValueError: it is no such statement, or semantics are ``real``, for which it says nothing.
    """
    found = {} if ulp is None else resolve_ulp(ulp)
    if found and semantics == "real":
        raise ValueError("ulp: states something of executed functions; use it with semantics 'float32' or 'float64'")
    return found


def resolve_timeout(timeout: float | None) -> float:
    """Seconds; None is no limit.

    Raises:
        TypeError, ValueError: what is no positive number.
    """
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"verify: timeout must be a number of seconds, or None, got {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"verify: timeout must be a positive number of seconds, got {timeout}")
    return float(timeout)


def resolve_spec(spec: Spec | str | Path) -> Spec:
    """The specification, read where it is a path; its tensors are none of inference mode, which autograd refuses.

    Raises:
        TypeError: what is neither.
        VnnlibError: a file that cannot be read.
    """
    if isinstance(spec, str | Path):
        return load_vnnlib(spec)
    if not isinstance(spec, Spec):
        raise TypeError(
            f"verify: the specification must be a Spec or the path of a VNN-LIB file, got {type(spec).__name__}"
        )
    for position, region in enumerate(spec.regions):
        _check_region(position, region)
    return replace(spec, regions=tuple(replace(r, box=_recordable(r.box)) for r in spec.regions))


def _check_region(position: int, region: object) -> None:
    """Raises TypeError unless it is a region of a box of numbers."""
    if not isinstance(region, Region) or not isinstance(region.box, Box):
        raise TypeError(f"region {position}: must be a Region with a Box, got {type(region).__name__}")
    for name, bound in vars(region.box).items():
        if not isinstance(bound, Tensor) or not bound.is_floating_point() or bound.is_meta:
            raise TypeError(f"region {position}: {name} of the box must be a tensor of floats")


def check_choice(caller: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raises ValueError unless an argument is one of some choices."""
    known = list(choices)
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in known):
        raise ValueError(f"{caller}: {name} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_budget(caller: str, memory_budget: object) -> None:
    """Raises TypeError or ValueError unless it is a positive number of bytes, or None."""
    if memory_budget is None:
        return
    if isinstance(memory_budget, bool) or not isinstance(memory_budget, Real):
        raise TypeError(f"{caller}: memory_budget must be a number of bytes, or None, got {memory_budget!r}")
    if not 0 < float(memory_budget) < math.inf:
        raise ValueError(f"{caller}: memory_budget must be a positive number of bytes, got {memory_budget}")


def check_checkpoint(checkpoint: object, resume: object) -> None:
    """Raises TypeError or ValueError unless it is a directory, or None, and whether to go on with what is there."""
    if checkpoint is not None and not isinstance(checkpoint, str | Path):
        raise TypeError(f"verify: checkpoint must be the path of a directory, or None, got {checkpoint!r}"[:200])
    if not isinstance(resume, bool):
        raise TypeError(f"verify: resume must be True or False, got {resume!r}"[:200])
    if resume and checkpoint is None:
        raise ValueError("verify: resume needs a checkpoint to go on with")


EXECUTOR_CALLS = ("workers", "put", "submit", "as_completed", "cancel")


def check_executor(executor: object) -> None:
    """Raises TypeError unless it is an executor, or None."""
    if executor is None:
        return
    lacking = [call for call in EXECUTOR_CALLS if not hasattr(executor, call)]
    if isinstance(executor, str) or lacking:
        raise TypeError(
            f"verify: executor must be an Executor, such as zonocuda.fleet.LocalExecutor(2), or None, got {executor!r}"[
                :200
            ]
        )


def check_count(caller: str, name: str, value: object, least: int, most: int = 2**63 - 1) -> None:
    """Raises TypeError or ValueError unless an argument is an integer in a range."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{caller}: {name} must be an integer, got {value!r}")
    if not least <= int(value) <= most:
        raise ValueError(f"{caller}: {name} must be from {least} to {most}, got {value}")


def check_slopes(slopes: object, like: Tensor) -> None:
    """Raises TypeError unless slopes are tensors by name, of the type and on the device of ``like``."""
    if slopes is None:
        return
    if not isinstance(slopes, Mapping):
        raise TypeError(
            f"compute_bounds: slopes must be tensors by the name of an activation, got {type(slopes).__name__}"
        )
    for name, slope in slopes.items():
        if not isinstance(slope, Tensor) or (slope.dtype, slope.device) != (like.dtype, like.device):
            found = f"{slope.dtype} on {slope.device}" if isinstance(slope, Tensor) else type(slope).__name__
            raise TypeError(
                f"compute_bounds: the slope {name!r} must be a tensor like the zonotope's, {like.dtype} on "
                f"{like.device}, got {found}"
            )


def resolve_zonotope(zonotope: Zonotope, caller: str) -> Zonotope:
    """A zonotope to compute bounds of, without tensors of inference mode.

    Raises:
        TypeError: no zonotope, or one of numbers that are neither float32 nor float64.
    """
    if not isinstance(zonotope, Zonotope):
        raise TypeError(
            f"{caller}: the inputs must be a Zonotope, such as Zonotope.from_ball(x, eps), got "
            f"{type(zonotope).__name__}"
        )
    if zonotope.center.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{caller}: the zonotope must be float32 or float64, got {zonotope.center.dtype}")
    return replace(
        zonotope,
        center=_recorded(zonotope.center),
        blocks=tuple(_recordable(block) for block in zonotope.blocks),
    )


def _recordable(value: Any) -> Any:
    """A dataclass, itself where it holds no tensor of inference mode, else with copies of them."""
    held = {f.name: getattr(value, f.name) for f in fields(value)}
    inferred = {name: t for name, t in held.items() if isinstance(t, Tensor) and t.is_inference()}
    return replace(value, **{name: _recorded(t) for name, t in inferred.items()}) if inferred else value


def _recorded(t: Tensor) -> Tensor:
    return t.clone() if t.is_inference() else t


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to compute on; ``auto`` is CUDA exactly where torch sees a GPU and this build has kernels for it.

    Raises:
        ValueError: CUDA where torch sees no GPU or this build has no kernels for it.
    """
    built = has_cuda_kernels()
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and built else "cpu")
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r}: must be auto, cpu or cuda") from error
    if where.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device}: must be auto, cpu or cuda")
    if where.type == "cuda" and not (torch.cuda.is_available() and built):
        lacking = "this build of zonocuda has no CUDA kernels" if not built else "torch sees no CUDA device"
        raise ValueError(f"device {device}: {lacking}; use the device cpu, or see 'zonocuda info'")
    return where


def describe_device(device: torch.device) -> str:
    """The device, with the name of a GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def check_sizes(graph: Graph, spec: Spec) -> None:
    """Raises TypeError or ValueError unless the specification's inputs, outputs, boxes and rows are the network's."""
    inputs, outputs = math.prod(graph.input_shape), math.prod(graph.output_shape)
    if (inputs, outputs) != (spec.inputs, spec.outputs):
        raise ValueError(
            f"the specification has {spec.inputs} inputs and {spec.outputs} outputs, the network {inputs} and {outputs}"
        )
    for position, region in enumerate(spec.regions):
        box = region.box
        if not all(isinstance(rows, Sequence) for rows in region.disjuncts):
            raise TypeError(f"region {position}: every disjunct must be a sequence of LinearConstraint")
        for bound in (box.lower, box.upper, box.float32_lower, box.float32_upper):
            if bound.shape != (inputs,):
                raise ValueError(f"region {position}: the box must have {inputs} bounds on each side")
        for row in (row for rows in region.disjuncts for row in rows):
            if not isinstance(row, LinearConstraint):
                raise TypeError(f"region {position}: disjuncts must hold LinearConstraint, got {type(row).__name__}")
            if not all(0 <= i < outputs for i in row.outputs) or not all(0 <= j < inputs for j in row.inputs):
                raise ValueError(f"region {position}: the constraint {row} names a variable that does not exist")
