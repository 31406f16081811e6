"""Trains the example networks on scikit-learn's digits and chooses the properties that the demo shows.

    python examples/train.py

writes networks/{fc,conv,residual}.onnx and specs/*.vnnlib beside this file; it takes about a minute on a CPU and needs
scikit-learn. Another machine rounds differently, so its networks, and the radii chosen for them, may differ a little.

The digits are 8 x 8 images with 17 grey values, scaled to 0, 1/16, ..., 1 (E. Alpaydin and C. Kaynak, Optical
Recognition of Handwritten Digits, UCI Machine Learning Repository). Every fifth image is for testing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from export import Interval, Residual, onnx_model, vnnlib
from sklearn.datasets import load_digits
from torch import Tensor, nn

import zonocuda
from zonocuda import Verdict

HERE = Path(__file__).parent
RADII = tuple(Decimal(r) / 1000 for r in (5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250))
WANTED = (Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.FALSIFIED)


@dataclass(frozen=True, eq=False)
class Images:
    """Images ``[n, 1, 8, 8]`` with values in [0, 1], their digits, and their numbers in the data set, ``[n]``."""

    pixels: Tensor
    labels: Tensor
    numbers: Tensor


def load_images() -> tuple[Images, Images]:
    """The images for training and for testing."""
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    numbers = torch.arange(len(labels))
    test = numbers % 5 == 0
    return Images(pixels[~test], labels[~test], numbers[~test]), Images(pixels[test], labels[test], numbers[test])


def build(name: str) -> nn.Sequential:
    """One of the three networks, with random weights."""
    if name == "fc":
        layers = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)]
    elif name == "conv":
        layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(192, 10)]
    elif name == "residual":
        block = Residual(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1))
        layers = [nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), block, nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(192, 10)]
    else:
        raise ValueError(f"build: name must be fc, conv or residual, got {name!r}")
    return nn.Sequential(*layers)


NETWORKS = ("fc", "conv", "residual")


def train(model: nn.Sequential, images: Images, epochs: int, radius: float = 0.1, batch: int = 64) -> None:
    """Adam on images that one step of the gradient's sign, from a random start, has made harder (Wong et al. 2020)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs))
    for _ in range(epochs):
        for rows in torch.randperm(len(images.labels)).split(batch):
            x, label = images.pixels[rows], images.labels[rows]
            start = (x + radius * (2 * torch.rand_like(x) - 1)).clamp(0, 1).requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), label), start)
            harder = (start.detach() + radius * gradient.sign()).clamp(x - radius, x + radius).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(harder), label).backward()
            optimizer.step()
        schedule.step()


def accuracy(model: nn.Module, images: Images) -> float:
    """The share of images that the network recognises."""
    with torch.no_grad():
        return float((model(images.pixels).argmax(1) == images.labels).float().mean())


def ball(image: Tensor, radius: Decimal) -> list[Interval]:
    """The pixels within ``radius`` of an image, clipped to [0, 1]: exact, because 1/16 is a short decimal."""
    values = [Decimal(v) for v in image.flatten().tolist()]
    return [(max(v - radius, Decimal(0)), min(v + radius, Decimal(1))) for v in values]


def one_pixel_of_a_row(image: Tensor, row: int) -> list[list[Interval]]:
    """The images in which one pixel of a row may have any value: one box for each pixel of that row."""
    columns = image.shape[-1]
    boxes = [ball(image, Decimal(0)) for _ in range(columns)]
    for column, box in enumerate(boxes):
        box[row * columns + column] = (Decimal(0), Decimal(1))
    return boxes


def verdict(network: Path, text: str, scratch: Path) -> Verdict:
    """What ``zonocuda verify`` says to a property."""
    scratch.write_text(text)
    return zonocuda.verify(str(network), zonocuda.load_vnnlib(scratch)).verdict


