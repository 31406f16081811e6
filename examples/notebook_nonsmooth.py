"""The notebook of programs that are zero and have a derivative, redone with zonocuda, with the table it should show.

    python examples/notebook_nonsmooth.py > examples/notebook_nonsmooth.txt

also draws notebook_nonsmooth.png beside this file (which needs matplotlib; --no-figure leaves it out).

The notebook takes two programs for the maximum of t x, which break ties in two ways, and subtracts them: the value is 0
for every t, the derivative that autograd returns is not. It runs them on x1 = 1.14 (1, 1, 1, 1), where everything ties,
in one dtype. Here both programs run on x1 and on x2 = (1, 2, 3, 4), in four dtypes, and the audit says of each
derivative whether it is compensation (rounding) or bifurcation (wrong over the reals).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from zonocuda import nonsmooth
from zonocuda.nonsmooth import programs

HERE = Path(__file__).parent
INPUTS = {"x1 = 1.14 (1, 1, 1, 1)": programs.equal_inputs, "x2 = (1, 2, 3, 4)": programs.different_inputs}
STALE = 5.960464477539063e-08  # what both tables of the notebook show, in every row


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def show(value: float) -> str:
    """A derivative, as a power of two where it is one."""
    exponent = math.log2(abs(value)) if value else 0.0
    if value and exponent == int(exponent) and abs(exponent) > 4:
        return f"{'-' if value < 0 else '+'}2^{int(exponent)}"
    return f"{value:+.4g}" if value else "0"


def tables() -> None:
    """Value and derivative of both programs, on both inputs, in four dtypes."""
    for name, program in (("zero", programs.zero), ("zero_2, from ReLU alone", programs.zero_relu)):
        for title, inputs in INPUTS.items():
            heading(f"{name}, {title}")
            print(f"{'t':>10}" + "".join(f"{str(d).removeprefix('torch.'):>12}" for d in programs.DTYPES))
            found = programs.table(program, inputs)
            assert all(value == 0 for rows in found.values() for value, _ in rows)
            for i, t in enumerate(programs.POINTS):
                print(f"{t:10g}" + "".join(f"{show(found[d][i][1]):>12}" for d in programs.DTYPES))
            print("values: 0 everywhere")


def stale_cells() -> None:
    """What the notebook shows that its code does not give."""
    heading("Where the notebook is stale")
    ours = [
        programs.derivative(programs.zero_relu, t, programs.equal_inputs(torch.float32))[1] for t in programs.POINTS
    ]
    print(f"Its second table, of zero_2 on x1 in float32, repeats the first: {STALE} in every row, which is +2^-24.")
    print(
        f"The cells give {show(ours[0])} in every row. They ran out of order: the cells that define the two maxima by"
    )
    print("ReLU are numbered after the cell that uses them, which so used the maxima of the first program.")
    assert all(value == -STALE for value in ours)
    print("Its text calls the ReLU that of another library; the code calls torch's.")
    print("The cell's comment offers x2, for which the notebook shows no table: see above.")


def one_number(program: programs.Program, inputs: Callable[[torch.dtype], Tensor]) -> nn.Module:
    """A program at t = 0 as a module."""

    class AtZero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.t = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return program(self.t, inputs(self.t.dtype)).reshape(1)

    return AtZero()


def classes() -> None:
    """The audit of the two inputs."""
    heading("What the audit says of zero at t = 0: torch.max() shares a tie, or gives all to the first")
    for title, inputs in INPUTS.items():
        report = nonsmooth.audit(
            one_number(programs.zero, inputs),
            torch.zeros(1, 1),
            lambda y: y.sum(),
            b=nonsmooth.Convention(max_all="first"),
            dtypes=programs.DTYPES,
            progress=False,
        )
        for d in report.dtypes:
            print(f"{title:24} {d.dtype:9} change {show(d.total.absolute):>6}: {d.total.verdict}")
    print("In bfloat16 the sum of four quarters of 1.14 happens to round to 1.14 again.")


def other_programs() -> None:
    """relu2, relu3, identity and the compensation construction."""
    heading("More of the kind: derivatives at t = 0, in float32")
    zero = torch.zeros(1)

    def at_zero(f: Callable[[Tensor], Tensor]) -> str:
        return show(programs.derivative(lambda t, x: f(t), 0.0, zero)[1])

    print(f"relu(t)                        {at_zero(torch.relu)}")
    print(f"relu2(t) = relu(-t) + t        {at_zero(programs.relu2)}")
    print(f"relu3(t) = their mean          {at_zero(programs.relu3)}")
    for s in (1.0, 3.0):
        print(f"identity(t, {s:g}), which is t      {at_zero(lambda t, s=s: programs.identity(t, s))}")
    moved = programs.compensation(torch.sin, at=(0.0, 1.0), amount=7.0)
    print(f"sin(t), moved by 7 at 0 and 1  {at_zero(moved)}")


def draw(path: Path) -> None:
    """identity(t, s) and its autodiff derivative."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    t = torch.linspace(-1, 1, 201, dtype=torch.float64)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for s, colour in ((0.0, "#1f5a96"), (1.0, "#15803d"), (3.0, "#c2410c")):
        pairs = [programs.derivative(lambda u, x, s=s: programs.identity(u, s), v, t[:1]) for v in t.tolist()]
        axes[0].plot(t, [value for value, _ in pairs], color=colour, linewidth=1.5)
        axes[1].plot(t, [grad for _, grad in pairs], ".", markersize=3, color=colour, label=f"s = {s:g}")
    axes[0].set_title("identity(t, s): the same line for every s", fontsize=10)
    axes[1].set_title("its autodiff derivative: 1 − s at 0", fontsize=10)
    axes[1].legend(frameon=False, fontsize=9)
    for axis in axes:
        axis.set_xlabel("t")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the sections and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, default=HERE / "notebook_nonsmooth.png", help="where to draw it")
    parser.add_argument("--no-figure", action="store_true", help="do not draw, which needs no matplotlib")
    options = parser.parse_args(arguments)
    print("The notebook of programs that are zero, redone with zonocuda")
    tables()
    stale_cells()
    classes()
    other_programs()
    if not options.no_figure:
        draw(options.figure)


if __name__ == "__main__":
    main()
