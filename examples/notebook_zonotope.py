"""The notebook that this project grew from, redone with zonocuda, and its four mistakes in numbers.

    python examples/notebook_zonotope.py > examples/notebook_zonotope.txt

also draws notebook_zonotope.png beside this file (which needs matplotlib; --no-figure leaves it out).

The notebook writes a neuron of a zonotope, x = c + sum_k eps_k g_k with eps_k in [-1, 1], as a list [c, g_1, ..., g_K].
It carries two neurons through an affine layer, writes a ReLU with a slope lam for one, and asks for dL/dlam. Its code
is kept below, taken apart: each function has one of the mistakes, so that a number shows that mistake alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, tensor

from zonocuda import Zonotope, ops
from zonocuda.domains.plot import polygon

HERE = Path(__file__).parent
Pair = tuple[Tensor, Tensor]


# ---- the notebook's code ---------------------------------------------------------------------------------------------


def notebook_box(x: Tensor) -> Pair:
    """Bounds of one neuron [c, g_1, ..., g_K]; of a matrix with one neuron in each row, x[1:] drops a *neuron*."""
    radius = torch.sum(torch.abs(x[1:]))
    return x[0] - radius, x[0] + radius


def notebook_offset_with_wrong_threshold(lower: Tensor, upper: Tensor, lam: Tensor) -> Tensor:
    """mu, where the case is chosen by u / (u - 1)."""
    return -lower * lam / 2 if lam >= upper / (upper - 1) else upper * (1 - lam) / 2


def notebook_offset_without_half(lower: Tensor, upper: Tensor, lam: Tensor) -> Tensor:
    """mu, where the second case lacks its / 2."""
    return -lower * lam / 2 if lam >= upper / (upper - lower) else upper * (1 - lam)


def notebook_stable_neuron(x: Tensor, lam: Tensor) -> Tensor:
    """What the notebook returns where l >= 0: its input, which does not depend on lam as far as autograd can tell."""
    lower, _ = notebook_box(x)
    assert lower >= 0
    return x


# ---- the same with zonocuda ------------------------------------------------------------------------------------------


def zonotope(rows: Tensor) -> Zonotope:
    """The zonotope of the neurons [c, g_1, ..., g_K], one in each row."""
    return Zonotope.from_generators(rows[:, 0].unsqueeze(0), rows[:, 1:].T.unsqueeze(0))


def neuron(z: Zonotope, i: int) -> Tensor:
    """Neuron i of a zonotope, [c, g_1, ..., g_K]."""
    generators = torch.cat([block.dense(z.features) for block in z.blocks], 1)
    return torch.cat([z.center[0, i : i + 1], generators[0, :, i]])


def bounds_of(x: Tensor) -> Pair:
    """l and u of one neuron [c, g_1, ..., g_K]."""
    lower, upper = zonotope(x.unsqueeze(0)).bounds()
    return lower[0, 0], upper[0, 0]


def relu_of_one_neuron(x: Tensor, lam: Tensor | None) -> Tensor:
    """[c', g_1', ..., g_K', mu] of one neuron [c, g_1, ..., g_K]; the slope is u / (u - l) where lam is None."""
    center, generators, offset = ops.relu(x[0].reshape(1, 1), x[1:].reshape(1, -1, 1), lam)
    return torch.cat([center.flatten(), generators.flatten(), offset.flatten()])


# ---- printing --------------------------------------------------------------------------------------------------------


def show(value: Tensor | float | None) -> str:
    """Numbers, with at most four decimals."""
    if value is None:
        return "none"
    if isinstance(value, Tensor):
        if value.dim():
            return f"[{', '.join(show(v) for v in value)}]"
        value = value.item()
    return f"{round(value, 4) + 0.0:.6g}"


def interval(bounds: Sequence[Tensor]) -> str:
    """Bounds as ``[l, u]``."""
    return f"[{show(bounds[0])}, {show(bounds[1])}]"


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


# ---- the sections ----------------------------------------------------------------------------------------------------


def network_layer() -> None:
    """The notebook's first cells: a layer, a loss, its gradient."""
    heading("A layer, its loss, and the gradient")
    w, b = tensor([[1.0, 2.0], [3.0, -4.0]]), tensor([1.0, 2.0])
    x = tensor([-1.0, 1.0], requires_grad=True)
    point = Zonotope.from_generators(x.unsqueeze(0), torch.zeros(1, 0, 2))
    lower, upper = point.linear(w, b).relu().linear(tensor([[1.0, -1.0]])).bounds()
    lower.sum().backward()
    print("loss = [1, -1] . relu(w x + b) at x = [-1, 1]; a point is a zonotope without symbols")
    print("notebook:   loss 2, gradient [1, 2]")
    print(f"zonocuda:   loss in {interval((lower[0, 0], upper[0, 0]))}, gradient {show(x.grad)}")


def affine_layer() -> Zonotope:
    """The notebook's input domain and affine layer."""
    heading("The affine layer: x3 = -x1 + x2 + 1, x4 = 2 x1 - x2 + 2 for x1, x2 in [-1, 1]")
    box = zonotope(tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64))  # x0 = y0 = 0, eta = 1
    image = box.linear(tensor([[-1.0, 1.0], [2.0, -1.0]]).double(), tensor([1.0, 2.0]).double())
    for i, name in enumerate(("x3", "x4")):
        print(f"{name} = {show(neuron(image, i))}, bounds {interval(bounds_of(neuron(image, i)))}")
    return image


