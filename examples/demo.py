"""Verifies the example networks, checks a proof, draws a counterexample, and bounds the outputs of one network.

    python examples/demo.py

The networks recognise 8 x 8 images of digits; train.py made them and the specifications.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import zonocuda
from zonocuda import NetworkBounds, VerifyResult, Zonotope

HERE = Path(__file__).parent
NETWORKS = ("fc", "conv", "residual")
SHADES = " .:-=+*#%@"

COLUMNS = (
    ("network", "<10"),
    ("specification", "<18"),
    ("verdict", "<9"),
    ("worst margin", ">14"),
    ("unstable neurons", ">18"),
    ("symbols", ">9"),
    ("seconds", ">9"),
)

LEGEND = """
specification     network_image_radius: every pixel of that image may change by the radius, within [0, 1];
                  network_image_pixel: any one pixel of row 4 may have any value in [0, 1]
verified          proven: the network recognises every such image
falsified         a counterexample was found, and ONNX Runtime misreads it too
unknown           neither: no counterexample was found, and the bounds are too loose for a proof
timeout           neither, within the ten seconds that each has
worst margin      smallest lower bound of (output of the right digit) - (another output); a proof needs all above 0
unstable neurons  ReLUs whose input may have either sign; each adds a symbol
symbols           noise symbols of the zonotope around the output
"""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table."""

    network: Path
    specification: Path
    result: VerifyResult

    def __str__(self) -> str:
        result = self.result
        last = result.layers[-1] if result.layers else None
        cells = (
            self.network.stem,
            self.specification.stem,
            str(result.verdict),
            "-" if result.margin is None else f"{result.margin:+.3f}",
            f"{sum(x.unstable for x in result.layers)} of {sum(x.neurons for x in result.layers)}" if last else "-",
            str(sum(last.symbols.values()) + last.unstable) if last else "-",
            f"{result.seconds['total']:.2f}",
        )
        return "".join(f"{cell:{form}}" for cell, (_, form) in zip(cells, COLUMNS, strict=True))


def specifications(network: str) -> list[Path]:
    """The specification files of a network, by image and radius.

    Raises:
        FileNotFoundError: there are none.
    """
    files = list((HERE / "specs").glob(f"{network}_*.vnnlib"))
    if not files:
        raise FileNotFoundError(f"{HERE / 'specs'}: no specification of {network}; examples/train.py makes them")

    def order(path: Path) -> tuple[int, str]:
        _, image, change = path.stem.split("_")
        return int(image), change

    return sorted(files, key=order)


def verify_all(timeout: float = 10.0) -> Iterator[Row]:
    """Every network with each of its specifications."""
    for name in NETWORKS:
        network = HERE / "networks" / f"{name}.onnx"
        for specification in specifications(name):
            result = zonocuda.verify(network, zonocuda.load_vnnlib(specification), timeout=timeout)
            yield Row(network, specification, result)


def bound_outputs(network: Path, specification: Path, samples: int = 10_000) -> tuple[NetworkBounds, torch.Tensor]:
    """The outputs over the input box of a specification: proven bounds, and values at points of the box."""
    loaded = zonocuda.load_network(network)
    box = zonocuda.load_vnnlib(specification).regions[0].box
    lower, upper = (bound.reshape(1, *loaded.graph.input_shape) for bound in (box.lower, box.upper))
    images = Zonotope.from_box(lower, upper)
    points = images.sample(samples, torch.Generator().manual_seed(0)).squeeze(1)
    return zonocuda.compute_bounds(loaded, images), loaded.graph.to(torch.float64)(points)


def prove_again(network: Path, specification: Path) -> str:
    """A search's proof, checked by the code that believes nothing of it: one line."""
    if importlib.util.find_spec("flint") is None:
        return "the check of proofs needs python-flint: pip install 'zonocuda[check]'"
    spec = zonocuda.load_vnnlib(specification)
    result = zonocuda.verify(network, spec, timeout=60, certificate=True)
    if not result.verified:
        return f"{specification.stem} was not proven on this machine: {result.reason}"
    begin = time.monotonic()
    checked = zonocuda.check(result, network, spec)
    parts = max(1, sum(split.boxes for split in result.splits))
    said = "confirmed" if checked.confirmed else f"not confirmed: {checked.reason}"
    return (
        f"{specification.stem}: proven by {parts} parts in {result.seconds['total']:.1f} s, "
        f"{said} in {time.monotonic() - begin:.1f} s"
    )


def drawing(image: torch.Tensor, changed: torch.Tensor) -> str:
    """Two images ``[8, 8]`` of values in [0, 1], side by side."""

    def line(row: torch.Tensor) -> str:
        return "".join(2 * SHADES[min(int(v * len(SHADES)), len(SHADES) - 1)] for v in row.tolist())

    return "\n".join(f"    {line(a)}    {line(b)}" for a, b in zip(image, changed, strict=True))


def show_counterexample(row: Row) -> None:
    """The middle of a specification's box, and the image in the box that the network misreads."""
    found, network = row.result.counterexample, zonocuda.load_network(row.network)
    assert found is not None
    box = zonocuda.load_vnnlib(row.specification).regions[found.region].box
    image = ((box.float32_lower + box.float32_upper) / 2).reshape(1, *network.graph.input_shape)
    read = [int(network.runtime(x).argmax()) for x in (image, found.x.unsqueeze(0))]
    print(
        f"A counterexample of {row.specification.stem}, which ONNX Runtime reads as {read[1]}, beside the {read[0]}\n"
    )
    print(drawing(image.reshape(8, 8), found.x.reshape(8, 8)) + "\n")


def main() -> None:
    """Prints the table, the check of a proof, a counterexample and the bounds."""
    torch.set_num_threads(1)  # fastest for networks of this size
    print(f"zonocuda {zonocuda.__version__} on three networks that recognise 8 x 8 images of digits\n")
    print("".join(f"{title:{form}}" for title, form in COLUMNS))
    rows = []
    for row in verify_all():
        rows.append(row)
        print(row, flush=True)
    print(LEGEND)

    network, specification = HERE / "networks" / "fc.onnx", specifications("fc")[0]
    print("A proof, checked again by other code, which believes nothing of it")
    print(f"    {prove_again(network, specifications('fc')[-2])}\n")
    show_counterexample(next(row for row in rows if row.result.counterexample is not None))
    bounds, values = bound_outputs(network, specification)
    print(f"Outputs of {network.stem} over the images of {specification.stem}: proven bounds, and what samples reach\n")
    print(f"{'output':<9}{'lower bound':>12}{'smallest seen':>15}{'largest seen':>14}{'upper bound':>13}")
    columns = (bounds.lower[0], values.amin(0), values.amax(0), bounds.upper[0])
    for i, (lower, least, most, upper) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        print(f"{f'Y_{i}':<9}{lower:>12.3f}{least:>15.3f}{most:>14.3f}{upper:>13.3f}")


if __name__ == "__main__":
    main()
