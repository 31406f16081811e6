"""What a trace of a module has baked in besides its tensors, in a form that can be compared later.

A trace is what ``forward`` did once. What it did depends on the module's flags, attributes, submodules and hooks, on
the code of its classes, and on what that code reads: closures, defaults and globals. A :class:`Fingerprint` holds all
of that by value (numbers, texts, containers, tensors that are plain attributes, objects by their attributes) or by
identity (code, classes, functions of torch). What is neither is listed in ``unknown``, and nothing is claimed of it.

Parameters and buffers are there by type, shape, device, and by which of them are one object; their numbers are not, as
a graph reads those anew.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from zonocuda.precision import callers_device

_PACKAGES = (
    "torch numpy math operator functools itertools typing collections abc copy enum dataclasses numbers types "
    "contextlib warnings builtins _pytest"
)
_TRUSTED = frozenset(_PACKAGES.split())
"""Packages whose functions depend on their arguments alone (and on settings that are compared, see ``_settings``).

pytest puts functions of its own into ``assert`` statements of tests: they word what failed, and lead to all of pytest.
"""

_READERS = (
    "getattr getattr_static attrgetter methodcaller getmembers vars eval exec globals locals __dict__ __getattribute__"
)
_DYNAMIC = frozenset(_READERS.split())
"""Names by which code may read attributes that it does not name."""

_LEAVES = (type(None), bool, int, str, bytes, complex, torch.dtype, torch.device, torch.layout, torch.memory_format)
_BY_VALUE = (*_LEAVES, torch.Size, enum.Enum, np.generic)
_BY_IDENTITY = (
    types.BuiltinFunctionType,
    types.ModuleType,
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
)
_BY_CONTENT = (
    *_BY_IDENTITY,
    *(Tensor, np.ndarray, list, tuple, Mapping, set, frozenset),
    *(functools.partial, types.MethodType, types.FunctionType),
)
_OWN = frozenset(vars(nn.Module())) - {"training"}
"""Attributes of every module: looked at one by one, or without influence on what is traced (hooks of backward passes
and of state dicts)."""
_BEFORE = ("__init__", "__new__", "__init_subclass__", "__repr__", "__getstate__", "__setstate__", "__deepcopy__")
"""Methods of a module that forward does not call."""


class _Named(NamedTuple):
    x: int


_SLOTS = (types.GetSetDescriptorType, types.MemberDescriptorType, type(vars(_Named)["x"]))
"""What classes have for attributes without a dictionary, the last one for those of named tuples."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


