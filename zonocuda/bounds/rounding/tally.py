"""What a dual pass notes of its rounding, to be added up at its end; nothing, where no rounding is counted."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.rounding.arithmetic import EXTRA
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.graph import Node

Measure = Callable[[Tensor], Tensor]
"""For values ``[B, *features]`` of a node, sum_i |v_i| values_i for each of the rows v of that node, ``[B, R]``;
nothing is computed before it is called."""


class NoTally:
    """A tally that notes nothing: of a pass whose rounding is not counted. :class:`Tally` says what each method is for.

    Attributes:
        ledger: what is charged for each node, where rounding is counted.
    """

    ledger: Ledger | None = None

    def fork(self) -> NoTally:
        return self

    def keep(self, index: Tensor) -> None:
        pass

    def constant(self, value: Tensor) -> None:
        pass

    def specification(self, name: str, measure: Measure, rounded: Tensor) -> None:
        pass

    def output(self, name: str, measure: Measure) -> None:
        pass

    def units(self, node: Node, index: Tensor) -> None:
        pass

    def linear(self, node: Node, measure: Measure) -> None:
        pass

    def sum(self, node: Node, measure: Measure) -> None:
        pass

    def activation(self, node: Node, image: object, measure: Measure, offsets: Tensor) -> None:
        pass

    def stop(self, node: Node, measure: Measure, offsets: Tensor) -> None:
        pass

    def constraints(self, count: int, offsets: Tensor) -> None:
        pass

    def sent(self, name: str, rows: object, alone: bool) -> None:
        pass

    def meeting(self, name: str, measure: Measure, present: Measure) -> None:
        pass

    def end(self, name: str, measure: Measure, times: int = 1) -> None:
        pass

    def bounds(self, low: Tensor, high: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        return low, high

    def below(self, value: Tensor) -> Tensor:
        return value


class Tally(NoTally):
    """E of a pass under way, ``[B, R]``: what it has noted, to be added up when it is asked for."""

    ledger: Ledger

    def __init__(self, ledger: Ledger, like: Tensor) -> None:
        """Nothing noted yet, for rows like ``like`` ``[B, R]``."""
        self.ledger = ledger
        self._base = torch.zeros_like(like, requires_grad=False)
        self._images: set[str] = set()  # where rows are the image of an activation, not charged yet
        self._image: tuple[object, Measure]  # the last one, and its measure
        self._measured: list[Tensor] = []  # [B, R]
        self._shared: list[Tensor] = []  # [B, 1]
        self._constants: list[Tensor] = []  # [B, R]
        self._offsets: list[Tensor] = []  # [B, R]
        self._gamma = 0.0

    def fork(self) -> Tally:
        """One that goes on from here, and leaves this one where it is."""
        other = Tally(self.ledger, self._base)
        other._base, other._images = self.total(), set(self._images)
        return other

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        self._base = self.total()[:, index]
        for noted in (self._measured, self._shared, self._constants, self._offsets):
            noted.clear()

    def total(self) -> Tensor:
        """E so far."""
        result = self._base
        if self._measured:
            result = result + torch.stack(self._measured).sum(0)
        if self._shared:
            result = result + torch.stack(self._shared).sum(0)
        if self._constants:
            result = result + self.ledger.rounding.u * torch.stack(self._constants).abs().sum(0)
        if self._offsets:
            result = result + self._gamma * torch.stack(self._offsets).abs().sum(0)
        return result

    # ---- what a pass notes -------------------------------------------------------------------------------------------

    def constant(self, value: Tensor) -> None:
        """A new value of the constant."""
        self._constants.append(value.detach())

    def specification(self, name: str, measure: Measure, rounded: Tensor) -> None:
        """Rows of a specification at a node; ``rounded`` ``[R]`` is 1 where numbers of the row were rounded."""
        u, m = self.ledger.rounding.u, self.ledger.magnitude(name)
        self._measured.append(rounded * (3 * u * measure(m) + self.ledger.spare(name)))

    def output(self, name: str, measure: Measure) -> None:
        """Rows of a specification at the output, whose executed values may have been flushed to zero."""
        execution = self.ledger.rounding.execution
        if execution is not None:
            ones = torch.ones_like(self.ledger.magnitude(name))
            self._measured.append(execution.eta * measure(ones) + self.ledger.spare(name))

    def units(self, node: Node, index: Tensor) -> None:
        """Unit vectors of chosen neurons (flattened positions) of an affine node that go to its input."""
        weights, constant = self.ledger.charge(node, False)
        self._shared.append(constant)
        if weights is not None:
            self._measured.append(weights.reshape(len(weights), -1)[:, index].expand(self._base.shape))

    def linear(self, node: Node, measure: Measure) -> None:
        """Rows of an affine node that go to its input."""
        weights, constant = self.ledger.charge(node, node.name in self._images)
        self._shared.append(constant)
        if weights is not None:
            self._measured.append(measure(weights))

    def sum(self, node: Node, measure: Measure) -> None:
        """Rows of a sum of two that go to its terms."""
        weights = self.ledger.sum(node)
        if weights is not None:
            self._measured.append(measure(weights) + self.ledger.spare(node.name))

    def activation(self, node: Node, image: object, measure: Measure, offsets: Tensor) -> None:
        """At an activation: the image of the rows, and the sums ``[B, R]`` of the magnitudes of its offsets, or what
        has such a sum as its magnitude.

        The pass tells :meth:`sent` which rows it sends to the activation's input: ``image`` itself, or others."""
        self._add_offsets(self.ledger.charged(node), offsets)
        if self.ledger.is_image(node.inputs[0]):
            self._images.add(node.inputs[0])
            self._image = (image, measure)
            return
        weights, constant = self.ledger.activation(node)
        self._shared.append(constant)
        self._measured.append(measure(weights))

    def stop(self, node: Node, measure: Measure, offsets: Tensor) -> None:
        """At a node where rows end: ``measure`` is that of the rows that came there, ``offsets`` ``[B, R]`` are the
        sums of the magnitudes of what those are worth that end."""
        if node.name in self._images:
            self._charge_image(node.name, measure)
        self._add_offsets(prod(node.shape), offsets)

    def constraints(self, count: int, offsets: Tensor) -> None:
        """A sum of ``count`` products, multipliers times points, that the constant gains; ``offsets`` ``[B, R]`` are
        the sums of their magnitudes. The rows that begin there are told as all rows are."""
        self._add_offsets(count, offsets)

    def _add_offsets(self, count: int, offsets: Tensor) -> None:
        """Sums of ``count`` offsets."""
        self._offsets.append(offsets.detach())
        self._gamma = max(self._gamma, self.ledger.rounding.gamma(count + EXTRA))
        self._base = self._base + count * self.ledger.rounding.eta

    def sent(self, name: str, rows: object, alone: bool) -> None:
        """At an activation's input: the rows that a pass sends there after :meth:`activation`; ``alone``: no others
        wait there.

        What is charged for the image is measured where it is, not on rows that others may have cancelled.
        """
        if name not in self._images:
            return
        image, measure = self._image
        if rows is not image or not alone:
            self._charge_image(name, measure)

    def meeting(self, name: str, measure: Measure, present: Measure) -> None:
        """The computed sum of rows of a node and of those that were ``present`` there."""
        if name in self._images:
            self._charge_image(name, present)
        u, m = self.ledger.rounding.u, self.ledger.magnitude(name)
        self._measured.append(u * measure(m) + self.ledger.spare(name))

    def end(self, name: str, measure: Measure, times: int = 1) -> None:
        """The smallest (or largest) v . x over bounds of a node's value, a sum of N products, ``times`` as inexact."""
        gamma = self.ledger.rounding.gamma(prod(self.ledger.nodes[name].shape) + EXTRA)
        cost = times * gamma * measure(self.ledger.magnitude(name))
        self._measured.append(cost + times * self.ledger.spare(name))
        if name in self._images:  # they end here, before the affine node would have charged for it
            self._charge_image(name, measure)

    def _charge_image(self, name: str, measure: Measure) -> None:
        """The image of an activation at its input, apart from what the affine node will charge."""
        self._images.remove(name)
        weights, constant = self.ledger.image(name)
        self._shared.append(constant)
        self._measured.append(measure(weights))

    def below(self, value: Tensor) -> Tensor:
        """What is proven where ``value`` ``[B, R]`` was computed, as a lower bound."""
        return value - self.ledger.close(value, self.total())

    def bounds(self, low: Tensor, high: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """What is proven where ``low`` and ``high`` ``[B, R]`` were computed as sums of what ``size`` adds up to, of no
        more terms than twice the nodes."""
        slack = self.total() + self.ledger.rounding.gamma(2 * len(self.ledger.nodes) + 4) * size
        return low - self.ledger.close(low, slack), high + self.ledger.close(high, slack)


def tally(ledger: Ledger | None, like: Tensor) -> NoTally:
    """A tally for rows like ``like`` ``[B, R]``, which notes nothing where there is no ledger."""
    return NoTally() if ledger is None else Tally(ledger, like)
