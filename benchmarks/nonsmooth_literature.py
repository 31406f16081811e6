"""Findings of the literature on derivatives at ties, repeated small: how often, and at which precision.

    python benchmarks/nonsmooth_literature.py [relu] [pool] [training] [slopes]    (all by default; minutes on one core)

relu      share of initialisations for which ReLU'(0) = 0 and 1 give different gradients on some of 60,000 samples, by
          depth (Bertoin, Bolte, Gerchinovitz & Pauwels 2021)
pool      share of minibatches on which two conventions for max pooling differ, at 16, 32 and 64 bits, and their classes
          (Boustany 2024)
training  accuracy after training with different conventions
slopes    the zonotope objective: slopes on the kink, and what the rules there change

Data: the 8x8 digits of scikit-learn; for `relu` blown up to 28x28, shifted and mixed, in 256 grey levels.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import device_name
from zonocuda import nonsmooth
from zonocuda.domains import Zonotope

SAMPLES, INITIALISATIONS = 60_000, {torch.float32: 60, torch.float64: 15}


def digits() -> tuple[Tensor, Tensor]:
    """Images ``[1797, 1, 8, 8]`` of 17 grey levels in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images / 16).float().unsqueeze(1), torch.tensor(data.target)


def large_images(count: int) -> Tensor:
    """``[count, 784]``: mixtures of two digits, blown up, shifted by up to 3 pixels, rounded to k / 255."""
    images, _ = digits()
    images = F.pad(F.interpolate(images, size=(20, 20), mode="bilinear"), (4, 4, 4, 4))
    first, second = (images[torch.randint(len(images), (count,))] for _ in range(2))
    share = torch.rand(count, 1, 1, 1)
    mixed = share * first + (1 - share) * second
    for axis in (2, 3):
        shift = torch.randint(-3, 4, (count, 1, 1, 1))
        at = (torch.arange(28).reshape([1, 1, 28, 1] if axis == 2 else [1, 1, 1, 28]) + shift) % 28
        mixed = mixed.gather(axis, at.expand(count, 1, 28, 28))
    return (mixed.flatten(1) * 255).round() / 255


