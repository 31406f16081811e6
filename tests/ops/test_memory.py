"""Peak memory: no op makes a temporary of the size of the generators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zonocuda import ops

SIZE = 256 * 2**20  # bytes of the generators
_PROGRAM = f"""
import json, torch
from tests.peak import peak_growth
from zonocuda import ops, reference

batch, symbols, features = 1, 64, {SIZE} // 64 // 4
generators = torch.ones(batch, symbols, features)
center = torch.ones(batch, features)
native = torch.ops.zonocuda

# Small calls first, so that nothing is loaded while it is measured.
ops.concretize(center[:, :4], generators[:, :, :4])
reference.concretize(center[:, :4], generators[:, :, :4])
calls = dict(
    concretize=lambda: ops.concretize(center, generators),
    scale_backward=lambda: native._scale_backward(generators, generators, center, False, True),
    scale_=lambda: ops.scale_(generators, center),
    relu_=lambda: ops.relu_(center, generators),
    oracle=lambda: reference.concretize(center, generators),
)
print(json.dumps({{name: peak_growth(call)[1] for name, call in calls.items()}}))
"""


def flags_at(address: int) -> list[str]:
    """How the system keeps the memory at an address: the flags of its mapping."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and ":" not in first:
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= address < high
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no mapping holds the address")


def test_large_results_ask_for_large_pages() -> None:
    if sys.platform != "linux" or "[madvise]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("large pages are not for those who ask on this system")
    generators = torch.ones(1, 64, 2**18)
    scaled = ops.scale(generators, torch.ones(1, 2**18))
    assert "hg" in flags_at(scaled.data_ptr() + scaled.nbytes // 2)
    assert "hg" not in flags_at(generators.data_ptr() + generators.nbytes // 2)


@pytest.fixture(scope="module")
def growth() -> dict[str, int]:
    """How many bytes each call added to the peak of a fresh process that holds the generators."""
    if sys.platform != "linux":
        pytest.skip("anonymous memory is read from /proc, which Linux alone has")
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    bytes_by_call: dict[str, int] = json.loads(done.stdout)
    return bytes_by_call


def test_concretize_writes_nothing_but_its_bounds(growth: dict[str, int]) -> None:
    assert growth["concretize"] < 0.1 * SIZE  # two bounds: a thirty-second


def test_the_gradient_of_a_multiplier_makes_no_products_of_the_generators_size(growth: dict[str, int]) -> None:
    assert growth["scale_backward"] < 0.1 * SIZE


@pytest.mark.parametrize("op", ["scale_", "relu_"])
def test_an_op_in_place_makes_no_generators(op: str, growth: dict[str, int]) -> None:
    assert growth[op] < 0.1 * SIZE  # of relu_: offset and two bounds


def test_the_measurement_sees_the_temporary_of_the_oracle(growth: dict[str, int]) -> None:
    """The reference sums abs() of the generators, which is such a temporary."""
    assert growth["oracle"] > 0.9 * SIZE
