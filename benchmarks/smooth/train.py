"""Trains the networks of :mod:`benchmarks.smooth.models` (seconds each, seeded) and chooses the boxes to bound.

    python -m benchmarks.smooth.train        accuracies, one line a network

MLPs and the ViT learn scikit-learn's digits (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository), on images that were moved by noise. The text network learns which of two groups of words
is more often in a sentence; the controller learns a linear
feedback. Another machine rounds differently, and its networks differ a little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.smooth.models import LENGTH, NETWORKS, WORDS, Controller, Text

FOLDER = Path(__file__).parents[2] / "build" / "smooth"
NOISE = 0.05
RADII = {"mlp": (0.01, 0.03), "vit": (0.0005, 0.002), "text": (0.005, 0.02), "controller": (0.02, 0.1)}
STEPS = 600
GAINS = (42.0, 13.3, 1.9, 4.1)
"""Of the force in each state: about the linear-quadratic regulator of the plant near 0."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, the points to bound it around ``[n, *features]``, and radii of boxes in the norm of maximum.

    Attributes:
        name: in NETWORKS.
        network: in float32, with torch's own operators.
        points: see above.
        radii: the boxes are ``point +- radius``.
        quality: the accuracy on data that it was not trained on; of the controller, the mean of |state| after 50 steps
            over that before.
    """

    name: str
    network: nn.Module
    points: Tensor
    radii: tuple[float, ...]
    quality: float


def train(name: str) -> Trained:
    """One of the networks."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    if isinstance(network, Controller):
        return _controller(name, network)
    if isinstance(network, Text):
        return _text(name, network)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    test = torch.arange(len(x)) % 5 == 0

    def batch() -> tuple[Tensor, Tensor]:
        index = torch.randint(int((~test).sum()), (128,))
        images = x[~test][index]
        return images + NOISE * (2 * torch.rand_like(images) - 1), y[~test][index]

    def loss() -> Tensor:
        images, labels = batch()
        return F.cross_entropy(network(images), labels)

    _fit(network, STEPS, loss)
    return Trained(name, network, x[test][:3], _radii(name), _accuracy(network, x[test], y[test]))


def _radii(name: str) -> tuple[float, float]:
    """A narrow box and a wide one."""
    return RADII["mlp" if name.startswith("mlp") else name]


def _fit(network: nn.Module, steps: int, loss: Callable[[], Tensor]) -> None:
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)


def _accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((network(x).argmax(1) == y).float().mean())


def _text(name: str, network: Text) -> Trained:
    """Words 0 to 7 count for the first class, 8 to 15 for the second; the rest say nothing."""

    def sentences(count: int) -> tuple[Tensor, Tensor]:
        words = torch.randint(WORDS, (2 * count, LENGTH))
        sign = (words < 8).float() - ((words >= 8) & (words < 16)).float()
        score = sign.sum(1)
        clear = score != 0
        return words[clear][:count], (score[clear][:count] < 0).long()

    def loss() -> Tensor:
        words, label = sentences(128)
        x = network.words(words)
        return F.cross_entropy(network(x + NOISE * (2 * torch.rand_like(x) - 1)), label)

    _fit(network, STEPS // 2, loss)
    words, label = sentences(1000)
    with torch.no_grad():
        x = network.words(words)
    return Trained(name, network, x[:3].clone(), _radii(name), _accuracy(network, x, label))


def _controller(name: str, network: Controller) -> Trained:
    def start(count: int) -> Tensor:
        return (2 * torch.rand(count, 4) - 1) * torch.tensor([0.4, 0.4, 1.0, 0.5])

    def states(x: Tensor, steps: int) -> Tensor:
        seen = []
        for _ in range(steps):
            x = network.step(x)
            seen.append(x)
        return torch.stack(seen)

    def loss() -> Tensor:
        x = start(256)
        return F.mse_loss(network.force(x), x @ torch.tensor(GAINS).unsqueeze(1))

    _fit(network, STEPS, loss)
    x = start(1000)
    with torch.no_grad():
        quality = float(states(x, 50)[-1].abs().mean() / x.abs().mean())
    return Trained(name, network, x[:3], _radii(name), quality)


def trained(name: str) -> Trained:
    """:func:`train`, from the file of an earlier call where there is one in build/smooth."""
    file = FOLDER / f"{name}-{torch.__version__}.pt"
    if not file.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        found = train(name)
        torch.save({"weights": found.network.state_dict(), "points": found.points, "quality": found.quality}, file)
        return found
    held = torch.load(file, weights_only=True)
    network = NETWORKS[name]()
    network.load_state_dict(held["weights"])
    return Trained(name, network.eval().requires_grad_(False), held["points"], _radii(name), held["quality"])


if __name__ == "__main__":
    for name in NETWORKS:
        print(f"{name}: {trained(name).quality:.3f}", flush=True)
