"""What every test shares: the devices, the seed, and a header that says what was tested."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
import torch

from tests import thorough
from tests.devices import DEVICES, missing_device, native_build, use_device

try:
    from zonocuda.verifier import splitting
except ImportError:  # tests of packages and of build logs run where nothing is built, and search nothing
    splitting = None  # type: ignore[assignment]

SEED = int(os.environ.get("ZONOCUDA_TEST_SEED", "0"))

if "PYTEST_XDIST_WORKER" in os.environ:  # one of as many processes as there are cores
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)


def pytest_report_header() -> list[str]:
    """The seed, and which builds and devices are there."""
    build = native_build()
    native = "not built" if build is None else f"{build['compiler']}, CUDA {build['cuda'] or 'not built'}"
    return [
        f"zonocuda: seed {SEED} (set ZONOCUDA_TEST_SEED), torch {torch.__version__}, "
        f"native ops: {native}, GPU tests: {missing_device('cuda') or torch.cuda.get_device_name()}"
    ]


class LeftOut:
    """Says at the end of a run how many cases no worker had; see tests/thorough.py."""

    cases = 0

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """What the modules of this process left out; a worker's goes to the process that prints."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = thorough.left_out
        self.cases = max(self.cases, thorough.left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Every worker imports the same modules."""
        self.cases = max(self.cases, getattr(node, "workeroutput", {}).get("left_out", 0))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line, where there are any."""
        if self.cases:
            terminalreporter.write_line(f"{self.cases} like cases were left out: make thorough has them all")


def pytest_configure(config: pytest.Config) -> None:
    """The line at the end; and no look for garbage while modules and tests are collected, which all stay."""
    config.pluginmanager.register(LeftOut())
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Garbage is looked for among what tests make: to look through torch and all the tests takes a fifth of a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(7000, 10, 20)
    gc.enable()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device once; CUDA carries the marker ``gpu`` and is skipped where it cannot run."""
    return use_device(request.param)


@pytest.fixture
def cuda() -> torch.device:
    """The GPU, for tests marked ``gpu`` that make sense on no other device."""
    return use_device("cuda")


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds torch before every test, so that each one repeats alone; the header prints the number."""
    torch.manual_seed(SEED)
    return SEED


@pytest.fixture(autouse=True)
def short_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of subproblems that no timeout ends takes a tenth of a second."""
    if splitting is not None:
        monkeypatch.setattr(splitting, "SECONDS", 0.1)
