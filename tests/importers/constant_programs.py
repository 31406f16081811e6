"""Networks that compute constants from constants, beside what those are in exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.importers.onnx_models import model, op
from zonocuda.graph import Affine, Graph, Op

Exact = NDArray[Any]
"""An array of rationals."""

DIGITS = 400
"""Binary digits of a root that is no rational."""


def exact(array: NDArray[Any]) -> Exact:
    """The rationals that an array of floats holds."""
    return np.vectorize(lambda v: Fraction(float(v)), otypes=[object])(array)


def root(x: Fraction) -> Fraction:
    """A square root, cut behind so many digits."""
    shifted = (x.numerator << (2 * DIGITS)) // x.denominator
    return Fraction(math.isqrt(shifted), 1 << DIGITS)


class Program:
    """Constants of one vector shape and the nodes that compute them, by tensor name."""

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.values: dict[str, Exact] = {}

    def constant(self, array: Sequence[float] | NDArray[Any]) -> str:
        """A float32 initializer."""
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(array, dtype=np.float32)
        self.values[name] = exact(self.weights[name])
        return name

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node, whose result has the name that is returned."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(op(kind, " ".join(inputs), name, **attributes))
        self.values[name] = RULES[kind](*(self.values[i] for i in inputs))
        return name

    def model(self, scale: str, shift: str) -> onnx.ModelProto:
        """scale * x + shift."""
        nodes = [*self.nodes, op("Mul", f"x {scale}", "scaled"), op("Add", f"scaled {shift}")]
        return model(nodes, [1, self.size], self.weights)


def folded(graph: Graph) -> Graph:
    """The graph whose constants are those that the network's own precision gives, taken for exact."""

    def uncounted(op: Op) -> Op:
        return replace(op, roundings=0, doubt={}) if isinstance(op, Affine) else op

    executed = graph.as_executed()
    return Graph(tuple(replace(node, op=uncounted(node.op)) for node in executed.nodes), graph.output)


def _sum(x: Exact) -> Exact:
    return np.array([sum(x, Fraction(0))], dtype=object)


RULES: dict[str, Callable[..., Exact]] = {
    "Abs": abs,
    "Add": lambda a, b: a + b,
    "Div": lambda a, b: a / b,
    "MatMul": lambda a, b: a @ b,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": lambda a, b: a * b,
    "Neg": lambda a: -a,
    "Pow": lambda a, b: np.array([x ** int(y) for x, y in zip(a, np.broadcast_to(b, a.shape), strict=True)]),
    "Reciprocal": lambda a: 1 / a,
    "ReduceMean": lambda a: _sum(a) / len(a),
    "ReduceSum": _sum,
    "ReduceProd": lambda a: np.array([np.prod(a)], dtype=object),
    "Relu": lambda a: np.maximum(a, Fraction(0)),
    "Sqrt": np.vectorize(root, otypes=[object]),
    "Sub": lambda a, b: a - b,
}


def random_program(seed: int, length: int = 8) -> tuple[Program, str, str]:
    """A chain of random operators on numbers of very different sizes; the names of two results.

    Cancellation is likely: sums of a number and what is close to its negative.
    """
    rng = np.random.default_rng(seed)
    program = Program()

    def fresh() -> NDArray[Any]:
        return rng.standard_normal(4) * 10.0 ** rng.integers(-3, 4, 4)

    pool = [program.constant(fresh()) for _ in range(3)]

    def pick() -> str:
        return pool[rng.integers(max(0, len(pool) - 4), len(pool))]

    def positive() -> str:
        return program("Add", program("Abs", pick()), program.constant(rng.random(4) + 1e-3))

    def close(name: str) -> str:
        near = [float(v) * (1 + 1e-6 * float(rng.integers(-2, 3))) for v in program.values[name]]
        return program("Sub", name, program.constant(near))

    def product() -> str:
        matrix = program.constant(rng.standard_normal((4, 4)))
        return program("MatMul", matrix, pick())

    def whole() -> str:
        return program("Add", pick(), program(str(rng.choice(["ReduceSum", "ReduceMean", "ReduceProd"])), pick()))

    steps: list[Callable[[], str]] = [
        lambda: program(str(rng.choice(["Add", "Sub", "Mul", "Max", "Min"])), pick(), pick()),
        lambda: program("Div", pick(), positive()),
        lambda: program("Sqrt", positive()),
        lambda: program("Reciprocal", positive()),
        lambda: program("Pow", positive(), program.constant([rng.integers(-3, 4)])),
        lambda: close(pick()),
        product,
        whole,
    ]
    while len(pool) < 3 + length:
        pool.append(steps[rng.integers(len(steps))]())
    return program, pool[-2], pool[-1]
