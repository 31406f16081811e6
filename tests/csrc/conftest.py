"""Fixtures of the tests of the C++ and CUDA sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.csrc.host import HostKernels, build


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostKernels]:
    """The kernel bodies, compiled for the CPU once a session."""
    kernels = HostKernels(build(tmp_path_factory.mktemp("host_kernels")))
    yield kernels
    kernels.close()
