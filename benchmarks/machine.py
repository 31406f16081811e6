"""What this machine can do: its name, copy bandwidth and product rate, which benchmarks are compared with.

As a program, prints a name of the machine that fits a file: ``python -m benchmarks.machine [cuda]``; with
``capability`` the compute capability of the GPU, such as 9.0, and nothing where torch sees none.
"""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.clock import median_seconds
from tests import peak

Result = TypeVar("Result")

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65536


@dataclass(frozen=True)
class Machine:
    """A device with its measured copy bandwidth, in bytes read plus bytes written a second, and its product rate, in
    additions and multiplications of float32 a second.
    """

    device: torch.device
    name: str
    copy_bandwidth: float
    product_rate: float
    recycles_memory: bool


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else []
    return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"


def machine_info() -> dict[str, str]:
    """Of the machine, what numbers depend on; not its name."""
    processor = device_name(torch.device("cpu"))
    return {"processor": processor, "system": platform.system(), "python": platform.python_version()}


def commit_info() -> dict[str, object]:
    """The commit that is checked out, and whether files that it tracks were changed; as pytest-benchmark writes it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    return {"id": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def recycle_memory() -> bool:
    """Lets the C library keep freed blocks of any size instead of returning them to the system, where it is glibc.

    A large block fresh from the system costs a page fault for every 4 KiB, several times the kernel that writes it. The
    verifier reuses its buffers, and so do benchmarks, native and reference alike. Returns whether it worked.
    """
    return _mallopt(_M_MMAP_MAX, 0) and _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_memory() -> bool:
    """The opposite: what is free goes back to the system now, and large blocks as soon as they are freed, which is how
    a program begins. Returns whether it worked.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    done = _mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX) and _mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
    trim_memory()
    return done


def trim_memory() -> None:
    """What is free goes back to the system now, where the C library is glibc; no setting changes."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def is_memory_changed() -> bool:
    """Whether a setting of the C library's memory was ever changed: its thresholds no longer adapt then."""
    return bool(_changed)


_changed: list[int] = []


def _mallopt(parameter: int, value: int) -> bool:
    """Sets a parameter of glibc's malloc; returns whether there is one and it was set."""
    if platform.libc_ver()[0] != "glibc":
        return False
    _changed.append(parameter)
    return bool(ctypes.CDLL(None).mallopt(parameter, value))


def peak_growth(call: Callable[[], Result]) -> tuple[Result, int]:
    """:func:`tests.peak.peak_growth`, from a process that holds no free memory back."""
    return_memory()
    return peak.peak_growth(call)


def copy_bandwidth(device: torch.device, size: int, rounds: int = 15) -> float:
    """Bytes read plus written a second, copying ``size`` bytes into an existing block: the median of ``rounds``."""
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source), device, rounds)


def product_rate(device: torch.device, rounds: int = 8) -> float:
    """Additions and multiplications a second in a product of two float32 matrices, square ones of 2048 rows on a CPU
    and of 8192 on a GPU: the median."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = torch.rand(2, size, size, device=device)
    out = torch.empty_like(a)
    return 2 * size**3 / median_seconds(lambda: torch.mm(a, b, out=out), device, rounds)


def measure_machine(device: torch.device, size: int) -> Machine:
    """The device with its copy bandwidth for blocks of ``size`` bytes, before memory is recycled."""
    recycles = device.type == "cuda"  # torch recycles the memory of a GPU itself
    return Machine(device, device_name(device), copy_bandwidth(device, size), product_rate(device), recycles)


if __name__ == "__main__":
    if "capability" in sys.argv[1:]:
        print("{}.{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else "")
        sys.exit()
    chosen = torch.device("cuda" if "cuda" in sys.argv[1:] else "cpu")
    print(re.sub(r"[^a-z0-9]+", "-", device_name(chosen).lower().replace("(r)", "")).strip("-"))
