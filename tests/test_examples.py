"""The examples: what is committed is what the scripts say it is."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from zonocuda import Verdict, Zonotope, load_network, load_onnx, load_vnnlib
from zonocuda.importers import NetworkMismatchError
from zonocuda.importers.check import Comparison
from zonocuda.specs import VnnlibError

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NETWORKS = ("fc", "conv", "residual")
SPECIFICATIONS = sorted((EXAMPLES / "specs").glob("*.vnnlib"), key=lambda path: path.stem)


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The examples import one another by name; one thread is enough for them, and leaves the others alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    for name in ("demo", "export", "notebook_nonsmooth", "notebook_zonotope", "train"):
        sys.modules.pop(name, None)
    torch.set_num_threads(threads)


def script(name: str) -> ModuleType:
    """An example as a module; skips where a package that only the examples need is absent."""
    if name == "train":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def rows(scripts: None) -> list[Any]:
    """The demo's table, where a search that proves nothing ends after a second and a half."""
    return list(script("demo").verify_all(1.5))


def execute(network: Path, points: Tensor) -> list[list[float]]:
    """The network's outputs at float32 ``points`` ``[n, 64]``, in a session of its own."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return [session.run(None, {entry.name: p.reshape(entry.shape).numpy()})[0].flatten().tolist() for p in points]


# ---- the committed files ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_network_has_a_verified_and_a_falsified_specification(rows: list[Any]) -> None:
    assert {row.network.stem for row in rows} == set(NETWORKS)
    assert sorted(row.specification for row in rows) == sorted(SPECIFICATIONS)
    for name in NETWORKS:
        verdicts = {row.result.verdict for row in rows if row.network.stem == name}
        assert verdicts >= {Verdict.VERIFIED, Verdict.FALSIFIED}, name


@pytest.mark.slow
def test_verdicts_follow_from_margins_and_get_worse_with_the_radius(rows: list[Any]) -> None:
    order = [Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT, Verdict.FALSIFIED]
    by_image: dict[tuple[str, str], list[tuple[Decimal, Verdict]]] = {}
    for row in rows:
        margin, verdict = row.result.margin, row.result.verdict
        if margin is not None and margin > 0:
            assert verdict is Verdict.VERIFIED, row.specification.name
        elif verdict is Verdict.VERIFIED:
            assert row.result.splits, row.specification.name
        name, image, change = row.specification.stem.split("_")
        if change != "pixel":
            by_image.setdefault((name, image), []).append((Decimal(change), verdict))
    for entries in by_image.values():
        places = [order.index(verdict) for _, verdict in sorted(entries)]
        assert places == sorted(places)


@pytest.mark.slow
def test_no_sampled_image_of_a_verified_specification_is_unsafe_in_onnxruntime(rows: list[Any]) -> None:
    for row in rows:
        if row.result.verdict is not Verdict.VERIFIED:
            continue
        for region in load_vnnlib(row.specification).regions:
            box = Zonotope.from_box(region.box.lower.unsqueeze(0), region.box.upper.unsqueeze(0))
            points = box.sample(50, torch.Generator().manual_seed(1)).squeeze(1).float()
            points = points.clamp(region.box.float32_lower, region.box.float32_upper)
            for x, y in zip(points, execute(row.network, points), strict=True):
                assert not region.is_unsafe(x.tolist(), y), row.specification.name


@pytest.mark.slow
def test_every_counterexample_lies_in_its_box_and_is_unsafe_in_onnxruntime(rows: list[Any]) -> None:
    found = [row for row in rows if row.result.verdict is Verdict.FALSIFIED]
    assert all(row.result.counterexample is not None for row in found)
    for row in found:
        x = row.result.counterexample.x.flatten()
        region = load_vnnlib(row.specification).regions[row.result.counterexample.region]
        assert bool((x >= region.box.float32_lower).all())
        assert bool((x <= region.box.float32_upper).all())
        (y,) = execute(row.network, x.unsqueeze(0))
        assert region.is_unsafe(x.tolist(), y), row.specification.name


@pytest.mark.slow
def test_the_demo_prints_every_verdict(
    rows: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = script("demo")
    monkeypatch.setattr(demo, "verify_all", lambda: iter(rows))
    demo.main()
    text = capsys.readouterr().out
    assert re.search(r"proven by \d+ parts in [\d.]+ s, confirmed in [\d.]+ s|needs python-flint|was not proven", text)
    assert re.search(r"A counterexample of \w+_0\.25", text)
    lines = [line.split() for line in text.splitlines()]
    for row in rows:
        assert [row.network.stem, row.specification.stem, str(row.result.verdict)] in [line[:3] for line in lines]


def test_the_demo_draws_two_images_side_by_side() -> None:
    image = torch.zeros(8, 8)
    image[0] = 1.0
    text = script("demo").drawing(image, image.T)
    assert text.splitlines()[0] == f"    {'@' * 16}    @@{' ' * 14}"
    assert text.splitlines()[7] == f"    {' ' * 16}    @@{' ' * 14}"


def test_the_demos_bounds_enclose_what_samples_reach() -> None:
    demo = script("demo")
    for name in NETWORKS:
        bounds, values = demo.bound_outputs(
            EXAMPLES / "networks" / f"{name}.onnx", demo.specifications(name)[0], samples=200
        )
        assert bool((values >= bounds.lower).all())
        assert bool((values <= bounds.upper).all())
        assert bool((values.amax(0) > values.amin(0)).all())


def test_a_broken_specification_ends_the_demo_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = script("demo")
    monkeypatch.setattr(demo, "HERE", tmp_path)
    (tmp_path / "specs").mkdir()
    with pytest.raises(FileNotFoundError, match="no specification of fc"):
        demo.main()
    (tmp_path / "specs" / "fc_0_0.1.vnnlib").write_text("(assert")
    with pytest.raises(VnnlibError, match=r"fc_0_0\.1\.vnnlib"):
        demo.main()


@pytest.mark.parametrize("path", SPECIFICATIONS, ids=lambda path: path.stem)
def test_a_specification_says_what_its_name_says(path: Path) -> None:
    digits = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed").load_digits()
    _, number, change = path.stem.split("_")
    image, label = digits.data[int(number)] / 16, int(digits.target[int(number)])
    spec = load_vnnlib(path)
    assert (spec.inputs, spec.outputs) == (64, 10)
    expected = {f"Y_{label} - Y_{i} <= 0" if label < i else f"-Y_{i} + Y_{label} <= 0" for i in range(10) if i != label}
    boxes = [(region.box.lower.numpy(), region.box.upper.numpy()) for region in spec.regions]
    for region in spec.regions:
        assert all(len(rows) == 1 for rows in region.disjuncts)
        assert {str(rows[0]) for rows in region.disjuncts} == expected
    if change == "pixel":
        assert len(boxes) == 8
        for column, (lower, upper) in enumerate(boxes):
            pixel = 4 * 8 + column
            assert (lower[pixel], upper[pixel]) == (0, 1)
            for bound in (lower, upper):
                np.testing.assert_array_equal(np.delete(bound, pixel), np.delete(image, pixel))
    else:
        ((lower, upper),) = boxes
        # the file has exact decimals, rounded outward when read; float64 rounds image - radius once more
        np.testing.assert_allclose(lower, np.clip(image - float(change), 0, 1), rtol=0, atol=2**-52)
        np.testing.assert_allclose(upper, np.clip(image + float(change), 0, 1), rtol=0, atol=2**-52)


# ---- training and export ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_agrees_with_torch(name: str, tmp_path: Path) -> None:
    train, export = script("train"), script("export")
    torch.manual_seed(0)
    images, _ = train.load_images()
    few = train.Images(images.pixels[:128], images.labels[:128], images.numbers[:128])
    model = train.build(name)
    before = [p.detach().clone() for p in model.parameters()]
    train.train(model, few, epochs=1)
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    path = tmp_path / f"{name}.onnx"
    onnx.save(export.onnx_model(model, (1, 8, 8)), path)
    x = torch.randn(20, 1, 8, 8)
    comparison = Comparison(load_onnx(path), path.name, "torch", torch.float32)  # allows what float32 rounding explains
    with torch.no_grad():
        comparison.check_output(x, model(x))
    load_network(path).check(torch.zeros(1, 8, 8), torch.ones(1, 8, 8))
    with torch.no_grad():
        next(model.parameters())[0] += 0.01
        with pytest.raises(NetworkMismatchError):
            comparison.check_output(x, model(x))


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(2)], ids=str)
def test_a_layer_that_cannot_be_exported_is_an_error(layer: nn.Module) -> None:
    export = script("export")
    with pytest.raises(NotImplementedError, match=type(layer).__name__):
        export.onnx_model(nn.Sequential(nn.Conv2d(2, 2, 1), layer, nn.Linear(2, 2)), (2, 2, 2))


def test_training_teaches_the_network_something() -> None:
    train = script("train")
    torch.manual_seed(0)
    training, testing = train.load_images()
    model = train.build("fc")
    untrained = train.accuracy(model, testing)
    train.train(model, training, epochs=3)
    assert train.accuracy(model, testing) > untrained + 0.3


def test_written_boxes_are_read_back_exactly(tmp_path: Path) -> None:
    export = script("export")
    shared, first, second = (
        (Decimal(low), Decimal(high)) for low, high in (("0", "0.3"), ("1E-7", "1"), ("-0.5", "0.25"))
    )
    path = tmp_path / "boxes.vnnlib"
    path.write_text(export.vnnlib("two boxes", [[shared, first, first], [shared, second, first]], 1, 3))
    spec = load_vnnlib(path)
    assert (spec.inputs, spec.outputs, len(spec.regions)) == (3, 3, 2)
    for region, middle in zip(spec.regions, (first, second), strict=True):
        low, high = ([float(interval[side]) for interval in (shared, middle, first)] for side in (0, 1))
        assert region.box.float32_lower.tolist() == torch.tensor(low).tolist()
        assert region.box.float32_upper.tolist() == torch.tensor(high).tolist()
        assert region.is_unsafe([0, 0, 0], [2, 2, 1])
        assert region.is_unsafe([0, 0, 0], [1, 2, 2])
        assert not region.is_unsafe([0, 0, 0], [1, 2, 1])


def test_radii_are_chosen_away_from_those_where_the_verdict_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = script("train")
    edges = [Decimal("0.05"), Decimal("0.12")]

    def verdict(network: Path, text: str, scratch: Path) -> Verdict:
        return train.WANTED[sum(Decimal(text) > edge for edge in edges)]

    monkeypatch.setattr(train, "verdict", verdict)
    chosen = train.radii(tmp_path, str, tmp_path)
    assert [verdict(tmp_path, str(radius), tmp_path) for radius in chosen] == list(train.WANTED)
    for radius, edge in ((chosen[0], edges[0]), (chosen[1], edges[0]), (chosen[1], edges[1]), (chosen[2], edges[1])):
        low, high = sorted((radius, edge))
        assert any(low < other < high or other == edge for other in train.RADII if other != radius)
    edges[:] = [train.RADII[0], train.RADII[5]]  # one radius alone is verified
    assert train.radii(tmp_path, str, tmp_path) == []


# ---- the notebook ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notebook_nonsmooth", "notebook_zonotope"])
def test_the_notebook_prints_the_committed_text(name: str) -> None:
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    ran = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--no-figure"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == (EXAMPLES / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["notebook_nonsmooth", "notebook_zonotope"])
def test_the_figure_is_drawn_and_small(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "figure.png"
    script(name).main(["--figure", str(path)])
    capsys.readouterr()
    for figure in (path, EXAMPLES / f"{name}.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert 10_000 < figure.stat().st_size < 100_000
