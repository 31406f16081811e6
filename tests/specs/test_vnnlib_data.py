"""The properties of VNN-COMP are read as its table of instances describes them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.data import data_root
from zonocuda.specs import Spec, load_vnnlib

pytestmark = pytest.mark.data

SMALL = ("acasxu", "collins_rul_cnn", "mnist_fc", "reach_prob_density")
IMAGES = ("cifar10_resnet_4b", "marabou_cifar10_small_medium", "oval21_base_wide", "sri_resnet_a")
SETS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in IMAGES)]


def read(folder: Path) -> tuple[list[dict[str, str]], dict[str, Spec]]:
    """The rows of the table and every property of the folder, by its path as the table writes it."""
    with (folder / "instances.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = sorted(folder.glob("**/*.vnnlib.gz"))
    return rows, {path.relative_to(folder).as_posix(): load_vnnlib(path) for path in files}


@pytest.mark.parametrize("name", SETS)
def test_properties_match_the_table_and_contain_its_counterexamples(name: str) -> None:
    folder = data_root() / "vnncomp" / name
    rows, specs = read(folder)
    assert rows
    assert {row["vnnlib"] for row in rows} <= set(specs)
    for row in rows:
        spec = specs[row["vnnlib"]]
        assert (spec.inputs, spec.outputs) == (int(row["n_in"]), int(row["n_out"])), row["vnnlib"]
        assert sum(len(region.disjuncts) for region in spec.regions) == int(row["n_cases"]), row["vnnlib"]
        assert not any(region.box.is_empty for region in spec.regions)
        width = max(float((region.box.upper - region.box.lower).max()) for region in spec.regions)
        assert width == pytest.approx(float(row["max_width"]), rel=1e-6), row["vnnlib"]

    keys = {row["ce_key"]: specs[row["vnnlib"]] for row in rows if row["ce_key"]}
    if keys:
        with np.load(folder / "counterexamples.npz") as points:
            assert set(keys) == set(points.files)
            for key, spec in keys.items():
                x = points[key].astype(np.float64).ravel()
                assert any(
                    bool(((region.box.lower.numpy() <= x) & (x <= region.box.upper.numpy())).all())
                    for region in spec.regions
                ), key
