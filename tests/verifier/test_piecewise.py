"""Networks with maxima, limits and leaky ReLUs: verdicts and their proofs, tightness, and what pooling costs.

What holds of tightness. A maximum of two, b + relu(a - b), has every lower line between a and b, by its slope; so every
input of a window is one of a tree's lower lines. Above it has the chord of a - b, which at the center of a box of a and
b is (u_a + u_b) / 2, no higher than the constant max(u_a, u_b) of the usual relaxation, but may be higher elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.importers.onnx_models import Case, floats, op, save
from zonocuda import Spec, Zonotope, optimize_bounds, verify
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.transform import transform
from zonocuda.cli.main import main
from zonocuda.graph import Graph, Node, Relu, interpret
from zonocuda.importers import from_module
from zonocuda.importers.onnx.file import parse_onnx
from zonocuda.importers.onnx.load import convert

NETWORK = Case(
    [
        op("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        op("Relu", "c", "r"),
        op("MaxPool", "r", "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        op("Conv", "p v", "d"),
        op("LeakyRelu", "d", "l", alpha=0.1),
        op("MaxPool", "l", "m", kernel_shape=[2, 2]),
        op("Flatten", "m", "f"),
        op("Gemm", "f g", "h"),
        op("Clip", "h lo hi"),
    ],
    [1, 1, 6, 6],
    (2,),
    {
        "w": floats(3, 1, 3, 3) / 3,
        "b": floats(3),
        "v": floats(2, 3, 2, 2) / 3,
        "g": floats(2, 2),
        "lo": np.float32(-5).reshape(()),
        "hi": np.float32(0.3).reshape(()),
    },
)


def write_property(path: Path, least: float) -> None:
    """The first output is at least so much somewhere in the box."""
    inputs = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0.45))(assert (<= X_{i} 0.55))" for i in range(36))
    path.write_text(f"{inputs}(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (>= Y_0 {least}))")


@pytest.mark.parametrize("semantics", ["real", "float32", "float64"])
def test_a_limit_bounds_the_output_in_every_semantics(
    semantics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is 0.3 as a float32 number; beyond it nothing can be, and up to it the network may reach."""
    net, prop = save(NETWORK.model(), tmp_path), tmp_path / "p.vnnlib"
    limit = float(np.float32(0.3))
    write_property(prop, float(np.nextafter(limit, 1.0)) + 1e-6)
    assert main(["verify", str(net), str(prop), "--semantics", semantics]) == 0
    assert capsys.readouterr().out.startswith("verified")


def test_a_proof_is_confirmed_and_a_counterexample_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, prop, out = save(NETWORK.model(), tmp_path), tmp_path / "p.vnnlib", tmp_path / "c.zip"
    graph = from_case()
    at_center = float(graph(torch.full((1, 1, 6, 6), 0.5))[0, 0])
    for least, verdict in ((at_center + 0.2, "verified"), (at_center, "falsified")):
        write_property(prop, least)
        assert main(["verify", str(net), str(prop), "--certificate", str(out), "--split", "none"]) == 0
        assert capsys.readouterr().out.startswith(verdict)
        assert main(["check", str(out), str(net), str(prop)]) == 0
        assert capsys.readouterr().out.startswith("confirmed")


def from_case() -> Graph:
    """The network as a graph."""
    return convert(parse_onnx(NETWORK.model().SerializeToString(), "net"))


def test_a_module_with_everything_is_verified_and_falsified() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4), nn.PReLU(4),
        nn.Linear(4, 3), nn.Hardsigmoid(),
    ).eval()  # fmt: skip
    x = torch.rand(1, 6, 6)
    label = int(model(x.unsqueeze(0)).argmax())
    small, large = (Spec.robust(x, eps=eps, label=label, outputs=3) for eps in (1e-3, 3.0))
    assert verify(model, small, input_shape=(1, 6, 6)).verdict == "verified"
    assert verify(model, large, input_shape=(1, 6, 6)).verdict == "falsified"


LARGEST = torch.finfo(torch.float32).max


