"""Findings of the literature on derivatives at ties, repeated small: how often, and at which precision.

    python -m benchmarks.nonsmooth_literature JSON [relu] [pool] [training] [slopes]    (all parts by default)

relu      share of initialisations for which ReLU'(0) = 0 and 1 give different gradients on some of 60,000 samples, by
          depth (Bertoin, Bolte, Gerchinovitz & Pauwels 2021); minutes on one core
pool      share of minibatches on which two conventions for max pooling differ, at 16, 32 and 64 bits, and their classes
          (Boustany 2024)
training  accuracy after training with different conventions
slopes    the zonotope objective: slopes on the kink, and what the rules there change

Every part writes its findings, the machine and the date into the file JSON, where the other parts stay as they are;
``python -m benchmarks.render_nonsmooth`` makes the tables of docs/nonsmooth.md of it. Data: the 8x8 digits of
scikit-learn; for `relu` blown up to 28x28, shifted and mixed, in 256 grey levels.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import device_name, machine_info
from zonocuda import nonsmooth
from zonocuda.domains import Zonotope

SCHEMA = "zonocuda.nonsmooth_literature/1"
Finding = dict[str, Any]
SAMPLES, INITIALISATIONS = 60_000, {torch.float32: 60, torch.float64: 15}
FEW_SAMPLES = 500  # at 16 bits


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


def relu() -> list[Finding]:
    """Bertoin et al. 2021: 5, 26 and 46 % for 1, 2 and 3 layers in float32, none in float64."""
    torch.manual_seed(0)
    x = large_images(SAMPLES)
    found = []
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
            found.append(_initialisations(dtype, depth, count, len(x), hits, zeros, time.perf_counter() - start))
    for dtype in (torch.bfloat16, torch.float16):
        start, hits, count = time.perf_counter(), 0, 10
        few = x[:FEW_SAMPLES].to(dtype)
        for seed in range(count):
            torch.manual_seed(seed)
            hits += relu_gradients_differ(network(1, dtype), few)
        found.append(_initialisations(dtype, 1, count, FEW_SAMPLES, hits, None, time.perf_counter() - start))
    return found


def _initialisations(
    dtype: torch.dtype, depth: int, count: int, samples: int, hits: int, zeros: int | None, seconds: float
) -> Finding:
    finding: Finding = {"dtype": _name(dtype), "hidden layers": depth, "initialisations": count, "samples": samples}
    finding |= {"hit": hits, "samples with a zero": zeros, "seconds": round(seconds)}
    print(finding, file=sys.stderr, flush=True)
    return finding


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def pooling_network(norm: bool = False) -> nn.Sequential:
    """Two convolutions with ReLU and max pooling, for 8x8 images."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        middle: list[nn.Module] = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *middle, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(128, 10))


# Of the notebooks published with the paper, for the sum over the parameters of the largest change of an entry.
THRESHOLDS = {torch.float16: 1e-3, torch.bfloat16: 1e-3, torch.float32: 1e-7, torch.float64: 1e-15}


def above_threshold(model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> int:
    """The minibatches of 64 on which the conventions "first" and "even" differ by more than the paper's threshold."""
    count = 0
    for x, y in zip(images.to(dtype).split(64), labels.split(64), strict=True):
        grads = []
        for ties in ("first", "even"):
            chosen = nonsmooth.replace(model, max_pool=ties).to(dtype)
            grads.append(torch.autograd.grad(F.cross_entropy(chosen(x), y), list(chosen.parameters())))
        change = sum((a - b).abs().max().item() for a, b in zip(*grads, strict=True))
        count += change > THRESHOLDS[dtype]
    return count


def pool() -> list[Finding]:
    """Boustany 2024: different on all minibatches at 16 bits, about half at 32, none at 64 (above his thresholds)."""
    images, labels = digits()
    dtypes = tuple(THRESHOLDS)
    # the same images with noise below a grey level: no two pixels are equal any more
    torch.manual_seed(1)
    noisy = images + 0.01 * torch.rand(images.shape)
    found = []
    for what, data in (("digits", images), ("digits with noise", noisy)):
        torch.manual_seed(0)
        model = pooling_network()
        report = nonsmooth.audit(
            model,
            (data, labels),
            F.cross_entropy,
            b=nonsmooth.Convention(max_pool="even"),
            dtypes=dtypes,
            batch_size=64,
            certificates=False,
            progress=False,
        )
        for of_dtype in report.dtypes:
            document = report.to_json()
            total = next(d["total"] for d in document["dtypes"] if d["dtype"] == of_dtype.dtype)
            total.pop("by_channel")
            dtype = getattr(torch, of_dtype.dtype)
            over = above_threshold(copy.deepcopy(model), data, labels, dtype)
            limit = {"threshold": THRESHOLDS[dtype], "above the threshold": over}
            found.append({"data": what, "dtype": of_dtype.dtype, "batch": 64, **limit, **total})
    return found


def training() -> list[Finding]:
    """Does the choice change what is learned? Test accuracy after 10 epochs of SGD on 1200 digits, for 3 seeds."""
    images, labels = digits()
    train, test = slice(0, 1200), slice(1200, None)
    choices: dict[str, dict[str, float | str]] = {
        "torch's own": {"relu": 0.0, "max_pool": "first"},
        "ReLU'(0) = 1": {"relu": 1.0, "max_pool": "first"},
        "pooling `even`": {"relu": 0.0, "max_pool": "even"},
        "pooling `beta = -10`": {"relu": 0.0, "max_pool": -10.0},
        "pooling `beta = 100`": {"relu": 0.0, "max_pool": 100.0},
    }
    found = []
    for name, choice in choices.items():
        for dtype in (torch.float32, torch.bfloat16):
            accuracies = []
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
                accuracies.append(hits.item())
            found.append({"choice": name, "dtype": _name(dtype), "accuracies": accuracies})
    return found


def slopes() -> list[Finding]:
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
    return [nonsmooth.audit_slopes(objective, starts).to_json()]


PARTS: dict[str, Callable[[], list[Finding]]] = {"relu": relu, "pool": pool, "training": training, "slopes": slopes}


def main() -> None:
    """Runs the parts that were asked for."""
    if len(sys.argv) < 2 or not sys.argv[1].endswith(".json"):
        raise SystemExit(__doc__)
    file, wanted = Path(sys.argv[1]), sys.argv[2:] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise SystemExit(f"unknown parts: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for name in wanted:
        found = PARTS[name]()
        now = datetime.now(UTC).isoformat()
        document = json.loads(file.read_text()) if file.is_file() else {"schema": SCHEMA, "parts": {}}
        document["parts"][name] = {
            "processor": device_name(torch.device("cpu")),
            "torch": torch.__version__,
            "date": now[:10],
            "findings": found,
        }
        document |= {"datetime": now, "machine_info": machine_info()}
        file.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        print(f"{name}: {len(found)} findings in {file}")


if __name__ == "__main__":
    main()
