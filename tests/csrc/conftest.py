"""Fixtures of the tests of the C++ and CUDA sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.csrc.host import PROGRAM, HostKernels, build
from tests.shared import made_once


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostKernels]:
    """The kernel bodies, compiled for the CPU once a run."""
    kernels = HostKernels(made_once(tmp_path_factory, "host_kernels", build) / PROGRAM)
    yield kernels
    kernels.close()
