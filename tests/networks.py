"""The real networks that lie as bare weights in ZONOCUDA_TEST_DATA, rebuilt as modules, and test images.

Every network takes pixels in [0, 1], ``[B, C, H, W]``, normalises them itself where it was trained so, and returns
``[B, 10]`` logits. All are in evaluation mode, in float32.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tests.data import data_root

RTAI2019 = tuple(f"{kind}{number}" for kind in ("fc", "conv") for number in range(1, 6))
WONG_KOLTER = ("mnist", "mnist_small_0_3", "cifar_small_8px")
ERAN = (
    "mnist_2_50_flattened",
    "mnist_5_100_flattened",
    "mnist_6_200_nat",
    "mnist_8_100_flattened",
    "mnist_convSmallRELU__Point",
    "cifar10_convSmallRELU__PGDK",
)

_MNIST = ((0.1307,), (0.3081,))
_CIFAR_ERAN = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR_WONG_KOLTER = ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))


class Normalize(nn.Module):
    """(x - mean) / std, per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def input_shape(name: str) -> tuple[int, int, int]:
    """Shape of one input of a network of this module, by its name."""
    return (3, 32, 32) if name.startswith("cifar") else (1, 28, 28)


def rtai2019(name: str) -> nn.Sequential:
    """One of ``RTAI2019``: the networks of a course of 2019, with normalisation in front, as arch.json lists them."""
    root = data_root() / "rtai2019"
    architecture = json.loads((root / "arch.json").read_text())[name]
    weights = torch.load(root / architecture["file"], weights_only=True, map_location="cpu")
    layers: list[nn.Module] = []
    for layer in architecture["layers"]:
        match layer["op"]:
            case "normalize":
                layers.append(Normalize(layer["mean"], layer["std"]))
            case "conv":
                layers.append(_conv(weights, layer["key"], layer["stride"], layer["pad"]))
            case "linear":
                layers.append(_linear(weights, layer["key"]))
            case "flatten":
                layers.append(nn.Flatten())
            case "relu":
                layers.append(nn.ReLU())
            case other:
                raise ValueError(f"arch.json: unknown layer {other!r}")
    return nn.Sequential(*layers).eval()


def wong_kolter(name: str) -> nn.Sequential:
    """One of ``WONG_KOLTER``: certified training; the first network where a file holds a cascade."""
    folder = "models" if name == "mnist" else "models_scaled"
    loaded = torch.load(data_root() / "wong_kolter" / folder / f"{name}.pth", weights_only=True, map_location="cpu")
    weights = loaded["state_dict"][0] if "state_dict" in loaded else loaded
    front = [Normalize(*_CIFAR_WONG_KOLTER)] if name.startswith("cifar") else []
    return _two_convolutions(front, weights, padding=1)


def eran(name: str) -> nn.Sequential:
    """One of ``ERAN``: fully connected (no normalisation) or convSmall (normalised)."""
    folder = data_root() / "eran" / "nets"
    (file,) = folder.glob(f"{name}.*")
    loaded = torch.load(file, weights_only=True, map_location="cpu")
    weights = loaded["state_dict"][0] if "state_dict" in loaded else loaded
    if "convSmall" in name:
        front = Normalize(*(_CIFAR_ERAN if name.startswith("cifar") else _MNIST))
        return _two_convolutions([front], weights, padding=0)
    layers: list[nn.Module] = [nn.Flatten()]
    for key in [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]:
        layers += [_linear(weights, key), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def fp_realadv() -> nn.Sequential:
    """The MNIST network whose floating-point adversarial images are known; TensorFlow's SAME padding, (1, 2)."""
    arrays = np.load(data_root() / "fp_realadv_mnist" / "mnist_net.npz")
    weights = {}
    for key in ("conv1", "conv2", "fc3", "out"):
        weights[f"{key}.weight"], weights[f"{key}.bias"] = (torch.from_numpy(arrays[f"{key}_{k}"]) for k in "wb")
    return nn.Sequential(
        nn.ZeroPad2d((1, 2, 1, 2)),
        _conv(weights, "conv1", 2, 0),
        nn.ReLU(),
        nn.ZeroPad2d((1, 2, 1, 2)),
        _conv(weights, "conv2", 2, 0),
        nn.ReLU(),
        nn.Flatten(),
        _linear(weights, "fc3"),
        nn.ReLU(),
        _linear(weights, "out"),
    ).eval()


def images(dataset: str) -> tuple[Tensor, Tensor]:
    """The first 100 test images of ``mnist`` or ``cifar10``: pixels in [0, 1] ``[100, C, H, W]``, and labels."""
    rows = np.loadtxt(data_root() / "images" / f"{dataset}_test_first100.csv", delimiter=",", dtype=np.int64)
    pixels = torch.from_numpy(rows[:, 1:]).float() / 255
    if dataset == "cifar10":
        pixels = pixels.reshape(-1, 32, 32, 3).permute(0, 3, 1, 2).contiguous()
    else:
        pixels = pixels.reshape(-1, 1, 28, 28)
    return pixels, torch.from_numpy(rows[:, 0])


def _conv(weights: Mapping[str, Tensor], key: str, stride: int, padding: int) -> nn.Conv2d:
    out, channels, *kernel = weights[f"{key}.weight"].shape
    layer = nn.Conv2d(channels, out, tuple(kernel), stride, padding)
    layer.load_state_dict(OrderedDict(weight=weights[f"{key}.weight"], bias=weights[f"{key}.bias"]))
    return layer


def _linear(weights: Mapping[str, Tensor], key: str) -> nn.Linear:
    out, inputs = weights[f"{key}.weight"].shape
    layer = nn.Linear(inputs, out)
    layer.load_state_dict(OrderedDict(weight=weights[f"{key}.weight"], bias=weights[f"{key}.bias"]))
    return layer


def _two_convolutions(front: list[Normalize], weights: Mapping[str, Tensor], padding: int) -> nn.Sequential:
    """Twice a convolution of stride 2, then two linear layers, with ReLUs between."""
    return nn.Sequential(
        *front,
        _conv(weights, "0", 2, padding),
        nn.ReLU(),
        _conv(weights, "2", 2, padding),
        nn.ReLU(),
        nn.Flatten(),
        _linear(weights, "5"),
        nn.ReLU(),
        _linear(weights, "7"),
    ).eval()
