"""Every CUDA kernel compiles for sm_90 without spills or a stack, within the registers of registers.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.csrc.ptxas import SOURCES, TABLE, Usage, measure, parse, readable, registers, release, toolkit

FILES = sorted(SOURCES.glob("*.cu"))


@pytest.fixture(scope="module")
def cuda_home() -> Path:
    home = toolkit()
    if home is None:
        pytest.skip("no CUDA toolkit: set CUDA_HOME to the folder that has bin/nvcc")
    return home


@pytest.fixture(scope="module")
def usages(cuda_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Usage]]:
    """By file, the usage of each kernel."""
    folder = tmp_path_factory.mktemp("ptxas")
    return {source.name: measure(cuda_home, source, folder) for source in FILES}


@pytest.mark.slow
@pytest.mark.parametrize("file", [source.name for source in FILES])
def test_no_kernel_spills_registers_or_needs_a_stack(usages: dict[str, dict[str, Usage]], file: str) -> None:
    bad = {name: usage for name, usage in usages[file].items() if usage.spills or usage.stack}
    assert not bad


@pytest.mark.slow
def test_no_kernel_needs_more_registers_than_recorded(cuda_home: Path, usages: dict[str, dict[str, Usage]]) -> None:
    table = json.loads(TABLE.read_text())
    found = registers(usages.values())
    remedy = "if that is meant, run python -m tests.csrc.ptxas"
    assert found.keys() == table["registers"].keys(), f"the kernels have changed: {remedy}"
    if release(cuda_home) != table["nvcc"]:
        pytest.skip(f"registers.json holds for nvcc {table['nvcc']}, here is {release(cuda_home)}")
    more = {
        name: (count, table["registers"][name]) for name, count in found.items() if count > table["registers"][name]
    }
    assert not more, f"more registers than recorded: {remedy}"


def test_a_report_of_ptxas_is_read() -> None:
    report = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90'
ptxas info    : Function properties for _Z1aPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_90'
ptxas info    : Function properties for _Z1bPf
    48 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem
"""
    assert parse(report) == {"_Z1aPf": Usage(10, 0, 0), "_Z1bPf": Usage(255, 48, 20)}
    name = "void zonocuda::cuda::map<float, 4, zonocuda::cuda::Scale<float> >(zonocuda::cuda::Layout, float*)"
    assert readable(name) == "map<float, 4, Scale<float> >"
