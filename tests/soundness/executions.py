"""Networks as some machine executes them: every rounding made, sums in an order of chance, constants folded or not.

A product and a sum round once each, to the nearest number of the dtype; a fused multiply-add rounds once (in float32
its exact value passes through float64, which is at most 2^-29 of a rounding more). Numbers are Python floats; a number
of the dtype, and the sums and products of two such, are found by numpy in that dtype.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from tests.relaxations.functions import as_fraction, exact_value
from tests.verifier.exact import STEPS, Vector, affine_map, value_step
from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Concat,
    Elementary,
    Graph,
    Node,
    Reduce,
    Relu,
    ScaleShift,
    Staircase,
    interpret,
)

Number = np.floating
ULP = 256
"""How far executed functions may be off, in units in the last place."""
Row = list[tuple[int, Number]]
"""Terms of a sum: a position in the source, and its weight."""


class Layers:
    """A network with the matrices of its nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.maps = {
            node.name: affine_map(node.op, graph[node.inputs[0]].shape)
            for node in graph.nodes
            if isinstance(node.op, Affine)
        }


@dataclass(frozen=True)
class Pending:
    """Sums that are not computed yet: rows of weights on ``source``, constants, further values, and a divisor."""

    source: list[Number]
    rows: list[Row]
    constants: list[Number]
    terms: tuple[list[Number], ...] = ()
    divisor: int = 1


Value = list[Number] | Pending


