"""Every CUDA kernel compiles for sm_90 without spills or a stack, within the registers of registers.json."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.csrc.ptxas import TABLE, Usage, by_name, parse, readable, release, toolkit


@pytest.fixture(scope="module")
def usages() -> dict[str, Usage]:
    """The usage of each kernel, as the log of a build for sm_90 has it."""
    if "ZONOCUDA_BUILD_LOG" not in os.environ:
        pytest.skip("ZONOCUDA_BUILD_LOG names no log of a build with CUDA: `make cuda-check` builds and runs this")
    return by_name(parse(Path(os.environ["ZONOCUDA_BUILD_LOG"]).read_text()))


def test_no_kernel_spills_registers_or_needs_a_stack(usages: dict[str, Usage]) -> None:
    assert usages
    assert not {name: usage for name, usage in usages.items() if usage.spills or usage.stack}


def test_no_kernel_needs_more_registers_than_recorded(usages: dict[str, Usage]) -> None:
    table = json.loads(TABLE.read_text())
    remedy = "if that is meant, run python -m tests.csrc.ptxas"
    assert usages.keys() == table["registers"].keys(), f"the kernels have changed: {remedy}"
    home = toolkit()
    assert home is not None
    if release(home) != table["nvcc"]:
        pytest.skip(f"registers.json holds for nvcc {table['nvcc']}, here is {release(home)}")
    more = {
        name: (usage.registers, table["registers"][name])
        for name, usage in usages.items()
        if usage.registers > table["registers"][name]
    }
    assert not more, f"more registers than recorded: {remedy}"


def test_a_report_of_ptxas_is_read() -> None:
    report = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90'
ptxas info    : Function properties for _Z1aPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_80'
ptxas info    : Function properties for _Z1bPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 99 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_90'
ptxas info    : Function properties for _Z1bPf
    48 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem
"""
    assert parse(report) == {"_Z1aPf": Usage(10, 0, 0), "_Z1bPf": Usage(255, 48, 20)}
    name = "void zonocuda::cuda::map<float, 4, zonocuda::cuda::Scale<float> >(zonocuda::cuda::Layout, float*)"
    assert readable(name) == "map<float, 4, Scale<float> >"
