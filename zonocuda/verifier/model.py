"""What a user may call a network, made into one thing: a graph to reason about and a program to replay on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from zonocuda.graph import Graph
from zonocuda.importers import (
    BeforeFinal,
    Network,
    NetworkMismatchError,
    NetworkOverflowError,
    call_each,
    check_against_module,
    check_names,
    finite_against_module,
    load_for_comparisons,
    load_network,
    module_graph,
)
from zonocuda.importers.final import Final, last_module, of_module, without_last_module
from zonocuda.specs import LinearConstraint, Spec

Model = nn.Module | ExportedProgram | Graph | Network | BeforeFinal | onnx.ModelProto | str | Path
"""A module or what torch.export made of one, an imported network, or an ONNX model or file."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network under verification.

    Attributes:
        graph: what bounds are computed on: the network as it is now, without an origin.
        execute: the network itself, which decides whether a counterexample counts: float32 ``[n, *input features]`` to
            outputs ``[n, *output features]``. It writes to no tensor that it is given, and gives away none of its own.
        check: raises if graph and network disagree on a box (lower, upper ``[*input features]``).
        finite: ``check`` for many boxes ``[S, N]``, at fewer points: ``[S]``, whether what executes is finite there.
        agree: raises if they do at a point ``[*input features]``, where what executes may be anything.
        runs_on: what ``execute`` is, for the result: ``onnxruntime``, ``module`` or ``graph``.
        versions: of what executes, beyond torch.
        dtype: the precision in which ``execute`` computes.
        rounded_box: whether a counterexample may lie anywhere in the box rounded to float32; else it must lie in the
            box itself, too.
        final: a last operator of the network that the graph leaves out: what is proven of comparisons of two outputs
            holds of the whole network, over the reals.
    """

    graph: Graph
    execute: Callable[[Tensor], Tensor]
    check: Callable[[Tensor, Tensor], object]
    runs_on: str
    versions: Mapping[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    rounded_box: bool = True
    agree: Callable[[Tensor], object] = lambda x: None
    final: Final | None = None
    finite: Callable[[Tensor, Tensor], Tensor] = lambda lower, upper: torch.ones(
        len(lower), dtype=torch.bool, device="cpu"
    )

    @staticmethod
    def of(model: Model, input_shape: tuple[int, ...] | None, spec: Spec | None = None) -> Subject:
        """The subject for a network.

        Args:
            model: the network.
            input_shape: feature shape of a module's input, without the batch; others know theirs.
            spec: what is asked about the network, if it is a property: where that compares two outputs in every row,
                a final Softmax or the like is left out (:mod:`zonocuda.importers.final`); else it is a layer.

        Raises:
            TypeError: no network.
            ValueError: a module without ``input_shape``, a network that cannot be read or is not supported, or one
                whose tensors have other names than those that are asked about.
        """
        if isinstance(model, str | Path | onnx.ModelProto):
            model = load_network(model) if spec is None else load_for_comparisons(model)
        if isinstance(model, ExportedProgram):
            model = model.module()
        if spec is not None and isinstance(model, Network | BeforeFinal):
            check_names(model, spec.names)
        if isinstance(model, BeforeFinal) and _keeps(model.final, spec):
            subject = Subject.of(model.before, input_shape)
            return replace(subject, execute=model.whole, final=model.final)
        if isinstance(model, BeforeFinal):
            model = model.with_final()
        if isinstance(model, Network):
            versions = {"onnxruntime": onnxruntime.__version__}
            return Subject(
                model.graph,
                model.runtime,
                model.check,
                "onnxruntime",
                versions,
                model.runtime.dtype,
                finite=model.finite,
            )
        if isinstance(model, Graph):
            graph = model.current()
            single = cache(lambda: graph.to(torch.float32, "cpu"))  # from a device a copy, which bounds do without
            return Subject(graph, lambda x: single()(x), lambda lower, upper: None, "graph")
        if not isinstance(model, nn.Module):
            raise TypeError(
                "the network must be a torch.nn.Module, a Graph, a loaded Network, an ONNX model or the path of an "
                f"ONNX file, got {type(model).__name__}"
            )
        if input_shape is None:
            raise ValueError("a module's input shape (without the batch) is needed: pass input_shape=(...)")
        last = None if spec is None else last_module(model)
        if last is None:
            return _module_subject(model, input_shape)
        assert isinstance(model, nn.Sequential)
        subject = _module_subject(without_last_module(model), input_shape)
        final = of_module(last, subject.graph.output_shape)
        if final is None or not _keeps(final, spec):
            return _module_subject(model, input_shape)
        return replace(subject, execute=_module_execution(model), final=final)

    def output(self, x: Tensor) -> Tensor:
        """The output ``[*output features]`` at a point ``[*input features]``, which is executed alone."""
        return self.execute(x.clone().unsqueeze(0)).squeeze(0)

    def confirm(self, x: Tensor, y: Tensor) -> None:
        """Refuses an output ``y`` at the point ``x`` that is not the network's: it must compute the same bits again,
        and a module's graph must agree with it up to rounding, as on a region's box.

        Raises:
            NetworkMismatchError: one of the two does not hold.
        """
        again = self.output(x)
        if y.shape != again.shape or not bool(((y == again) | (y.isnan() & again.isnan())).all()):
            raise NetworkMismatchError(
                f"the network ({self.runs_on}) computes another output when it is executed again at the same point: no "
                "verdict can be about it"
            )
        try:
            self.agree(x)
        except NetworkOverflowError:  # what the property reads is finite
            return


def _module_subject(module: nn.Module, input_shape: tuple[int, ...]) -> Subject:
    """A module, replayed by itself on its own device and in its own dtype, one input after the other."""
    graph = module_graph(module, input_shape).current()
    own = _own(module)

    def check(lower: Tensor, upper: Tensor) -> float:
        return check_against_module(graph, module, lower, upper)

    def agree(x: Tensor) -> float:
        return check_against_module(graph, module, x, x, points=0)

    def finite(lower: Tensor, upper: Tensor) -> Tensor:
        return finite_against_module(graph, module, lower, upper)

    return Subject(graph, _module_execution(module), check, "module", dtype=own.dtype, agree=agree, finite=finite)


def _own(module: nn.Module) -> Tensor:
    """A tensor with a module's type and device."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def _module_execution(module: nn.Module) -> Callable[[Tensor], Tensor]:
    own = _own(module)
    return lambda x: call_each(module, x.to(own.device, own.dtype)).cpu()


def _keeps(final: Final, spec: Spec | None) -> bool:
    """Whether a final function keeps what a property asks: every row compares two outputs of one function."""
    return spec is not None and all(
        _compares(final, row) for region in spec.regions for rows in region.disjuncts for row in rows
    )


def _compares(final: Final, row: LinearConstraint) -> bool:
    """Whether a row holds of the function's results exactly where it holds of its arguments."""
    if not row.outputs:
        return True  # of inputs alone
    if len(row.outputs) != 2 or row.inputs or row.constant:
        return False
    (first, a), (second, b) = row.outputs.items()
    return a + b == 0 and max(first, second) < len(final.groups) and final.keeps(first, second)
