"""When automatic differentiation returns an element of the Clarke subdifferential, by the theorems that are known.

The function is the loss of one minibatch as a function of the parameters, over the reals, at a point where exactly the
recorded ties hold. Near such a point the functions without a tie are smooth, so that only the tied ones count. The
theorems are those of Park, Chun & Lee 2024, "What does automatic differentiation compute for neural networks?" (ICLR):

* Theorem 4 and, for biases that are shared as in a convolution, Theorem 6: every tied function is pointwise, is fed by
  a layer with a bias for each neuron (or channel) of its own, and uses the same convex combination of the one-sided
  derivatives everywhere in a layer. (For a minibatch of one and derivatives that are limits: Lee, Park & Aiken 2023.)
* Theorem 5: every tied pointwise function is fed by a linear layer, and the inputs of that layer, one for each sample,
  are linearly independent. No bias is needed.
* Theorem 8: derivatives are one-sided limits, max pooling picks one winner, and for each tied layer a direction of its
  parameters exists that breaks all its ties the way the choices say: a linear program.

What is computed here errs to "unknown": independence is proven modulo a prime, a direction is checked in exact rational
arithmetic, and in Theorem 8 two winners count as interchangeable only where both pass no gradient on or, in the first
layer, have equal inputs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from torch import Tensor

from zonocuda.nonsmooth.conventions import LINES, Convention
from zonocuda.nonsmooth.directions import has_direction, independent
from zonocuda.nonsmooth.handlers import Affine
from zonocuda.nonsmooth.results import Certificate
from zonocuda.nonsmooth.routing import Call
from zonocuda.nonsmooth.session import Session
from zonocuda.nonsmooth.tied_rows import TooManyTiesError, rows_of_layer

_SHARED_BIAS = "Park, Chun & Lee 2024, Theorems 4 and 6 (a bias for each neuron or channel, one choice in a layer)"
_INDEPENDENT = "Park, Chun & Lee 2024, Theorem 5 (linearly independent inputs)"
_DIRECTION = "Park, Chun & Lee 2024, Theorem 8 (a direction that breaks all ties as chosen)"


Gradient = Mapping[int, Tensor]  # by the id of what is differentiated by


def certify(session: Session, convention: Convention, gradient: Gradient) -> Certificate:
    """What is proven of the gradient that ``convention`` gives for a recorded forward pass.

    Args:
        session: the pass; its calls know their inputs.
        convention: the choice.
        gradient: what it gives.
    """
    if session.unrecorded:
        names = ", ".join(sorted(session.unrecorded))
        return Certificate("unknown", "", f"the program has operations that are not known to be smooth: {names}")
    if not all(bool(g.isfinite().all()) for g in gradient.values()):
        return Certificate("unknown", "", "the gradient is not finite")
    tied = [call for call in session.calls if bool(call.ties().any())]
    if not tied:
        return Certificate("differentiable", "chain rule", "no tie: the gradient is the derivative")
    readers = Counter(id(call.source) for call in session.calls if isinstance(call.source, Affine))
    for call in tied:
        if readers[id(call.source)] > 1:  # sides chosen for one function need not be those chosen for the other
            return Certificate("unknown", "", f"the input of {call.layer} is read by another recorded function as well")
    reasons = []
    for theorem, check in ((_SHARED_BIAS, _shared_bias), (_INDEPENDENT, _independent), (_DIRECTION, _direction)):
        reason = check(session, convention, gradient, tied)
        if reason is None:
            return Certificate("subgradient", theorem, f"{len(tied)} tied functions")
        reasons.append(reason)
    return Certificate("unknown", "", "; ".join(dict.fromkeys(reasons)))


def _own(session: Session, affine: Affine, leaves: Gradient, bias: bool) -> bool:
    """Whether the layer's bias (or weight) is a parameter, and is read once in the whole program."""
    parameter = affine.bias if bias else affine.weight
    return parameter is not None and id(parameter) in leaves and session.uses[id(parameter)] == 1


def _pointwise(convention: Convention, call: Call) -> str | None:
    if call.kind not in LINES:
        return f"{call.layer} is no pointwise function"
    alpha = convention.at_zero(call.kind, call.left)
    if not min(call.left, 1.0) <= alpha <= max(call.left, 1.0):
        return f"{call.layer}: {alpha} lies outside of the one-sided derivatives [{call.left}, 1]"
    return None


def _shared_bias(session: Session, convention: Convention, leaves: Gradient, tied: list[Call]) -> str | None:
    """Theorems 4 and 6; None if they apply, else why not."""
    for call in tied:
        reason = _pointwise(convention, call)
        if reason is not None:
            return reason
        if not isinstance(call.source, Affine) or not _own(session, call.source, leaves, bias=True):
            return f"{call.layer} is not fed by a layer with a bias of its own"
    return None


def _independent(session: Session, convention: Convention, leaves: Gradient, tied: list[Call]) -> str | None:
    """Theorem 5."""
    for call in tied:
        reason = _pointwise(convention, call)
        if reason is not None:
            return reason
        source = call.source
        if not isinstance(source, Affine) or source.kind != "linear" or not _own(session, source, leaves, bias=False):
            return f"{call.layer} is not fed by a linear layer of its own"
        if not independent(source.input.detach().flatten(0, -2)):
            return f"the inputs of {call.layer} are not proven to be linearly independent"
    return None


def _direction(session: Session, convention: Convention, leaves: Gradient, tied: list[Call]) -> str | None:
    """Theorem 8: the linear programs of Algorithm 1, one for each channel of each layer."""
    layers: dict[int, list[Call]] = defaultdict(list)
    for call in tied:
        line = call if call.kind in LINES else call.source if isinstance(call.source, Call) else None
        affine = line.source if line is not None else call.source
        if call.kind not in (*LINES, "max_pool") or not isinstance(affine, Affine):
            return f"{call.layer} is not fed by a linear layer or a convolution"
        if affine.kind not in ("linear", "conv2d") or not _own(session, affine, leaves, bias=False):
            return f"{call.layer} is not fed by a linear layer or a convolution of its own"
        if affine.bias is not None and not _own(session, affine, leaves, bias=True):
            return f"{call.layer}: the bias of its layer is shared or fixed"
        if call.kind == "max_pool" and 1.0 not in convention.weights("max_pool")[:2]:
            return f"{call.layer}: Theorem 8 is for pooling that picks one winner"
        if line is not None and convention.at_zero(line.kind, line.left) not in (line.left, 1.0):
            return f"{line.layer}: Theorem 8 is for one-sided derivatives"
        layers[id(affine)].append(call)
    for calls in layers.values():
        try:
            rows = rows_of_layer(calls, convention)
        except TooManyTiesError as error:
            return str(error)
        for channel, constraints in rows.items():
            if not has_direction(constraints):
                return f"{calls[0].layer}: no direction was found that breaks the ties of channel {channel} as chosen"
    return None
