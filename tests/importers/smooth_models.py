"""Models and modules of every smooth function, as single nodes and as exporters write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.importers.modules import Apply
from tests.importers.onnx_models import Case, floats, one, op


def _number(value: float) -> np.ndarray:
    return np.float32(value).reshape(())


def _behind_exp(kind: str, *weights: float) -> Case:
    """A function of positive numbers."""
    names = {f"w{i}": _number(value) for i, value in enumerate(weights)}
    return Case([op("Exp", "x", "e"), op(kind, " ".join(["e", *names]))], [1, 5], (5,), names)


_ROOT, _ONE, _HALF = {"c": _number(2**0.5)}, {"i": _number(1.0)}, {"h": _number(0.5)}

SMOOTH = {
    **{
        kind.lower(): one(kind, ["n", 5], (5,))
        for kind in ["Sigmoid", "Tanh", "Erf", "Exp", "Softplus", "Softsign", "Sin", "Cos", "Atan"]
    },
    **{kind.lower(): one(kind, ["n", 5], (5,)) for kind in ["Sign", "Floor", "Ceil"]},
    "round": one("Round", [1, 5], (5,), opset=11),
    "hard swish": one("HardSwish", [1, 5], (5,), opset=14),
    "mish": one("Mish", [1, 5], (5,), opset=18),
    "elu": one("Elu", [1, 5], (5,)),
    "elu, alpha": one("Elu", [1, 5], (5,), alpha=0.3),
    "elu, alpha 0": one("Elu", [1, 5], (5,), alpha=0.0),
    "selu": one("Selu", [1, 5], (5,)),
    "selu, alpha and gamma": one("Selu", [1, 5], (5,), alpha=0.7, gamma=1.3),
    "celu": one("Celu", [1, 5], (5,)),
    "celu, alpha": one("Celu", [1, 5], (5,), alpha=0.3),
    "gelu": one("Gelu", [1, 5], (5,), opset=20),
    "gelu by tanh": one("Gelu", [1, 5], (5,), opset=20, approximate="tanh"),
    "log": _behind_exp("Log"),
    "sqrt": _behind_exp("Sqrt"),
    "reciprocal": _behind_exp("Reciprocal"),
    "pow 1/2": _behind_exp("Pow", 0.5),
    "pow -1/2": _behind_exp("Pow", -0.5),
    "pow -1": _behind_exp("Pow", -1.0),
    **{f"pow {n}": one("Pow", [1, 5], (5,), _number(n)) for n in (1, 2, 3, 6)},
    "square as a product": one("Mul", [1, 5], (5,)),
    "silu as a product": Case([op("Sigmoid", "x", "s"), op("Mul", "x s")], [1, 5], (5,)),
    "mish as a product": Case([op("Softplus", "x", "s"), op("Tanh", "s", "t"), op("Mul", "t x")], [1, 5], (5,)),
    "gelu as five nodes": Case(
        [op("Div", "x c", "d"), op("Erf", "d", "e"), op("Add", "e i", "a"), op("Mul", "x a", "m"), op("Mul", "m h")],
        [1, 5],
        (5,),
        {**_ROOT, **_ONE, **_HALF},
    ),
    "gelu as five nodes, halved first": Case(
        [op("Mul", "x h", "q"), op("Mul", "x c", "d"), op("Erf", "d", "e"), op("Add", "i e", "a"), op("Mul", "a q")],
        [1, 5],
        (5,),
        {"c": _number(0.5**0.5), **_ONE, **_HALF},
    ),
    "a network": Case(
        [
            op("Gemm", "x w b", "g"),
            op("Tanh", "g", "t"),
            op("Gemm", "t v", "k"),
            op("Gelu", "k", "m"),
            op("Add", "m k", "s"),
            op("Sigmoid", "s"),
        ],
        [1, 5],
        (4,),
        {"w": floats(5, 6), "b": floats(6), "v": floats(6, 4)},
        opset=20,
    ),
}
SMOOTH["square as a product"] = Case([op("Mul", "x x")], [1, 5], (5,))


def _of(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Apply(function)


SMOOTH_MODULES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sigmoid": (nn.Sigmoid, "sigmoid"),
    "tanh": (nn.Tanh, "tanh"),
    "erf": (_of(torch.erf), "erf"),
    "exp": (_of(torch.exp), "exp"),
    "expm1": (_of(torch.expm1), "expm1"),
    "softplus": (nn.Softplus, "softplus"),
    "softplus, beta": (lambda: nn.Softplus(2.5), "softplus"),
    "log sigmoid": (nn.LogSigmoid, "softplus"),
    "softsign": (nn.Softsign, "softsign"),
    "elu": (nn.ELU, "elu"),
    "elu, alpha": (lambda: nn.ELU(0.3), "elu"),
    "selu": (nn.SELU, "elu"),
    "celu": (nn.CELU, "celu"),
    "celu, alpha": (lambda: nn.CELU(0.3), "celu"),
    "gelu": (nn.GELU, "gelu"),
    "gelu by tanh": (lambda: nn.GELU("tanh"), "gelu_tanh"),
    "silu": (nn.SiLU, "silu"),
    "silu as a product": (_of(lambda x: x * torch.sigmoid(x)), "silu"),
    "mish": (nn.Mish, "mish"),
    "mish as a product": (_of(lambda x: x * torch.tanh(F.softplus(x))), "mish"),
    "hardswish": (nn.Hardswish, "hardswish"),
    "sin": (_of(torch.sin), "sin"),
    "cos": (_of(torch.cos), "cos"),
    "atan": (_of(torch.atan), "atan"),
    "square": (_of(torch.square), "power"),
    "square as a product": (_of(lambda x: x * x), "power"),
    "pow 3": (_of(lambda x: x**3), "power"),
    "log": (_of(lambda x: torch.log(torch.exp(x))), "log"),
    "log1p": (_of(lambda x: torch.log1p(torch.exp(x))), "log1p"),
    "sqrt": (_of(lambda x: torch.sqrt(x * x + 1)), "sqrt"),
    "pow 1/2": (_of(lambda x: (x * x + 1) ** 0.5), "sqrt"),
    "rsqrt": (_of(lambda x: torch.rsqrt(x * x + 1)), "rsqrt"),
    "reciprocal": (_of(lambda x: torch.reciprocal(x * x + 1)), "reciprocal"),
    "gelu as five calls": (_of(lambda x: x * 0.5 * (1.0 + torch.erf(x / 1.4142135623))), "gelu"),
}
"""How a module is made, and the function that its graph has."""