@dataclass(frozen=True, eq=False)
class _Same:
    """An object by identity, kept alive unless it can be referred to weakly (then one that is gone equals nothing)."""

    target: Any

    @staticmethod
    def of(value: Any) -> _Same:
        try:
            return _Same(weakref.ref(value))
        except TypeError:
            return _Same(lambda: value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.target() is not None and self.target() is other.target()

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class _Numbers:
    """A tensor by value; one on the device meta has none."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Numbers):
            return False
        a, b = self.tensor, other.tensor
        same_kind = (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape)
        return same_kind and (a.is_meta or torch.equal(a, b))

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Fingerprint:
    """See the module's text.

    Attributes:
        entries: what was found, by path (``block.0.training``).
        unknown: paths of what cannot be compared.
    """

    entries: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @staticmethod
    def of(model: nn.Module) -> Fingerprint:
        """Of a module as it is now."""
        return _Walk().model(model)

    def difference(self, later: Fingerprint) -> str | None:
        """The path of something that is not what it was; None where all that can be compared is equal."""
        unknown = set(self.unknown)
        for path in sorted(self.entries.keys() | later.entries.keys()):
            if not self._agrees(later, path) and not any(start in unknown for start in _starts(path)):
                return path
        return None

    def without(self, other: Fingerprint) -> Fingerprint:
        """This one, with what differs from ``other`` (what a call of the module itself writes) unknown."""
        paths = self.entries.keys() | other.entries.keys()
        wrote = {path for path in paths if not self._agrees(other, path)}
        return Fingerprint({k: v for k, v in self.entries.items() if k not in wrote}, [*self.unknown, *sorted(wrote)])

    def _agrees(self, other: Fingerprint, path: str) -> bool:
        return path in self.entries and path in other.entries and bool(self.entries[path] == other.entries[path])


def _starts(path: str) -> Iterator[str]:
    """The path, and those above it."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _settings() -> tuple[Any, ...]:
    with callers_device():
        return torch.get_default_dtype(), torch.get_default_device()


class _Walk:
    """One walk over a module: ``names`` are those that code mentions which ``forward`` may reach; ``waiting`` are
    attributes and methods that nothing has named so far."""

    def __init__(self) -> None:
        self.found = Fingerprint()
        self.names: set[str] = set()
        self.seen: dict[int, tuple[str, Any]] = {}
        self.waiting: list[tuple[str, str, Any, bool]] = []

    def model(self, model: nn.Module) -> Fingerprint:
        self.found.entries["torch's settings"] = _settings()
        if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
            self.found.unknown.append("hooks of all modules")
        self.module("", model)
        # An attribute counts where code names it, or may read it unnamed; what it holds may bring more code.
        counted = True
        while counted:
            waiting, self.waiting, counted = self.waiting, [], False
            everything = bool(self.names & _DYNAMIC)
            for path, name, value, named in waiting:
                if named or everything or name in self.names:
                    self.value(path, value)
                    counted = True
                else:
                    self.waiting.append((path, name, value, named))
        return self.found

    def module(self, path: str, module: nn.Module) -> None:
        if id(module) in self.seen:
            self.found.entries[path] = ("is", self.seen[id(module)][0])
            return
        self.seen[id(module)] = (path, module)
        prefix = f"{path}." if path else ""
        self.found.entries[path or "the module"] = _Same.of(module)
        self.type(f"{prefix}__class__", type(module))
        self.found.entries[f"{prefix}__class__.forward"] = _Same.of(
            inspect.getattr_static(type(module), "forward", None)
        )
        torchs, read = _trusted(type(module).__module__), _names(cast(type, type(module)))
        for kind in ("_parameters", "_buffers"):
            for name, tensor in vars(module)[kind].items():
                self.leaf(f"{prefix}{name}", tensor)
        for kind in _HOOKS:
            for number, hook in vars(module)[kind].items():
                self.value(f"{prefix}{kind}.{number}", hook)
        for name, child in vars(module)["_modules"].items():
            if child is None:
                self.found.entries[f"{prefix}{name}"] = None
            else:
                self.module(f"{prefix}{name}", child)
        for name, value in vars(module).items():
            if name not in _OWN:
                named = name in read or (name != "training" and (torchs or hasattr(type(module), name)))
                self.waiting.append((f"{prefix}{name}", name, value, named))

    def leaf(self, path: str, tensor: Tensor | None) -> None:
        if tensor is None:
            self.found.entries[path] = None
            return
        first, _ = self.seen.setdefault(id(tensor), (path, tensor))
        self.found.entries[path] = (first, type(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.layout)

    def value(self, path: str, value: Any) -> None:
        if isinstance(value, (*_BY_VALUE, float)):
            shown = value.hex() if isinstance(value, float) else value
            self.found.entries[path] = (type(value), shown)
            if id(value) not in self.seen and not _trusted(type(value).__module__):
                self.seen[id(value)] = (path, value)
                self.own(path, value)
        elif isinstance(value, nn.Module):
            self.module(path, value)
        elif isinstance(value, type):
            self.type(path, value)
        elif id(value) in self.seen:
            self.found.entries[path] = ("is", self.seen[id(value)][0])
        else:
            self.seen[id(value)] = (path, value)
            if hasattr(value, "__dict__") and not isinstance(value, _BY_CONTENT) and not _is_opaque(type(value)):
                self.object(path, value)
            else:
                self.container(path, value)
                if not isinstance(value, _BY_IDENTITY):
                    self.own(path, value)

    def object(self, path: str, value: Any) -> None:
        """An object by its attributes."""
        self.type(f"{path}.__class__", type(value))
        if _slots(type(value)):
            self.found.unknown.append(path)
        for name, part in vars(value).items():
            self.value(f"{path}.{name}", part)

    def own(self, path: str, value: Any) -> None:
        """Of somebody's own kind of number, text, container or function: its code, and what it has as attributes."""
        if not _trusted(type(value).__module__):
            self.type(f"{path}.__class__", type(value))
            if _slots(type(value)):
                self.found.unknown.append(path)
        for name, part in getattr(value, "__dict__", {}).items():
            self.waiting.append((f"{path}.{name}", name, part, False))

    def container(self, path: str, value: Any) -> None:
        entries = self.found.entries
        if isinstance(value, Tensor):
            entries[path] = _Numbers(value.detach().clone())
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            entries[path] = (value.dtype, value.shape, value.tobytes())
        elif isinstance(value, list | tuple):
            entries[path] = (_Same.of(type(value)), len(value))
            for position, part in enumerate(value):
                self.value(f"{path}.{position}", part)
        elif isinstance(value, Mapping):
            entries[path] = (_Same.of(type(value)), [key if isinstance(key, _LEAVES) else "?" for key in value])
            for position, (key, part) in enumerate(value.items()):
                self.value(f"{path}.{key}" if isinstance(key, str | int) else f"{path}.{position}", part)
                if not isinstance(key, _LEAVES):
                    self.value(f"{path}.key {position}", key)
        elif isinstance(value, set | frozenset) and all(isinstance(part, _LEAVES) for part in value):
            entries[path] = frozenset(value)
        elif isinstance(value, functools.partial):
            entries[path] = functools.partial
            for name, part in (("func", value.func), ("args", value.args), ("keywords", value.keywords)):
                self.value(f"{path}.{name}", part)
        elif isinstance(value, types.MethodType):
            entries[path] = types.MethodType
            self.value(f"{path}.__func__", value.__func__)
            self.value(f"{path}.__self__", value.__self__)
        elif isinstance(value, types.FunctionType):
            entries[path] = _Same.of(value.__code__)
            self.function(path, value)
        elif isinstance(value, _BY_IDENTITY):
            entries[path] = _Same.of(value)
            if isinstance(value, types.ModuleType) and not _trusted(value.__name__):
                self.found.unknown.append(path)
        else:
            self.found.unknown.append(path)

    def type(self, path: str, cls: type) -> None:
        """A class, by identity and by the code of those in it that are not torch's."""
        self.found.entries[path] = _Same.of(cls)
        if id(cls) in self.seen or _trusted(cls.__module__):
            return
        self.seen[id(cls)] = (path, cls)
        unused = _BEFORE if issubclass(cls, nn.Module) else ()
        for base in (*cls.__mro__, *inspect.getmro(type(cls))):
            if _trusted(base.__module__):
                continue
            for name, member in vars(base).items():
                special = name.startswith("__")
                for part in _parts(member):
                    if isinstance(part, types.FunctionType) or not special:
                        called = name == "forward" or (special and name not in unused)
                        self.waiting.append((f"{path}.{name}", name, part, called))

    def function(self, path: str, function: types.FunctionType) -> None:
        """What a function reads besides its arguments."""
        if _trusted(function.__module__ or ""):
            return
        names = set(_mentioned(function.__code__))
        self.names |= names
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                self.found.unknown.append(f"{path}.{name}")
                continue
            if name != "__class__":  # what super() needs: a class of the module
                self.value(f"{path}.{name}", content)
        for name, default in (("__defaults__", function.__defaults__), ("__kwdefaults__", function.__kwdefaults__)):
            self.value(f"{path}.{name}", default)
        for name in sorted(names & function.__globals__.keys()):
            content = function.__globals__[name]
            if isinstance(content, types.ModuleType) and not _trusted(content.__name__):
                for attribute in sorted(names & vars(content).keys()):
                    self.value(f"{content.__name__}.{attribute}", vars(content)[attribute])
            else:
                self.value(f"{function.__module__}.{name}", content)


def _trusted(module: object) -> bool:
    """Whether a module of that name is Python's or torch's; some types of the interpreter have no name there."""
    return isinstance(module, str) and module.partition(".")[0] in _TRUSTED


def _slots(cls: type) -> bool:
    return any(getattr(base, "__slots__", ()) for base in cls.__mro__)


def _is_opaque(cls: type) -> bool:
    """Whether objects of a class of others may have more than attributes; torch's classes around modules have not."""
    return _trusted(cls.__module__) and not cls.__module__.startswith("torch.nn.")


def _parts(member: Any) -> Iterator[Any]:
    """The functions of an attribute of a class; other values are read as they are."""
    if isinstance(member, staticmethod | classmethod):
        yield member.__func__
    elif isinstance(member, property):
        yield from (function for function in (member.fget, member.fset) if function is not None)
    elif not isinstance(member, _SLOTS):
        yield member


def _mentioned(code: types.CodeType) -> Iterator[str]:
    """Names and texts in a function's code, and in what is defined in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, types.CodeType):
            yield from _mentioned(constant)


@functools.cache
def _names(cls: type) -> frozenset[str]:
    """Names in the code that a class of modules has from torch, up to ``nn.Module``."""
    found: set[str] = set()
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for name, member in vars(base).items() if _trusted(base.__module__) else ():
            for function in _parts(member):
                if isinstance(function, types.FunctionType) and name not in _BEFORE:
                    found |= set(_mentioned(function.__code__))
    return frozenset(found)