def the_neuron() -> Tensor:
    """The neuron of the notebook's last cell, which fails there."""
    heading("The neuron of the ReLU: x = 1 + eps_1 - eps_2")
    x = tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    lower, upper = bounds_of(x)
    print(f"bounds {interval((lower, upper))}, so the ReLU is unstable")
    print(
        f"smallest mu: {show(relu_of_one_neuron(x, None)[3])}, at lam = u / (u - l) = {show(upper / (upper - lower))}"
    )
    print(
        "The notebook prints (1, 1) for the bounds, which the box it shows does not give; with these the neuron would"
    )
    print("be stable, and its last cell ends in mistake 4.")
    return x


def mistake_threshold(x: Tensor) -> None:
    """Mistake 1."""
    heading("Mistake 1: u / (u - 1) should be u / (u - l); lam = 0.9")
    lam = tensor(0.9, dtype=torch.float64)
    lower, upper = bounds_of(x)
    print(f"threshold:  notebook {show(upper / (upper - 1))}, above every lam; right {show(upper / (upper - lower))}")
    wrong = notebook_offset_with_wrong_threshold(lower, upper, lam)
    right = relu_of_one_neuron(x, lam)[3]
    for name, mu in (("notebook", wrong), ("zonocuda", right)):
        reach = (lam * lower, lam * lower + 2 * mu)
        print(f"{name}:   mu = {show(mu)}; where x = l = {show(lower)}, its ReLU lies in {interval(reach)}")
    print("ReLU(-1) = 0 lies outside of the notebook's interval: its zonotope is unsound.")


def mistake_half(x: Tensor) -> None:
    """Mistake 2."""
    heading("Mistake 2: u * (1 - lam) lacks the / 2; lam = 1/3, as in the notebook")
    lam = tensor(1 / 3, dtype=torch.float64)
    mu = notebook_offset_without_half(*bounds_of(x), lam)
    wrong = torch.cat([(lam * x[:1]) + mu, lam * x[1:], mu.reshape(1)])
    for name, result in (("notebook", wrong), ("zonocuda", relu_of_one_neuron(x, lam))):
        print(f"{name}:   mu = {show(result[3])}, ReLU = {show(result)}, bounds {interval(bounds_of(result))}")
    print("Sound, but this mu is twice what is needed; ReLU itself ends at 3.")


def mistake_axis(image: Zonotope) -> None:
    """Mistake 3."""
    heading("Mistake 3: box sums the wrong axis")
    rows = torch.stack([neuron(image, 0), neuron(image, 1)])
    wrong, right = notebook_box(rows), image.bounds()
    print("A radius is a sum over symbols. Of x3 and x4 as the rows of a matrix, the notebook drops the first neuron,")
    print("and sums over the rest, center included.")
    print(f"notebook:   lower {show(wrong[0])}, upper {show(wrong[1])}: three numbers for two neurons")
    print(f"zonocuda:   lower {show(right[0][0])}, upper {show(right[1][0])}")


