"""Small networks of smooth functions, products and attention, written with operators that zonocuda and auto_LiRPA 0.3
both read. Imports torch alone, of any version from 1.13 on: the peer's process loads this file too.

auto_LiRPA 0.3 has no erf, no SiLU, no GELU and no norm, and no bounds of its own softmax.
Where a module is built with ``plain`` it computes the same
function from what the peer has; else with torch's own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXELS, CLASSES = 64, 10
WORDS, LENGTH, WIDTH = 24, 8, 16
TIME = 0.1
"""Seconds of one step of the controller's plant."""


class Activation(nn.Module):
    """sigmoid, tanh, silu, gelu (with erf) or gelu_tanh."""

    def __init__(self, name: str, plain: bool) -> None:
        super().__init__()
        self.name, self.plain = name, plain

    def forward(self, x: Tensor) -> Tensor:
        if self.name in ("sigmoid", "tanh"):
            return torch.sigmoid(x) if self.name == "sigmoid" else torch.tanh(x)
        if self.name == "silu":
            return x * torch.sigmoid(x) if self.plain else F.silu(x)
        if self.name == "gelu_tanh":
            if not self.plain:
                return F.gelu(x, approximate="tanh")
            inner = x * (x * x * 0.044715 + 1) * (2 * math.sqrt(2 / math.pi))
            return x * torch.sigmoid(inner)
        if self.plain:
            raise NotImplementedError("auto_LiRPA 0.3 has no erf")
        return F.gelu(x)


class Mlp(nn.Module):
    """3 hidden layers of 64 on the 64 pixels of a digit."""

    def __init__(self, activation: str, plain: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (PIXELS, 64, 64):
            layers += [nn.Linear(inputs, 64), Activation(activation, plain)]
        self.layers = nn.Sequential(*layers, nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Norm(nn.Module):
    """LayerNorm over the last dimension."""

    def __init__(self, width: int, plain: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        if not self.plain:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)
        d = x - x.mean(-1, keepdim=True)
        variance = (d * d).mean(-1, keepdim=True)
        return d * torch.sqrt(variance + 1e-5).reciprocal() * self.weight + self.bias


class Block(nn.Module):
    """Self-attention and two linear layers with a ReLU, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int, plain: bool) -> None:
        super().__init__()
        self.width, self.heads, self.plain = width, heads, plain
        self.norms = nn.ModuleList([Norm(width, plain), Norm(width, plain)])
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def attention(self, x: Tensor) -> Tensor:
        tokens, each = x.shape[1], self.width // self.heads

        def parts(y: Tensor) -> Tensor:
            return y.reshape(-1, tokens, self.heads, each).transpose(1, 2)

        q, k, v = parts(self.query(x)), parts(self.key(x)), parts(self.value(x))
        scores = q.matmul(k.transpose(2, 3)) * (1 / math.sqrt(each))
        mixed = self._shares(scores).matmul(v)
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(-1, tokens, self.width))
        return joined

    def _shares(self, scores: Tensor) -> Tensor:
        """Softmax; the peer's own subtracts a maximum that it cannot bound."""
        if not self.plain:
            return torch.softmax(scores, -1)
        exps = torch.exp(scores)
        return exps * exps.sum(-1, keepdim=True).reciprocal()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        hidden = self.first(self.norms[1](x))
        if self.plain:  # the peer optimises slopes of a ReLU where its features have one dimension, or three
            alive = torch.relu(hidden.reshape(hidden.shape[0], -1)).reshape(hidden.shape)
        else:
            alive = torch.relu(hidden)
        y: Tensor = self.second(alive)
        return x + y


class Transformer(nn.Module):
    """Blocks, a norm, the mean over tokens, and a linear layer."""

    def __init__(self, width: int, heads: int, hidden: int, blocks: int, classes: int, plain: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads, hidden, plain) for _ in range(blocks)))
        self.norm, self.last = Norm(width, plain), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.blocks(x)).mean(1))
        return out


class Vit(nn.Module):
    """A digit ``[B, 64]`` as 4 patches of 4x4 pixels, and a transformer of 2 blocks."""

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(16, WIDTH)
        self.place = nn.Parameter(torch.randn(4, WIDTH) * 0.1)
        self.body = Transformer(WIDTH, 2, 32, 2, CLASSES, plain)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.reshape(-1, 2, 4, 2, 4).transpose(2, 3).reshape(-1, 4, 16)
        out: Tensor = self.body(self.embed(patches) + self.place)
        return out


class Text(nn.Module):
    """The embeddings ``[B, 8, 16]`` of 8 words, and a transformer of 1 block; what is perturbed are the embeddings."""

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.place = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        self.body = Transformer(WIDTH, 2, 32, 1, 2, plain)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x + self.place)
        return out


class Controller(nn.Module):
    """A cart that turns a pole, held upright by a network: two steps of the closed loop.

    States ``[B, 4]``: angle a, its speed w, position p, speed v. With the force u(a, w, p, v) of a small tanh network

        w' = w + T (9.8 sin a - u cos a - 0.1 w),  v' = v + T (u - 0.5 w w sin a),  a' = a + T w,  p' = p + T v.
    """

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        del plain  # it is written with what both have
        self.force = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def step(self, x: Tensor) -> Tensor:
        a, w, p, v = (x[:, i : i + 1] for i in range(4))
        u, sine = self.force(x), torch.sin(a)
        turn = w + TIME * (9.8 * sine - u * torch.cos(a) - 0.1 * w)
        push = v + TIME * (u - 0.5 * (w * w) * sine)
        return torch.cat([a + TIME * w, turn, p + TIME * v, push], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self.step(x))


NETWORKS = {
    "mlp-sigmoid": lambda plain=False: Mlp("sigmoid", plain),
    "mlp-tanh": lambda plain=False: Mlp("tanh", plain),
    "mlp-silu": lambda plain=False: Mlp("silu", plain),
    "mlp-gelu": lambda plain=False: Mlp("gelu", plain),
    "mlp-gelu-tanh": lambda plain=False: Mlp("gelu_tanh", plain),
    "vit": Vit,
    "text": Text,
    "controller": Controller,
}
"""By name what builds a network, with random weights."""
