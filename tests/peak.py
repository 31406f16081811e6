"""Peak memory of a call: as the system sees it, or tensor by tensor."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zonocuda.domains import Hosted

Result = TypeVar("Result")

_SECONDS = 0.001  # between two looks


def peak_growth(call: Callable[[], Result], process: int | None = None) -> tuple[Result, int]:
    """What ``call`` returns, and the peak of this process's anonymous resident memory during it, minus that before it,
    in bytes; or of another ``process``, by its number.

    Anonymous memory alone: pages of files come and go with what else the machine does.

    Raises:
        OSError: not on Linux.
    """
    status = Path("/proc") / str(process or "self") / "status"
    done, before, peaks = threading.Event(), _anonymous(status), [0]

    def watch() -> None:
        while not done.wait(_SECONDS):
            peaks.append(max(peaks.pop(), _anonymous(status)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
        last = _anonymous(status)
    finally:
        done.set()
        watcher.join()
    return result, max(*peaks, last) - before


def _anonymous(status: Path) -> int:
    (line,) = (text for text in status.read_text().splitlines() if text.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class Meter(TorchDispatchMode):
    """The most bytes of tensors that were made inside and lived at one time: looked at after every operator of torch,
    so that what an operator allocates and frees for itself is not seen.

    Attributes:
        device: the most of them but those of blocks in host memory.
        host: the most of those.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = self.host = 0
        self._live: dict[int, tuple[weakref.ref[torch.UntypedStorage], str]] = {}
        self._place = "device"

    def __enter__(self) -> Meter:
        self._store = Hosted.store
        Hosted.store = staticmethod(self._stored)  # type: ignore[method-assign,assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        Hosted.store = staticmethod(self._store)  # type: ignore[method-assign,assignment]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._note([args, kwargs], "outside")
        result = func(*args, **(kwargs or {}))
        self._note(result, self._place)
        sizes = {"device": 0, "host": 0, "outside": 0}
        for reference, place in [*self._live.values()]:
            storage = reference()
            sizes[place] += 0 if storage is None else storage.nbytes()
        self.device, self.host = max(self.device, sizes["device"]), max(self.host, sizes["host"])
        return result

    def _note(self, tensors: Any, place: str) -> None:
        """Where the storages lie that were not seen before."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._live:
                    self._live[key] = weakref.ref(storage, lambda _, key=key: self._live.pop(key, None)), place

    def _stored(self, block: Any) -> Hosted:
        self._place = "host"
        try:
            return self._store(block)
        finally:
            self._place = "device"