def mistake_gradient() -> None:
    """Mistake 4."""
    heading("Mistake 4: no gradient where the neuron is stable")
    x = tensor([3.0, 1.0, -1.0], dtype=torch.float64)
    lam = tensor(1 / 3, dtype=torch.float64, requires_grad=True)
    print(f"x = 3 + eps_1 - eps_2 has bounds {interval(bounds_of(x))}")
    try:
        notebook_stable_neuron(x, lam).sum().backward()
    except RuntimeError:
        print("notebook:   RuntimeError, as in its last cell: what it returns does not depend on lam")
    else:
        raise AssertionError("the notebook's stable neuron has a gradient")
    relu_of_one_neuron(x, lam).sum().backward()
    print(f"zonocuda:   dL/dlam = {show(lam.grad)}")


def gradient(x: Tensor) -> None:
    """What the notebook was after."""
    heading("What the notebook asks for: dL/dlam at lam = 1/3, with L the sum of the ReLU's coefficients")

    def loss(lam: Tensor) -> Tensor:
        return relu_of_one_neuron(x, lam).sum()

    lam = tensor(1 / 3, dtype=torch.float64, requires_grad=True)
    value = loss(lam)
    value.backward()
    step = 1e-6
    difference = (loss(lam.detach() + step) - loss(lam.detach() - step)) / (2 * step)
    print("on paper:   L = lam (1 + 1 - 1) + 2 mu = lam + 3 (1 - lam), so dL/dlam = -2")
    print(f"zonocuda:   L = {show(value)}, dL/dlam = {show(lam.grad)}; by central differences {show(difference)}")
    other = lam.detach().clone().requires_grad_()
    value = other * x.sum() + 2 * notebook_offset_without_half(*bounds_of(x), other)
    value.backward()
    print(f"notebook:   L = {show(value)}, dL/dlam = {show(other.grad)}, because of mistake 2")


# ---- the figure ------------------------------------------------------------------------------------------------------


def draw(image: Zonotope, path: Path) -> None:
    """The affine layer's zonotope, and the zonotopes around its ReLU for two slopes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = image.sample(1000, torch.Generator().manual_seed(0))[1::2, 0]  # every other one is a corner
    third = torch.full((1, 2), 1 / 3, dtype=torch.float64)
    panels: list[tuple[str, Zonotope, Callable[[Tensor], Tensor]]] = [
        ("before the ReLU", image, lambda x: x),
        ("after, λ = u/(u − l): 3/4 and 5/6", image.relu(), torch.relu),
        ("after, λ = 1/3", image.relu(third), torch.relu),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(9, 4.2), sharex=True, sharey=True, layout="constrained")
    for axis, (title, z, function) in zip(axes, panels, strict=True):
        axis.fill(*polygon(z).T.numpy(), facecolor="#dce8f5", edgecolor="#1f5a96", linewidth=1.5, label="zonotope")
        values = function(points)
        axis.scatter(*values.T.numpy(), s=4, color="#c2410c", linewidths=0, label="sampled values", zorder=3)
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("x3" if z is image else "ReLU(x3)")
        axis.set_ylabel("x4" if z is image else "ReLU(x4)")
        axis.set_aspect("equal")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="upper right", frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the sections and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, default=HERE / "notebook_zonotope.png", help="where to draw it")
    parser.add_argument("--no-figure", action="store_true", help="do not draw, which needs no matplotlib")
    options = parser.parse_args(arguments)
    print("The zonotope notebook, redone with zonocuda")
    network_layer()
    image = affine_layer()
    x = the_neuron()
    mistake_threshold(x)
    mistake_half(x)
    mistake_axis(image)
    mistake_gradient()
    gradient(x)
    if not options.no_figure:
        draw(image, options.figure)


if __name__ == "__main__":
    main()