class Spike(nn.Module):
    """A value that exceeds the largest float32 number near x = 0.3137 alone, limited to that number, against itself."""

    def forward(self, x: Tensor) -> Tensor:
        u = torch.relu(1 - 1e4 * torch.abs(x - 0.3137)) * (5e38 / 1024)
        return torch.clamp(u * 1024, max=LARGEST) / 1024 - 0.9 * u


@pytest.mark.parametrize("effort", ["fast", "standard"])
def test_the_largest_number_is_a_limit_of_what_exceeds_it(effort: str) -> None:
    """Over the reals, too; without the limit the output would nowhere be negative."""
    at = Spike()(torch.tensor([[0.3137]], dtype=torch.float64))
    assert at < -1e34
    problem = Spec.linear([0.0], [1.0], [[-1.0]], [1e34])
    result = verify(Spike(), problem, input_shape=(1,), effort=effort, split="none")
    assert result.verdict == "falsified" or "may exceed the range of torch.float32" in result.reason


def test_the_largest_numbers_are_no_limits_of_what_lies_within(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Clip of the older standards has them where nothing is given."""
    case = Case([op("Clip", "x", "c", min=0.0), op("MatMul", "c w")], [1, 2], (1,), {"w": floats(2, 1)})
    made = case.model()
    made.opset_import[0].version = 10
    net, prop, out = save(made, tmp_path), tmp_path / "p.vnnlib", tmp_path / "c.zip"
    inputs = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(2))
    highest = float(np.maximum(case.weights["w"], 0).sum())
    prop.write_text(f"{inputs}(declare-const Y_0 Real)(assert (>= Y_0 {highest + 1e-3}))")
    assert main(["verify", str(net), str(prop), "--certificate", str(out)]) == 0
    assert capsys.readouterr().out.startswith("verified")
    assert main(["check", str(out), str(net), str(prop)]) == 0
    assert capsys.readouterr().out.startswith("confirmed")


# ---- tightness -------------------------------------------------------------------------------------------------------


def usual(weight: Tensor, bias: Tensor, box: tuple[Tensor, Tensor], objective: Tensor) -> Tensor:
    """Lower bounds of rows over 2x2 maxima of a 4x4 map, which a linear layer makes, by the usual relaxation: below by
    the position with the largest lower bound; above by the largest upper bound, or by a position that dominates."""
    center, radius = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    middle, reach = weight @ center + bias, weight.abs() @ radius
    low, high = middle - reach, middle + reach
    places = torch.arange(16).reshape(4, 4)
    windows = [places[i : i + 2, j : j + 2].flatten().tolist() for i in (0, 2) for j in (0, 2)]
    found = []
    for row in objective:
        v, constant = torch.zeros(16, dtype=torch.float64), row.new_zeros(())
        for factor, window in zip(row, windows, strict=True):
            best = max(window, key=lambda i: float(low[i]))
            if factor >= 0 or all(low[best] >= high[i] for i in window if i != best):
                v[best] += factor
            else:
                constant = constant + factor * high[window].max()
        found.append(v @ middle + constant - (v @ weight).abs() @ radius)
    return torch.stack(found)


@torch.no_grad()
def test_pooling_is_tighter_than_the_usual_relaxation_on_most_random_rows() -> None:
    """Measured on 128 rows: the mean distance from the usual bound is a gain, few rows lose, none of them much."""
    gains = []
    for seed, (inputs, eps) in enumerate([(4, 0.3), (16, 0.1), (16, 0.5), (64, 0.05)] * 2):
        torch.manual_seed(seed)
        layer, head = nn.Linear(inputs, 16).double(), nn.Linear(4, 16, bias=False).double()
        model = nn.Sequential(layer, nn.Unflatten(1, (1, 4, 4)), nn.MaxPool2d(2), nn.Flatten(), head)
        x = torch.randn(1, inputs, dtype=torch.float64)
        ours = optimize_bounds(model, Zonotope.from_ball(x, eps), torch.eye(16)).lower[0]
        theirs = usual(layer.weight, layer.bias, (x[0] - eps, x[0] + eps), head.weight)
        points = x + eps * (2 * torch.rand(4096, inputs, dtype=torch.float64) - 1)
        least = model(points).amin(0)
        assert bool((ours <= least).all())
        gains.append((ours - theirs) / (least - theirs))
    gain = torch.cat(gains)
    assert float(gain.mean()) > 0.2
    assert float((gain < -1e-6).double().mean()) < 0.15


@torch.no_grad()
@pytest.mark.parametrize("kernel", [(1, 2), (2, 1), (2, 2)])
def test_of_independent_inputs_the_lower_bound_is_the_usual_one(kernel: tuple[int, int]) -> None:
    """Within what the ascent leaves: 1 window in 50."""
    graph = from_module(nn.MaxPool2d(kernel), (1, *kernel)).to(torch.float64)
    torch.manual_seed(0)
    center, radius = torch.randn(200, 1, *kernel).double(), torch.rand(200, 1, *kernel).double()
    box = Zonotope.from_box(center - radius, center + radius)
    ours = optimize_bounds(graph, box, torch.ones(1, 1)).lower[:, 0]
    theirs = (center - radius).flatten(1).amax(1)
    assert float((ours < theirs - 1e-9).double().mean()) <= 0.02


@torch.no_grad()
def test_above_a_pair_the_chord_is_no_higher_than_the_constant_on_average() -> None:
    """At the center of the box, where a plane takes its mean."""
    graph = from_module(nn.MaxPool2d((1, 2)), (1, 1, 2)).to(torch.float64)
    torch.manual_seed(0)
    center, radius = torch.randn(300, 1, 1, 2).double(), torch.rand(300, 1, 1, 2).double()
    output = sweep(graph, Zonotope.from_box(center - radius, center + radius)).output
    assert output is not None
    fresh = [block for block in output.blocks if block.symbols.origin.endswith("positive")]
    above = output.center + sum(block.dense(output.features).abs().sum(1) for block in fresh)
    highest = (center + radius).flatten(1).amax(1)
    assert bool((above.flatten() <= highest + 1e-12).all())


@torch.no_grad()
def test_a_tree_of_maxima_knows_that_each_is_no_larger_than_its_inputs() -> None:
    """The difference of two maxima is bounded by intervals of the maxima, not by their zonotopes alone."""
    graph = from_module(nn.MaxPool2d(2), (1, 2, 2)).to(torch.float64)
    ends = torch.zeros(1, 1, 2, 2, dtype=torch.float64), torch.ones(1, 1, 2, 2, dtype=torch.float64)
    for direction in ("forward", "dual"):
        inputs = sweep(graph, Zonotope.from_box(*ends), Means(direction)).intermediate  # type: ignore[arg-type]
        low, high = inputs[graph.relus[-1].name]
        assert low.item() >= -1
        assert high.item() <= 1


# ---- cost ------------------------------------------------------------------------------------------------------------


def pooled(pool: nn.Module) -> tuple[int, Zonotope]:
    """Behind the ReLU of a layer of 16 maps of 32x32: the most numbers of generators that are alive at once, and the
    result."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), pool)
    graph = from_module(model, (3, 32, 32)).to(torch.float32)
    alive: dict[str, Zonotope] = {}
    most = 0

    def step(node: Node, given: tuple[Zonotope, ...]) -> Zonotope:
        nonlocal most
        image = given[0].relu() if isinstance(node.op, Relu) else transform(node, given)
        if any(isinstance(before.op, Relu) for before in graph.nodes[1 : graph.position[node.name]]):
            held = {id(t): t.numel() for z in (*alive.values(), image) for block in z.blocks for t in block.tensors}
            most = max(most, sum(held.values()))
        return image

    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = interpret(graph, Zonotope.from_ball(x, 8 / 255), step, values=alive)
    return most, result


@torch.no_grad()
def test_pooling_takes_no_more_memory_than_three_average_poolings_and_keeps_windows() -> None:
    """2x2 windows of 16 maps of 32x32."""
    average, largest = pooled(nn.AvgPool2d(2)), pooled(nn.MaxPool2d(2))
    assert largest[0] <= 3 * average[0]
    assert {block.kind for block in largest[1].blocks} == {"windowed", "diagonal"}
