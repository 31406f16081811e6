"""A device that is none: tensors that claim not to be on the CPU, to count what a program asks of a GPU.

Every operation on them is computed in host memory, so that the program takes the way that it takes on a GPU, with the
numbers that decide on it. What a GPU's stream would have to be waited for is counted: a number that the program reads,
a result whose size depends on numbers, and a copy from or to the host. An operation on tensors of both devices is an
error, as it is on a GPU.

The device is called ``meta``, which is not the CPU and which torch has without a GPU. Operations that torch makes of
others are counted as these; the kernels that a single operation launches are not counted one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")

READS = {"_local_scalar_dense", "equal"}
"""Operations whose result is a number on the host."""

SIZED_BY_NUMBERS = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
"""Operations that cannot allocate their result before the numbers are there."""

FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "_unsafe_view"}
"""Operations that launch nothing, beside views."""


class Pretended(Tensor):
    """A tensor on the device; ``held`` is where its numbers lie."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held!r})"

    def untyped_storage(self) -> torch.UntypedStorage:
        """That of the numbers: it has a size and can be given up."""
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        """The numbers, which a device has to send."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the pretended device was used outside it")


class PretendedDevice(TorchDispatchMode):
    """Inside, tensors may be made on DEVICE.

    Attributes:
        calls: how often each operation was asked of the device, by name.
        launches: those of them that launch at least one kernel: neither views nor allocations.
        waits: how often the host has to wait for the device, by what for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._functions = _Functions(self)

    def __enter__(self) -> PretendedDevice:
        super().__enter__()
        self._functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._functions.__exit__(*error)
        super().__exit__(*error)

    def clear(self) -> None:
        """Begins to count anew."""
        for counter in (self.calls, self.launches, self.waits):
            counter.clear()

    def wait(self, what: str) -> None:
        """Notes that the host waits."""
        self.waits[what] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in given if isinstance(x, Pretended)]
        wanted = kwargs.get("device")
        on_device = bool(ours) if wanted is None else torch.device(wanted) == DEVICE
        if not ours and not on_device:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        copies = name in ("copy_", "_to_copy")
        _refuse_both(func, given, copies)
        self._count(func, name, args, ours)
        held, named = tree_map(lambda x: x.held if isinstance(x, Pretended) else x, (args, kwargs))
        if wanted is not None:
            named["device"] = torch.device("cpu")
        result = func(*held, **named)
        if name == "copy_":
            if len(ours) < len(given):
                self.wait("copy between host and device")
            return args[0]
        if name == "_to_copy" and bool(ours) != on_device:
            self.wait("copy between host and device")
        if not on_device:
            return result
        known = {id(x.held): x for x in ours}

        def taken(x: Any) -> Any:
            return known.get(id(x), Pretended(x)) if isinstance(x, Tensor) else x

        return tree_map(taken, result)

    def _count(self, func: Any, name: str, args: Sequence[Any], ours: Sequence[Pretended]) -> None:
        self.calls[name] += 1
        if not func.is_view and name not in FREE:
            self.launches[name] += 1
        if name in READS:
            self.wait("number")
        sized = name in SIZED_BY_NUMBERS or (name == "repeat_interleave" and func._overloadname == "Tensor")
        if sized or (name in ("index", "index_put", "index_put_") and _has_mask(args[1])):
            self.wait("size")


def _refuse_both(func: Any, given: Sequence[Tensor], copies: bool) -> None:
    """Raises where tensors of both devices meet; a single number of the host may meet any."""
    host = [x for x in given if not isinstance(x, Pretended) and x.dim() > 0]
    if any(x.is_meta for x in given if not isinstance(x, Pretended)):
        raise RuntimeError(f"{func}: a tensor of the device was made where it was not seen")
    if host and len(host) < len(given) and not copies:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


class _Functions(TorchFunctionMode):
    """Makes tensors of Python's numbers, and of lists that are indices, which torch does below all operations: on a GPU
    a copy from the host."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        named = dict(kwargs or {})
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Pretended):
            return func(args[0], self._index(args[1]), *args[2:])
        like = args[0] if func is Tensor.new_tensor and isinstance(args[0], Pretended) else None
        made = func in (torch.tensor, torch.as_tensor) and torch.device(named.get("device") or "cpu") == DEVICE
        if like is None and (not made or isinstance(args[0], Pretended)):
            return func(*args, **named)
        named["device"] = torch.device("cpu")
        self.device.wait("copy between host and device")
        if like is None:
            return Pretended(func(*args, **named))
        return Pretended(torch.tensor(args[1], dtype=named.get("dtype", like.dtype), device=named["device"]))

    def _index(self, index: Any) -> Any:
        """An index with its lists as tensors of the device."""
        if isinstance(index, tuple):
            return tuple(self._index(one) for one in index)
        if not isinstance(index, list):
            return index
        self.device.wait("copy between host and device")
        return Pretended(torch.tensor(index, device="cpu"))
