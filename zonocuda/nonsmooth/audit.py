"""Which derivatives at ties a model's gradient depends on, and how much."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from zonocuda.nonsmooth.certificate import certify
from zonocuda.nonsmooth.conventions import LINES, OTHER, TORCH, Convention
from zonocuda.nonsmooth.results import AuditReport, Certificate, DtypeReport, LayerReport, TieClass
from zonocuda.nonsmooth.routing import Call
from zonocuda.nonsmooth.session import Session

Loss = Callable[..., Tensor]
_SCALES = (1.0, 1.3, 1.7)  # of the loss, when a change is measured again: rounding errors do not scale, changes do
_GRAVITY: tuple[TieClass, ...] = ("none", "compensation", "bifurcation", "not finite")


def audit(
    model: nn.Module,
    batch: Tensor | tuple[Tensor, ...],
    loss: Loss,
    *,
    a: Convention = TORCH,
    b: Convention = OTHER,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    batch_size: int = 256,
    certificates: bool = True,
    progress: bool = True,
) -> AuditReport:
    """Compares two conventions for the derivative at ties, layer by layer, minibatch by minibatch.

    For every dtype the model and the data are rounded to it and every minibatch runs forward once. The nonsmooth
    functions (ReLU, leaky ReLU, abs, maximum, max, max_pool2d, wherever they are called) are recorded; their values are
    torch's. Then the backward pass runs under ``a``, under ``b``, and with ``b`` in one layer alone.

    *Classes.* A change of the gradient is a ``bifurcation`` if it is there over the reals, and ``compensation`` if it
    is only rounding: two choices whose effects cancel exactly, and whose floating-point sums do not. To tell, the
    routing (signs and winners) that was recorded at the dtype is replayed in float64 and in float32, with both choices:
    along one routing the network is smooth, and the change there is either a fixed number, the same at both precisions,
    or rounding error, smaller by 2^29 in float64. The hypothesis that is nearer on the logarithmic scale wins; there is
    no tolerance to choose. (A real change below about 4e-12 of the gradient's norm is taken for rounding.) ``none``:
    the gradient at this dtype does not depend on the choice. ``not finite``: it has infinities or NaN.

    *Structural or induced.* The same replay tells which ties are still ties in float64.

    Args:
        model: any module. It is copied; it stays in the mode (train or eval) that it has.
        batch: the inputs ``[n, ...]``, or a tuple of them and what else the loss wants, all of length n.
        loss: ``loss(output, *rest)``, a scalar.
        a, b: the conventions.
        dtypes: what to compute with.
        batch_size: of the minibatches.
        certificates: also ask of every minibatch whether a theorem certifies the gradient under ``a``; many ties of
            poolings make many linear programs, which then take most of the time.
        progress: a bar on stderr.

    Raises:
        TypeError: an argument that is something else.
        ValueError: no data, data of different lengths, active dropout, or nothing to differentiate by.
        RuntimeError: a model whose control flow depends on values that differ in float64.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> report = audit(model, torch.zeros(4, 2), lambda y: y.sum(), progress=False)
        >>> [layer.kind for layer in report.dtypes[0].layers]
        ['relu']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"audit: the model must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"audit: the loss must be callable, got {type(loss).__name__}")
    if not dtypes or not all(isinstance(d, torch.dtype) and d.is_floating_point for d in dtypes):
        raise TypeError(f"audit: dtypes must be floating-point types of torch, got {list(dtypes)}")
    if not isinstance(batch, Tensor | tuple | list) or not all(isinstance(t, Tensor) for t in batch):
        raise TypeError("audit: batch must be a tensor, or a tuple of tensors")
    tensors = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    if not tensors or any(t.dim() == 0 or len(t) != len(tensors[0]) for t in tensors) or len(tensors[0]) == 0:
        raise ValueError(f"audit: batch must hold tensors of one length, got {[list(t.shape) for t in tensors]}")
    if batch_size < 1:
        raise ValueError(f"audit: batch_size must be at least 1, got {batch_size}")
    dropouts = ((name, m) for name, m in model.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd))
    random = [name for name, m in dropouts if m.training and m.p > 0]
    if random:
        raise ValueError(f"audit: dropout is active in {random[0]!r}; call model.eval() first")
    pieces = list(zip(*(torch.split(t, batch_size) for t in tensors), strict=True))
    reports = []
    with tqdm(total=len(dtypes) * len(pieces), disable=not progress, desc="audit", leave=False) as bar:
        for dtype in dtypes:
            collected = _Collected(dtype)
            for piece in pieces:
                _Minibatch(model, piece, loss, a, b, dtype).collect(collected, certificates)
                bar.update()
            reports.append(collected.report())
    return AuditReport(
        type(model).__name__,
        len(tensors[0]),
        batch_size,
        (asdict(a), asdict(b)),
        reports,
        {"torch": torch.__version__},
        str(tensors[0].device),
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _converted(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t.detach().to(dtype) if t.is_floating_point() else t.detach()


class _Collected:
    """Sums over minibatches at one dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.layers: dict[str, LayerReport] = {}
        self.total = LayerReport("(all layers)", "all")
        self.certificates: list[Certificate] = []
        self.unrecorded: dict[str, int] = {}

    def layer(self, call: Call) -> LayerReport:
        return self.layers.setdefault(call.layer, LayerReport(call.layer, call.kind))

    def report(self) -> DtypeReport:
        for layer in self.layers.values():
            for name in ("calls", "elements", "ties", "tied_positive", "structural", "induced", "reached"):
                setattr(self.total, name, getattr(self.total, name) + getattr(layer, name))
        return DtypeReport(
            _name(self.dtype), list(self.layers.values()), self.total, self.certificates, self.unrecorded
        )


@dataclass(frozen=True)
class _Change:
    """How a gradient changes from one choice to another."""

    absolute: float
    relative: float


class _Run:
    """A forward pass of one model on one minibatch, and gradients of its loss under any choice."""

    def __init__(self, model: nn.Module, piece: Sequence[Tensor], loss: Loss, session: Session) -> None:
        self.session = session
        x = piece[0].clone()
        self.leaves: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        if not self.leaves and x.is_floating_point():
            self.leaves = [x.requires_grad_()]
        if not self.leaves:
            raise ValueError("audit: the model has no parameter that wants a gradient, and its input is not real")
        with session.running(model):
            self.loss = loss(model(x), *piece[1:])
        if not isinstance(self.loss, Tensor):
            raise TypeError(f"audit: the loss must return a tensor of one number, got {type(self.loss).__name__}")
        if self.loss.numel() != 1:
            raise ValueError(f"audit: the loss must be a scalar, got shape {list(self.loss.shape)}")
        session.look_back(self.loss)

    def gradient(self, switched: frozenset[int], scale: float = 1.0) -> list[Tensor]:
        """The gradient of ``scale`` times the loss, in float64 numbers."""
        self.session.switched = switched
        if not self.loss.requires_grad:
            return [torch.zeros_like(leaf, dtype=torch.float64) for leaf in self.leaves]
        seed = torch.full_like(self.loss, scale)
        grads = torch.autograd.grad(
            self.loss, self.leaves, seed, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [g.double() for g in grads]


def _norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm, safe from overflow."""
    norms = torch.stack([torch.linalg.vector_norm(t) for t in tensors])
    return float(torch.linalg.vector_norm(norms))


def _change(base: Sequence[Tensor], other: Sequence[Tensor]) -> _Change:
    absolute = _norm([x - y for x, y in zip(other, base, strict=True)])
    size = _norm(base)
    return _Change(absolute, absolute / size if size > 0 else (math.inf if absolute > 0 else 0.0))


class _Minibatch:
    """The audit of one minibatch at one dtype."""

    def __init__(
        self, model: nn.Module, piece: Sequence[Tensor], loss: Loss, a: Convention, b: Convention, dtype: torch.dtype
    ) -> None:
        self.a, self.b, self.loss = a, b, loss
        self.model = copy.deepcopy(model).to(dtype)
        self.piece = [_converted(t, dtype) for t in piece]
        self.run = _Run(self.model, self.piece, loss, Session(a, b))
        self.calls = self.run.session.calls
        self._replays: dict[torch.dtype, tuple[_Run, list[list[Tensor]]]] = {}

    def collect(self, into: _Collected, certificates: bool) -> None:
        """Adds this minibatch's findings."""
        session = self.run.session
        for name, count in session.unrecorded.items():
            into.unrecorded[name] = into.unrecorded.get(name, 0) + count
        base = self.run.gradient(frozenset())
        reached = {call.index: call.reached for call in self.calls}
        tied = [call for call in self.calls if bool(call.ties().any())]
        for call in self.calls:
            self._count(call, into.layer(call), reached[call.index])
        if certificates:
            leaves = {id(leaf): g for leaf, g in zip(self.run.leaves, base, strict=True)}
            into.certificates.append(certify(session, self.a, leaves))
        layers: dict[str, frozenset[int]] = {}
        for call in tied:
            layers[call.layer] = layers.get(call.layer, frozenset()) | {call.index}
        for layer in into.layers.values():
            layer.minibatches += 1
        into.total.minibatches += 1
        for name, switched in layers.items():
            self._judge(into.layers[name], base, switched)
        if layers:
            self._judge(into.total, base, frozenset(call.index for call in tied))

    def _count(self, call: Call, layer: LayerReport, reached: int) -> None:
        ties = call.ties()
        layer.calls += 1
        layer.elements += ties.numel()
        layer.ties += int(ties.sum())
        layer.reached += reached
        if not bool(ties.any()):
            return
        if call.kind not in LINES and call.value is not None:
            layer.tied_positive += int((ties & (call.value > 0)).sum())
        survives = self._replay(torch.float64)[0].session.calls[call.index].survives
        assert survives is not None
        layer.structural += int(survives.sum())
        layer.induced = layer.ties - layer.structural
        ties = call.restore(ties)
        channels = ties.transpose(0, 1).flatten(1).sum(1).tolist() if ties.dim() > 1 else [int(ties.sum())]
        if len(layer.by_channel) not in (0, len(channels)):
            return
        before = layer.by_channel or [0] * len(channels)
        layer.by_channel = [x + y for x, y in zip(before, channels, strict=True)]

    def _judge(self, layer: LayerReport, base: list[Tensor], switched: frozenset[int]) -> None:
        """The change that these calls' choice makes, and its class."""
        change = _change(base, self.run.gradient(switched))
        if change.absolute == 0:
            return
        layer.differing += 1
        if not math.isfinite(change.absolute):
            layer.verdict, layer.absolute = "not finite", change.absolute
            return
        layer.absolute = max(layer.absolute, change.absolute)
        layer.relative = max(layer.relative, change.relative)
        exact, coarse = (self._replayed_change(dtype, switched) for dtype in (torch.float64, torch.float32))
        # nearer to 1, or to the ratio of the unit roundoffs, on the logarithmic scale
        ratio = exact / coarse if coarse > 0 else 0.0
        between = math.sqrt(torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps)
        found: TieClass = "bifurcation" if ratio > between else "compensation"
        if _GRAVITY.index(found) > _GRAVITY.index(layer.verdict) or layer.persistence is None:
            layer.verdict, layer.persistence = max(found, layer.verdict, key=_GRAVITY.index), ratio

    def _replay(self, dtype: torch.dtype) -> tuple[_Run, list[list[Tensor]]]:
        """The routing of this minibatch in another precision, and its gradients under the first convention."""
        if dtype not in self._replays:
            model = copy.deepcopy(self.model).to(dtype)
            piece = [_converted(t, dtype) for t in self.piece]
            run = _Run(model, piece, self.loss, Session(self.a, self.b, self.calls))
            self._replays[dtype] = run, [run.gradient(frozenset(), scale) for scale in _SCALES]
        return self._replays[dtype]

    def _replayed_change(self, dtype: torch.dtype, switched: frozenset[int]) -> float:
        """The largest change, over several scales of the loss, divided by the scale."""
        run, bases = self._replay(dtype)
        return max(
            _change(base, run.gradient(switched, scale)).absolute / scale
            for scale, base in zip(_SCALES, bases, strict=True)
        )