class Machine:
    """One way to execute networks in ``dtype``, drawn from ``seed``.

    Attributes:
        fused: whether a product may be added without rounding of its own.
        flush: whether subnormal numbers are zero.
        fold: whether constants and residual sums are folded into the layer before.
    """

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number: type[Number] = np.float32 if dtype == torch.float32 else np.float64
        self.tiny = float(np.finfo(self.number).tiny)
        self.fused, self.flush, self.fold = (self.chance.random() < 0.5 for _ in range(3))
        self.order = self.chance.choice(["given", "reversed", "shuffled", "rising", "falling", "pairs", "signs"])

    def run(self, layers: Layers, x: Sequence[Fraction]) -> tuple[dict[str, Vector], Vector]:
        """The executed inputs of every ReLU and step that is an operator by itself, by its name, and the executed
        output, at a point of the dtype."""
        graph = layers.graph
        seen: dict[str, Vector] = {}
        readers = Counter(name for node in graph.nodes for name in node.inputs)
        readers[graph.output] += 1

        def step(node: Node, values: tuple[Value, ...]) -> Value:
            if node.part is not None:
                return self._part(graph, node, values)
            value = self._apply(layers, node, values)
            if isinstance(node.op, Relu | Staircase | Elementary):
                before = self._computed(values[0])
                seen[node.name] = [Fraction(float(v)) for v in before]
            return value if readers[node.name] == 1 and self.fold else self._computed(value)

        with np.errstate(all="ignore"):
            start: Value = [self.number(float(v)) for v in x]
            assert all(Fraction(float(v)) == w for v, w in zip(start, x, strict=True)), "the point is not of the dtype"
            output = self._computed(interpret(graph, start, step))
        return seen, [Fraction(float(v)) for v in output]

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def _apply(self, layers: Layers, node: Node, values: tuple[Value, ...]) -> Value:
        op = node.op
        if isinstance(op, Relu):
            return [max(v, self.number(0)) for v in self._computed(values[0])]
        if isinstance(op, Staircase):
            held = (self._read(v) for v in self._computed(values[0]))
            return [self.number(float(STEPS[op.function](Fraction(float(v))))) for v in held]
        if isinstance(op, Elementary):
            return [self._inexact(op, v) for v in self._computed(values[0])]
        if isinstance(op, Concat):
            parts = [v for value in values for v in self._computed(value)]
            shapes = [layers.graph[name].shape for name in node.inputs]
            places = torch.arange(len(parts)).split([math.prod(shape) for shape in shapes])
            order = op.apply(*(p.reshape(1, *shape) for p, shape in zip(places, shapes, strict=True)))
            return [parts[i] for i in order.flatten().tolist()]
        if isinstance(op, Add):
            return self._sum(values, op.sign)
        assert isinstance(op, Affine)
        matrix, offset = layers.maps[node.name]
        constants = [self._rounded(b) for b in offset]
        if isinstance(op, ScaleShift):
            scale = [self._rounded(next(iter(row.values()), Fraction(0))) for row in matrix]
            return self._scaled(values[0], scale, constants)
        source, divisor = self._computed(values[0]), 1
        if isinstance(op, AveragePool) or (isinstance(op, Reduce) and op.mean):
            divisor = max(len(row) for row in matrix)
            rows = [[(j, self.number(1)) for j in row] for row in matrix]
        else:
            rows = [[(j, self._rounded(w)) for j, w in row.items()] for row in matrix]
        pending = Pending(source, rows, constants, divisor=divisor)
        return pending if isinstance(node.op, AveragePool | Reduce) or _sums(rows) else self._computed(pending)

    def _part(self, graph: Graph, node: Node, values: tuple[Value, ...]) -> Value:
        """A part of an operator, exactly; the whole operator rounds its result, as a product does, or does not."""
        given = [self._computed(value) for value in values]
        exact = [[v if isinstance(v, Fraction) else Fraction(float(self._read(v))) for v in part] for part in given]
        found: Any = value_step(graph, node, tuple(exact))
        assert node.part is not None
        return found if node.part.whole is None else [self._result(self._rounded(v)) for v in found]

    def _sum(self, values: tuple[Value, ...], sign: int) -> Value:
        first, second = values
        if isinstance(first, Pending) and not isinstance(second, Pending) and first.divisor == 1:
            added = second if sign == 1 else [-v for v in second]
            return Pending(first.source, first.rows, first.constants, (*first.terms, added))
        pairs = zip(self._computed(first), self._computed(second), strict=True)
        read = ((self._read(a), self._read(b)) for a, b in pairs)
        return [self._result(a + b if sign == 1 else a - b) for a, b in read]

    def _scaled(self, value: Value, scale: list[Number], shift: list[Number]) -> Value:
        if self.fold and not isinstance(value, Pending):  # x s + (b - mean s)
            one, zero = self.number(1), self.number(0)
            value = Pending(value, [[(i, one)] for i in range(len(value))], [zero] * len(value))
        if isinstance(value, Pending) and not value.terms and value.divisor == 1:
            rows = [[(j, self._result(w * s)) for j, w in row] for row, s in zip(value.rows, scale, strict=True)]
            both = zip(value.constants, scale, shift, strict=True)
            return Pending(value.source, rows, [self._result(self._result(b * s) + t) for b, s, t in both])
        return [self._total([(v, s)], t) for v, s, t in zip(self._computed(value), scale, shift, strict=True)]

    def _computed(self, value: Value) -> list[Number]:
        if not isinstance(value, Pending):
            return value
        result = []
        for i, (row, constant) in enumerate(zip(value.rows, value.constants, strict=True)):
            terms = [(value.source[j], w) for j, w in row] + [(more[i], self.number(1)) for more in value.terms]
            total = self._total(terms, constant)
            result.append(self._divided(total, value.divisor))
        return result

    def _inexact(self, op: Elementary, v: Number) -> Number:
        """A number within ULP units in the last place of f(v), as far as may be from it, or near."""
        exact = as_fraction(exact_value(op, Fraction(float(self._read(v)))))
        info = np.finfo(self.number)
        spacing = Fraction(float(info.tiny)) * Fraction(float(info.eps))
        if abs(exact) >= Fraction(self.tiny):
            power = math.frexp(float(abs(exact)))[1] - 1  # a float beside a power of 2 may be it: then the larger ulp
            spacing = Fraction(float(info.eps)) * Fraction(2) ** (power - (Fraction(2) ** power > abs(exact)))
        wanted = self._rounded(exact + self.chance.choice([-1, 0, 1]) * ULP * spacing)
        toward = self.number(float(exact))
        while abs(Fraction(float(wanted)) - exact) > ULP * spacing:
            wanted = np.nextafter(wanted, toward)
        return self._result(wanted)

    def _divided(self, total: Number, divisor: int) -> Number:
        if divisor == 1:
            return total
        count = self.number(divisor)
        if self.chance.random() < 0.5:
            return self._result(total / count)
        return self._result(total * self._result(self.number(1) / count))

    # ---- sums --------------------------------------------------------------------------------------------------------

    def _total(self, terms: list[tuple[Number, Number]], constant: Number) -> Number:
        """The sum of products and a constant, in this machine's order."""
        products = [(self._read(a), self._read(b)) for a, b in (*terms, (constant, self.number(1)))]
        if self.order == "shuffled":
            self.chance.shuffle(products)
        elif self.order == "reversed":
            products.reverse()
        elif self.order in ("rising", "falling"):
            products.sort(key=lambda p: abs(float(p[0]) * float(p[1])), reverse=self.order == "falling")
        elif self.order == "signs":
            products.sort(key=lambda p: float(p[0]) * float(p[1]) < 0)
        if self.order == "pairs":
            return self._pairs([self._result(a * b) for a, b in products])
        total = self.number(0)
        for a, b in products:
            total = self._multiply_add(a, b, total) if self.fused else self._result(total + self._result(a * b))
        return total

    def _pairs(self, terms: list[Number]) -> Number:
        if len(terms) == 1:
            return terms[0]
        half = len(terms) // 2
        return self._result(self._pairs(terms[:half]) + self._pairs(terms[half:]))

    def _multiply_add(self, a: Number, b: Number, c: Number) -> Number:
        if self.number is np.float32:
            return self._result(np.float32(float(a) * float(b) + float(c)))
        exact = [float(v) for v in (a, b, c)]
        if not all(map(math.isfinite, exact)):
            return self._result(a * b + c)
        value = Fraction(exact[0]) * Fraction(exact[1]) + Fraction(exact[2])
        return self._result(self._rounded(value))

    def _rounded(self, value: Fraction) -> Number:
        try:
            return self.number(float(value))
        except OverflowError:
            return self.number(math.copysign(math.inf, value))

    def _read(self, v: Number) -> Number:
        return self.number(0) if self.flush and abs(float(v)) < self.tiny else v

    def _result(self, v: Number) -> Number:
        assert isinstance(v, self.number), type(v)
        return self._read(v)


def _sums(rows: list[Row]) -> bool:
    """Whether some row has more than a term of weight one: a layer, and no mere move."""
    return any(len(row) > 1 or any(float(w) != 1 for _, w in row) for row in rows)
