"""A module as torch.export traces it, and as it is called: by itself, one tensor in and one tensor out."""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.nn.parameter import is_lazy

from zonocuda.importers.aten.attention import batch_first_attention
from zonocuda.importers.errors import NetworkMismatchError, UnsupportedNetworkError, one_line
from zonocuda.precision import callers_device, full_precision, plain_torch, summed_products

BATCHES = (2, 1)
"""The batches that a module is traced with, the first that it takes: 1 hides what an operator does to the batch."""

LOCK = threading.RLock()
"""torch.export changes the process and the module while it runs: one at a time, and nobody reads a module or runs its
code meanwhile. It switches libraries off and restores what it found,
so that it runs where they are off, as a proof in another thread may want them."""


def export(
    model: nn.Module, input_shape: tuple[int, ...], name: str, batches: Sequence[int] = BATCHES
) -> tuple[ExportedProgram, int]:
    """The traced module, without operators that write to their arguments, and the batch it was traced with.

    Raises:
        UnsupportedNetworkError: a module whose forward takes something else than one tensor, or that cannot be traced.
    """
    check_module(model, name)
    reasons: list[Exception] = []
    for batch in batches:
        with LOCK, full_precision(), summed_products(), callers_device(), batch_first_attention(), _quiet():
            try:
                program = torch.export.export(model, (example(model, (batch, *input_shape)),), strict=False)
                return program.run_decompositions({}), batch
            except Exception as error:  # whatever the module's own code raises
                reasons.append(error)
    reason = reasons[-1]  # of the single input
    kind = "" if isinstance(reason, RuntimeError) else f"{type(reason).__name__}: "
    raise UnsupportedNetworkError(
        f"importers.module: {name}: torch.export cannot trace it with inputs {list(input_shape)}, in a batch of "
        f"{' or '.join(map(str, batches))}: {kind}{one_line(reason)}"
    ) from reason


def check_module(model: nn.Module, name: str) -> None:
    """Refuses what cannot be traced, or whose tensors no graph can hold.

    Raises:
        UnsupportedNetworkError: TorchScript, a forward that takes something else than one tensor, or such a tensor.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedNetworkError(
            f"importers.module: {name}: is TorchScript, which torch.export does not trace; pass the module that it was "
            "made from"
        )
    _check_signature(model, name)
    _check_tensors(model, name)


def _check_signature(model: nn.Module, name: str) -> None:
    """Refuses a ``forward`` that one tensor does not satisfy."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # compiled code has none
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    first = positional[:1]
    others = [other for other in required if not first or other != first[0].name]
    if others:
        raise UnsupportedNetworkError(
            f"importers.module: {name}: its forward needs arguments besides the input ({', '.join(others)}); wrap it "
            "in a module that takes one tensor"
        )
    if not first and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise UnsupportedNetworkError(f"importers.module: {name}: its forward takes no input")


def _check_tensors(model: nn.Module, name: str) -> None:
    """Refuses parameters and buffers that no graph can hold."""
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        fault = ""
        if is_lazy(tensor) or tensor.is_meta:
            fault = "holds no numbers yet; load or initialise it"
        elif tensor.layout != torch.strided or tensor.is_quantized:
            fault = f"is {tensor.layout if tensor.layout != torch.strided else 'quantized'}; dense ones are supported"
        elif tensor.is_inference():
            fault = (
                "was created in torch.inference_mode(), which torch.export does not take; create it outside, or copy it"
            )
        if fault:
            raise UnsupportedNetworkError(f"importers.module: {name}: its tensor {path!r} {fault}")


def example(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Zeros with the type and device of the module's floating-point parameters or buffers."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    return torch.zeros(shape)


@torch.no_grad()
def call(model: nn.Module, x: Tensor) -> Tensor:
    """The module's output for a batch, as a tensor of its own: what the module writes to is a copy of ``x``, and what
    it does to its output later does not reach the result.

    Raises:
        UnsupportedNetworkError: the module raises an error, or does not return one tensor.
    """
    name = type(model).__name__
    try:
        with LOCK, plain_torch(), callers_device():
            output = model(x.clone())
    except Exception as error:  # whatever the module's own code raises
        raise UnsupportedNetworkError(
            f"importers.module: {name}: it raised {type(error).__name__} on an input of shape {list(x.shape)}: "
            f"{one_line(error)}"
        ) from error
    return _one_tensor(output, name).detach().clone()


def call_each(model: nn.Module, x: Tensor) -> Tensor:
    """The outputs ``[n, *output features]`` of a module for ``n`` inputs, each executed alone.

    Raises:
        NetworkMismatchError: outputs of different shapes, or of another batch.
        UnsupportedNetworkError: as :func:`call`.
    """
    outputs = [call(model, point[None]) for point in x]
    shapes = {tuple(output.shape) for output in outputs}
    if len(shapes) != 1 or any(shape[:1] != (1,) for shape in shapes):
        raise NetworkMismatchError(
            f"importers.module: {type(model).__name__}: its outputs for single inputs have shapes {sorted(shapes)}"
        )
    return torch.cat(outputs)


def _one_tensor(output: Any, name: str) -> Tensor:
    """What a module returns, where that is one tensor, alone or as the only one in tuples, lists and mappings."""
    found = list(_tensors(output, name))
    if len(found) != 1:
        raise UnsupportedNetworkError(f"importers.module: {name}: it must return exactly one tensor, not {len(found)}")
    return found[0]


def _tensors(output: Any, name: str) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list | Mapping):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part, name)
    elif output is not None:
        raise UnsupportedNetworkError(
            f"importers.module: {name}: it must return exactly one tensor, not a {type(output).__name__}"
        )


def output_name(program: ExportedProgram, name: str) -> str:
    """The name of the one output; the module may overwrite its input, but no buffer."""
    specs = program.graph_signature.output_specs
    outputs = [spec.arg for spec in specs if spec.kind == OutputKind.USER_OUTPUT]
    written = [spec.target for spec in specs if spec.kind == OutputKind.BUFFER_MUTATION]
    if written:
        raise UnsupportedNetworkError(f"importers.module: {name}: it writes to its buffer {written[0]!r}")
    tensors = [arg.name for arg in outputs if isinstance(arg, TensorArgument)]
    others = [arg for arg in outputs if not isinstance(arg, TensorArgument) and getattr(arg, "value", 0) is not None]
    if (
        len(tensors) != 1
        or others
        or any(spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION) for spec in specs)
    ):
        raise UnsupportedNetworkError(f"importers.module: {name}: it must return exactly one tensor")
    return str(tensors[0])


def leaves(program: ExportedProgram, model: nn.Module, name: str) -> dict[str, Tensor]:
    """The module's own parameters and buffers, and the trace's constants, by the name of their placeholder."""
    found = {}
    for leaf in program.graph_signature.input_specs:
        if leaf.kind == InputKind.USER_INPUT:
            continue
        tensor: Any = None
        if leaf.kind == InputKind.PARAMETER and leaf.target is not None:
            tensor = model.get_parameter(leaf.target)
        elif leaf.kind == InputKind.BUFFER and leaf.target is not None:
            tensor = model.get_buffer(leaf.target)
        elif leaf.kind == InputKind.CONSTANT_TENSOR:
            tensor = program.constants.get(leaf.target or "")
        if not isinstance(tensor, Tensor):
            raise UnsupportedNetworkError(f"importers.module: {name}: its input {leaf.arg.name!r} is not supported")
        found[leaf.arg.name] = tensor
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, torch does not log what it raises, nor warn of its own use of what it deprecates."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(before)
