"""How much memory this process can still have, and whether it ran out of it."""

from __future__ import annotations

import resource
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_PAGES = Path("/proc/self/statm")


def free_host_memory() -> int | None:
    """Bytes that the system, the process's control group and its limit of addresses still give; None where the system
    does not say."""
    if not _MEMINFO.is_file():
        return None
    fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        free = min(free, addresses - int(_PAGES.read_text().split()[0]) * resource.getpagesize())
    return max(free, 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch's CPU allocator says so only in the text of a RuntimeError."""
    import torch  # which who asks for free memory may do without

    text = str(error)
    allocating = "aten::new_empty" in text or "aten::empty" in text  # all that the stable ABI of torch 2.11 tells
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or (allocating and "API call failed" in text)
    )