def robustness(images: Images, i: int, radius: Decimal) -> str:
    """The specification that the network recognises every image within ``radius`` of image i."""
    label = int(images.labels[i])
    title = f"image {images.numbers[i]} of scikit-learn's digits, a {label}: every pixel within {radius}, in [0, 1]"
    return vnnlib(title, [ball(images.pixels[i], radius)], label)


def one_pixel(images: Images, i: int, row: int = 4) -> str:
    """The specification that the network recognises image i whatever value one pixel of a row has."""
    label = int(images.labels[i])
    title = f"image {images.numbers[i]} of scikit-learn's digits, a {label}: any one pixel of row {row} is overwritten"
    return vnnlib(title, one_pixel_of_a_row(images.pixels[i], row), label)


def radii(network: Path, text: Callable[[Decimal], str], scratch: Path) -> list[Decimal]:
    """A radius with each verdict of WANTED, far from those where the verdict changes; empty if there is none.

    ``text`` makes the specification of a radius. Where the verdict changes along RADII is found by bisection.
    """

    @cache
    def decide(radius: Decimal) -> Verdict:
        return verdict(network, text(radius), scratch)

    first_unproven = bisect_left(RADII, True, key=lambda radius: decide(radius) is not Verdict.VERIFIED)
    first_falsified = bisect_left(RADII, True, key=lambda radius: decide(radius) is Verdict.FALSIFIED)
    spans = list(pairwise((0, first_unproven, first_falsified, len(RADII))))
    if any(end - begin < 2 for begin, end in spans):
        return []
    chosen = [RADII[(begin + end) // 2] for begin, end in spans]
    return chosen if tuple(map(decide, chosen)) == WANTED else []


def choose(network: Path, images: Images, scratch: Path, count: int = 2) -> dict[str, str]:
    """Specifications by name: for each of ``count`` images a verified, an unknown and a falsified radius."""
    chosen: dict[str, str] = {}
    for i, number in enumerate(images.numbers.tolist()):
        text = partial(robustness, images, i)
        chosen |= {f"{network.stem}_{number}_{radius}": text(radius) for radius in radii(network, text, scratch)}
        if len(chosen) == count * len(WANTED):
            return chosen
    raise RuntimeError(f"{network.stem}: too few images have a verified, an unknown and a falsified radius")


def choose_one_pixel(network: Path, images: Images, scratch: Path) -> dict[str, str]:
    """The first specification with several input boxes that is verified."""
    for i, number in enumerate(images.numbers.tolist()):
        text = one_pixel(images, i)
        if verdict(network, text, scratch) is Verdict.VERIFIED:
            return {f"{network.stem}_{number}_pixel": text}
    raise RuntimeError(f"{network.stem}: no image is proven safe against changes of one pixel")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, exports, and chooses the specifications."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder for networks/ and specs/")
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)
    networks, specs = options.out / "networks", options.out / "specs"
    networks.mkdir(parents=True, exist_ok=True)
    specs.mkdir(exist_ok=True)
    for old in specs.glob("*.vnnlib"):
        old.unlink()
    torch.set_num_threads(1)  # sums in one order, and fastest for networks of this size
    training, testing = load_images()
    for name in NETWORKS:
        torch.manual_seed(0)
        begin = time.monotonic()
        model = build(name)
        train(model, training, options.epochs)
        path = networks / f"{name}.onnx"
        onnx.save(onnx_model(model, tuple(testing.pixels.shape[1:])), path)
        print(f"{name}: accuracy {accuracy(model, testing):.3f}, {time.monotonic() - begin:.1f} s of training")
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder) / "candidate.vnnlib"
            chosen = choose(path, testing, scratch)
            if name == "conv":
                chosen |= choose_one_pixel(path, testing, scratch)
        for spec, text in chosen.items():
            (specs / f"{spec}.vnnlib").write_text(text)
        print(f"{name}: {', '.join(chosen)}, {time.monotonic() - begin:.1f} s of choosing")


if __name__ == "__main__":
    main()
