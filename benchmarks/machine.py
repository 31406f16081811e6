"""What this machine can do: its name and its copy bandwidth, which benchmarks are compared with.

As a program, prints a name of the machine that fits a file: ``python benchmarks/machine.py [cuda]``.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt


@dataclass(frozen=True)
class Machine:
    """A device and its measured copy bandwidth, in bytes read plus bytes written a second."""

    device: torch.device
    name: str
    copy_bandwidth: float
    recycles_memory: bool


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else []
    return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"


def recycle_memory() -> bool:
    """Lets the C library keep freed blocks of any size instead of returning them to the system, where it is glibc.

    A large block fresh from the system costs a page fault for every 4 KiB, several times the kernel that writes it. The
    verifier reuses its buffers, and so do benchmarks, native and reference alike. Returns whether it worked.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def synchronised(function: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """``function``, and then the wait for the work that it gave to the device."""

    def call() -> None:
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def copy_bandwidth(device: torch.device, size: int, rounds: int = 30) -> float:
    """Bytes read plus written a second, copying ``size`` bytes into an existing block: the best of ``rounds``."""
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    copy = synchronised(lambda: target.copy_(source), device)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        copy()
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def measure_machine(device: torch.device, size: int) -> Machine:
    """The device with its copy bandwidth for blocks of ``size`` bytes; from now on, memory is recycled."""
    recycles = recycle_memory() or device.type == "cuda"  # torch recycles the memory of a GPU itself
    return Machine(device, device_name(device), copy_bandwidth(device, size), recycles)


if __name__ == "__main__":
    chosen = torch.device("cuda" if "cuda" in sys.argv[1:] else "cpu")
    print(re.sub(r"[^a-z0-9]+", "-", device_name(chosen).lower().replace("(r)", "")).strip("-"))