def network(depth: int, dtype: torch.dtype) -> nn.Sequential:
    """``depth`` hidden layers of 256, torch's default initialisation."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(784 if i == 0 else 256, 256), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, 10)).to(dtype)


def exact_zeros(model: nn.Sequential, x: Tensor) -> Tensor:
    """The samples for which some argument of a ReLU is exactly 0."""
    hit = torch.zeros(len(x), dtype=torch.bool)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.ReLU):
                hit |= (x == 0).any(1)
            x = layer(x)
    return hit


def relu_gradients_differ(model: nn.Sequential, x: Tensor) -> bool:
    """Whether ReLU'(0) = 0 and 1 give different gradients on these samples."""
    labels = torch.zeros(len(x), dtype=torch.long)
    grads = []
    for alpha in (0.0, 1.0):
        chosen = nonsmooth.replace(model, relu=alpha)
        loss = F.cross_entropy(chosen(x), labels)
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
    return not all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def relu() -> None:
    """Bertoin et al. 2021: 5, 26 and 46 % for 1, 2 and 3 layers in float32, none in float64."""
    torch.manual_seed(0)
    x = large_images(SAMPLES)
    print(f"ReLU'(0) = 0 against 1 on {SAMPLES} samples: share of initialisations with a different gradient")
    for dtype, count in INITIALISATIONS.items():
        for depth in (1, 2, 3):
            start, hits, zeros = time.perf_counter(), 0, 0
            for seed in range(count):
                torch.manual_seed(seed)
                model = network(depth, dtype)
                hit = False
                for piece in x.to(dtype).split(10_000):  # whole pieces: in another batch a product may round otherwise
                    count_here = int(exact_zeros(model, piece).sum())
                    zeros += count_here
                    hit = hit or (count_here > 0 and relu_gradients_differ(model, piece))
                hits += hit
            seconds = time.perf_counter() - start
            share = f"{hits}/{count} = {hits / count:.0%}"
            print(f"  {dtype}, {depth} layers: {share}, {zeros} samples with a zero, {seconds:.0f} s", flush=True)
    for dtype in (torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        hits = 0
        for seed in range(10):
            torch.manual_seed(seed)
            model = network(1, dtype)
            few = x[:500].to(dtype)
            hits += relu_gradients_differ(model, few)
        print(f"  {dtype}, 1 layer, 500 samples: {hits}/10")


def pooling_network(norm: bool = False) -> nn.Sequential:
    """Two convolutions with ReLU and max pooling, for 8x8 images."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        middle: list[nn.Module] = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *middle, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(128, 10))


def pool() -> None:
    """Boustany 2024: different on all minibatches at 16 bits, about half at 32, none at 64 (above his thresholds)."""
    images, labels = digits()
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    even = nonsmooth.Convention(max_pool="even")
    # the same images with noise below a grey level: no two pixels are equal any more
    torch.manual_seed(1)
    noisy = images + 0.01 * torch.rand(images.shape)
    for what, data in (("digits", images), ("digits with noise", noisy)):
        torch.manual_seed(0)
        model = pooling_network()
        report = nonsmooth.audit(
            model,
            (data, labels),
            F.cross_entropy,
            b=even,
            dtypes=dtypes,
            batch_size=64,
            certificates=False,
            progress=False,
        )
        print(f"max pooling, 'first' against 'even', {what}, {report['float32'].total.minibatches} minibatches of 64")
        for d in report.dtypes:
            t = d.total
            print(
                f"  {d.dtype:9} differs on {t.differing}/{t.minibatches}, at most {t.relative:.1e} of the gradient: "
                f"{t.verdict} (persistence {t.persistence}); ties {t.ties} ({t.tied_positive} positive), "
                f"structural {t.structural}, by rounding {t.induced}",
                flush=True,
            )


def training() -> None:
    """Does the choice change what is learned?"""
    images, labels = digits()
    train, test = slice(0, 1200), slice(1200, None)
    print("test accuracy after 10 epochs of SGD on 1200 digits, 3 seeds: does the choice matter?")
    choices: dict[str, dict[str, float | str]] = {
        "torch's own": {"relu": 0.0, "max_pool": "first"},
        "ReLU'(0) = 1": {"relu": 1.0, "max_pool": "first"},
        "pooling even": {"relu": 0.0, "max_pool": "even"},
        "pooling beta -10": {"relu": 0.0, "max_pool": -10.0},
        "pooling beta 100": {"relu": 0.0, "max_pool": 100.0},
    }
    for dtype in (torch.float32, torch.bfloat16):
        for name, choice in choices.items():
            found = []
            for seed in range(3):
                torch.manual_seed(seed)
                model = nonsmooth.replace(pooling_network(), **choice).to(dtype)  # type: ignore[arg-type]
                optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
                for _ in range(10):
                    for x, y in zip(images[train].to(dtype).split(50), labels[train].split(50), strict=True):
                        optimiser.zero_grad()
                        F.cross_entropy(model(x), y).backward()
                        optimiser.step()
                with torch.no_grad():
                    hits = (model(images[test].to(dtype)).argmax(1) == labels[test]).double().mean()
                found.append(hits.item())
            print(f"  {dtype}, {name:17}: {', '.join(f'{f:.3f}' for f in found)}", flush=True)


def slopes() -> None:
    """The zonotope objective at its usual start: every free slope is on its kink."""
    torch.manual_seed(0)
    images, _ = digits()
    weights = [torch.randn(50, 64) / 8, torch.randn(50, 50) / 7, torch.randn(10, 50) / 7]

    def objective(given: list[Tensor]) -> Tensor:
        z = Zonotope.from_ball(images[0].flatten().unsqueeze(0).to(given[0].device), 0.05)
        for w, slope in zip(weights, [*given, None], strict=True):
            z = z.linear(w.to(given[0].device))
            if slope is not None:
                z = z.relu(slope)
        lower, upper = z.bounds()
        return (upper - lower).sum()

    starts: list[Tensor] = []
    with torch.no_grad():
        z = Zonotope.from_ball(images[0].flatten().unsqueeze(0), 0.05)
        for w in weights[:-1]:
            z = z.linear(w)
            lower, upper = z.bounds()
            crossing = (lower < 0) & (upper > 0)
            starts.append(torch.where(crossing, upper / (upper - lower), 0.5))
            z = z.relu(starts[-1])
    audit = nonsmooth.audit_slopes(objective, starts)  # type: ignore[arg-type]
    for r in audit.devices:
        print(f"zonotope objective on {r.device}: {r.on_kink} of {r.slopes} slopes on the kink ({r.exactly} exactly)")
        for change in r.changes:
            print(f"  {change.rule:9} moves the gradient by {change.relative:.3f} of the envelope's")
    print(f"  between devices: {audit.between_devices if audit.between_devices is not None else audit.reason}")


def main() -> None:
    """Runs the parts that were asked for."""
    parts = {"relu": relu, "pool": pool, "training": training, "slopes": slopes}
    wanted = sys.argv[1:] or list(parts)
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        raise SystemExit(f"unknown parts: {', '.join(unknown)}; there are {', '.join(parts)}")
    print(f"{device_name(torch.device('cpu'))}, torch {torch.__version__}")
    for name in wanted:
        parts[name]()


if __name__ == "__main__":
    main()
