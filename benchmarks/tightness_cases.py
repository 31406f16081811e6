"""The problems of the tightness benchmark: networks, boxes around images, and the rows whose bounds are measured."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from benchmarks.networks import PROBLEMS
from tests import networks as bare
from tests.data import data_root
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph
from zonocuda.importers import from_module, load_network
from zonocuda.specs import Box, LinearConstraint, Region, Spec


@dataclass(frozen=True, eq=False)
class Case:
    """A network with a box ``[1, *input features]``, and the margins of one class against all others.

    Attributes:
        name: the network and the image.
        graph: in float32.
        box: lower and upper bounds of the input.
        rows: of the specification, y_label - y_j for every other class j.
        label: the class.
    """

    name: str
    graph: Graph
    box: Bounds
    rows: Rows
    label: int

    @staticmethod
    def of(name: str, graph: Graph, box: Bounds, label: int | None = None) -> Case:
        """The margins of ``label``, by default of the class that the network predicts in the middle of the box."""
        chosen = int(graph((box[0] + box[1]) / 2)[0].argmax()) if label is None else label
        (classes,) = graph.output_shape
        disjuncts = tuple(
            (LinearConstraint({chosen: Fraction(1), j: Fraction(-1)}, {}, Fraction(0)),)
            for j in range(classes)
            if j != chosen
        )
        region = Region(Box.from_tensors(*box), disjuncts)
        return Case(name, graph, box, Rows.of(region, box[0].numel(), classes, box[0]), chosen)


@dataclass(frozen=True)
class Column:
    """A bound that another program reached, and its seconds."""

    margin: float
    seconds: float


@dataclass(frozen=True)
class Target:
    """A row of the table that issue and documents state: what auto_LiRPA reaches on a machine like this one."""

    network: str
    image: int
    label: int
    same_slope: Column
    crown: Column
    alpha: Column


def _target(network: str, image: int, label: int, *numbers: float) -> Target:
    a, b, c = (Column(*numbers[i : i + 2]) for i in (0, 2, 4))
    return Target(network, image, label, a, b, c)


TARGETS = (
    _target("mnist-net_256x4", 0, 7, 0.745, 0.014, 0.837, 0.018, 0.862, 2.26),
    _target("mnist-net_256x4", 1, 2, 0.939, 0.019, 0.941, 0.012, 0.941, 0.41),
    _target("mnist-net_256x4", 2, 1, -29.816, 0.029, -1.690, 0.023, -0.479, 0.72),
    _target("cifar_base_kw", 0, 3, -0.030, 0.013, -0.022, 0.013, -0.018, 0.92),
    _target("cifar_base_kw", 1, 8, 0.612, 0.015, 0.637, 0.014, 0.647, 0.58),
    _target("cifar_base_kw", 2, 8, 1.433, 0.019, 1.478, 0.019, 1.488, 0.88),
    _target("cifar_wide_kw", 0, 3, -0.093, 0.027, -0.072, 0.026, -0.065, 1.96),
    _target("cifar_wide_kw", 1, 8, 1.039, 0.019, 1.056, 0.019, 1.065, 1.07),
    _target("cifar_wide_kw", 2, 8, 0.977, 0.026, 1.035, 0.022, 1.048, 1.06),
    _target("resnet_4b", 0, 3, -32.203, 1.104, -2.650, 1.063, -1.800, 113.62),
    _target("resnet_4b", 1, 8, -7.498, 0.880, -0.070, 0.952, 0.319, 70.30),
    _target("resnet_4b", 2, 8, -109.570, 0.836, -18.067, 0.827, -10.763, 122.08),
)

MNIST_RADIUS = 0.02
_ONNX: Mapping[str, str] = MappingProxyType(
    {"cifar_base_kw": "oval21 base", "cifar_wide_kw": "oval21 wide", "resnet_4b": "cifar10_resnet_4b"}
)


@cache
def _graph(network: str) -> Graph:
    if network == "mnist-net_256x4":
        (path,) = (data_root() / "vnncomp" / "mnist_fc" / "onnx").glob("*256x4*")
        return load_network(path).graph.to(torch.float32)
    if network in _ONNX:
        return next(p for p in PROBLEMS if p.name == _ONNX[network]).load().to(torch.float32)
    return from_module(bare.rtai2019(network), bare.input_shape(network)).to(torch.float32)


def table_case(network: str, image: int) -> Case:
    """A network of TARGETS, with the margins of the class that it predicts."""
    graph, name = _graph(network), f"{network}, image {image}"
    if network == "mnist-net_256x4":
        pixels = bare.images("mnist")[0][image].reshape(1, *graph.input_shape)
        return Case.of(name, graph, clipped(pixels, MNIST_RADIUS), int(graph(pixels)[0].argmax()))
    problem = next(p for p in PROBLEMS if p.name == _ONNX[network])
    low, high = problem.box(bare.images("cifar10")[0][image])
    return Case.of(name, graph, (low.unsqueeze(0), high.unsqueeze(0)))


def clipped(pixels: Tensor, radius: float) -> Bounds:
    """The box of the radius around pixels in [0, 1], float32."""
    exact = pixels.double()
    return (exact - radius).clamp(0, 1).float(), (exact + radius).clamp(0, 1).float()


# ---- the course of 2019 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CourseCase:
    """A line of ``rtai2019/cases.csv``."""

    name: str
    network: str
    label: int
    radius: float
    is_verifiable: bool
    has_counterexample: bool
    alpha_margin: float

    def pixels(self) -> Tensor:
        """The image, ``[1, 28, 28]``, float64."""
        _, *values = (data_root() / "rtai2019" / self.name).read_text().split()
        return torch.tensor([float(v) for v in values], dtype=torch.float64).reshape(1, 28, 28)

    def spec(self) -> Spec:
        """Robustness in the ball, intersected with [0, 1]."""
        return Spec.robust(self.pixels(), self.radius, self.label, clip=(0.0, 1.0))

    def graph(self) -> Graph:
        """The network."""
        return _graph(self.network)

    def case(self) -> Case:
        """The margins of the label."""
        short = f"{self.network}, {self.name.split('/')[-1].removesuffix('.txt')}"
        return Case.of(short, self.graph(), clipped(self.pixels().unsqueeze(0), self.radius), self.label)


def course_cases() -> list[CourseCase]:
    """All of them, in the order of the file."""
    with (data_root() / "rtai2019" / "cases.csv").open() as file:
        return [
            CourseCase(
                row["case"],
                row["net"],
                int(row["label"]),
                float(row["eps"]),
                row["gt"] == "verified",
                row["falsified_by_pgd"] == "1",
                float(row["alpha_crown30_margin"]),
            )
            for row in csv.DictReader(file)
        ]


# ---- the first hundred test images -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSet:
    """A network with a radius, for the first hundred images of a data set."""

    name: str
    load: Callable[[], torch.nn.Module]
    data: str
    radius: float


IMAGE_SETS = (
    ImageSet("mnist_5_100", lambda: bare.eran("mnist_5_100_flattened"), "mnist", 0.026),
    ImageSet("mnist_6_200", lambda: bare.eran("mnist_6_200_nat"), "mnist", 0.015),
    ImageSet("mnist_8_100", lambda: bare.eran("mnist_8_100_flattened"), "mnist", 0.026),
    ImageSet("mnist_convSmall", lambda: bare.eran("mnist_convSmallRELU__Point"), "mnist", 0.12),
    ImageSet("cifar_convSmall", lambda: bare.eran("cifar10_convSmallRELU__PGDK"), "cifar10", 2 / 255),
    ImageSet("wk_mnist", lambda: bare.wong_kolter("mnist"), "mnist", 0.1),
    ImageSet("wk_mnist_0.3", lambda: bare.wong_kolter("mnist_small_0_3"), "mnist", 0.3),
    ImageSet("wk_cifar_8px", lambda: bare.wong_kolter("cifar_small_8px"), "cifar10", 8 / 255),
)


@dataclass(frozen=True, eq=False)
class ImageCase:
    """An image that the network classifies correctly, with the margins of CROWN and, where known, alpha-CROWN."""

    index: int
    case: Case
    crown: float
    alpha: float | None


def image_cases(images: ImageSet) -> Iterator[ImageCase]:
    """The correctly classified images of a set, as ``baselines_first100`` lists them."""
    pixels, _ = bare.images(images.data)
    graph = from_module(images.load(), tuple(pixels.shape[1:])).to(torch.float32)
    with (data_root() / "baselines_first100" / f"baseline100_{images.name}.csv").open() as file:
        for row in csv.DictReader(file):
            if row["status"] != "correct":
                continue
            index = int(row["index"])
            box = clipped(pixels[index : index + 1], images.radius)
            alpha = float(row["alpha_crown30_margin"]) if row["alpha_crown30_margin"] else None
            case = Case.of(f"{images.name}, image {index}", graph, box, int(row["label"]))
            yield ImageCase(index, case, float(row["crown_margin"]), alpha)


CURVE = (
    ("mnist-net_256x4", 2),
    ("cifar_base_kw", 0),
    ("cifar_wide_kw", 2),
    ("resnet_4b", 1),
)
CURVE_COURSE = ("prelim/fc4/img1", "public/fc5/img1", "prelim/conv3/img8", "public/conv5/img0")


def curve_cases() -> Iterator[Case]:
    """One case of each network whose margin is drawn against time."""
    for network, image in CURVE:
        yield table_case(network, image)
    for case in course_cases():
        if any(wanted in case.name for wanted in CURVE_COURSE):
            yield case.case()
