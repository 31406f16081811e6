"""Values as JSON and arrays, and back by their type hints.

A value is None, a truth value, a number, a text, a fraction, a dtype, a tensor, an array, a dataclass, or a sequence or
a mapping of values. What is read is made by the type that is asked for, field by field: nothing in a file names a class
or a function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Put = Callable[[NDArray[np.generic]], object]
"""Keeps an array, and returns what stands for it."""
Get = Callable[[object], NDArray[Any]]
"""The array that something stands for; raises ValueError where there is none."""
T = TypeVar("T")

_DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
LONGEST = 10_000
"""Digits of a fraction, at most."""


class CodecError(ValueError):
    """What is read is no such value; the message is one line."""


def encode(value: Any, put: Put) -> Any:
    """What stands for a value in a JSON document; its arrays are put elsewhere.

    Raises:
        TypeError: a value of another kind.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Tensor):
        held = value.detach().cpu().contiguous()
        return put((held.float() if held.dtype is torch.bfloat16 else held).numpy())
    if isinstance(value, np.ndarray):
        return put(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name), put) for f in dataclasses.fields(value) if f.init}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return [[encode(key, put), encode(held, put)] for key, held in value.items()]
    if isinstance(value, Sequence):
        return [encode(held, put) for held in value]
    raise TypeError(f"encode: {type(value).__name__} is not supported")


def digest(value: Any) -> str:
    """SHA-256 of all that a value holds."""

    def put(values: NDArray[np.generic]) -> object:
        held = np.asarray(values, order="C")
        return [held.dtype.str, list(held.shape), hashlib.sha256(held.tobytes()).hexdigest()]

    return hashlib.sha256(json.dumps(encode(value, put)).encode()).hexdigest()


def decode(kind: type[T], document: object, get: Get) -> T:
    """The value of a type that a document stands for.

    Raises:
        CodecError: it stands for none.
    """
    result: T = _decode(kind, document, get, kind.__name__)
    return result


def alike(value: object, like: object) -> bool:
    """Whether two dataclasses of tensors, one row of each for a thing, have fields of the same types and widths, each
    with as many rows as the others."""
    lengths = set()
    for f in dataclasses.fields(value):  # type: ignore[arg-type]
        one, other = getattr(value, f.name), getattr(like, f.name)
        if one.ndim < 1 or one.dtype != other.dtype or one.shape[1:] != other.shape[1:]:
            return False
        lengths.add(len(one))
    return len(lengths) == 1


def moved(value: T, device: torch.device) -> T:
    """The same with every tensor on a device."""
    held: Any = value
    if isinstance(held, Tensor):
        held = held.to(device)
    elif dataclasses.is_dataclass(held) and not isinstance(held, type):
        fields = (f.name for f in dataclasses.fields(held) if f.init)
        held = dataclasses.replace(held, **{name: moved(getattr(held, name), device) for name in fields})
    elif isinstance(held, Mapping):
        held = {key: moved(one, device) for key, one in held.items()}
    elif isinstance(held, tuple):
        held = tuple(moved(one, device) for one in held)
    result: T = held
    return result


def _decode(hint: Any, document: Any, get: Get, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (kind,) = (one for one in arguments if one is not type(None))
        return None if document is None else _decode(kind, document, get, place)
    if hint in (bool, int, str):
        return _expect(document, type(document) is hint, hint.__name__, place)
    if hint is float:
        if isinstance(document, str) and document in _NUMBERS:
            return _NUMBERS[document]
        return float(_expect(document, type(document) in (int, float), "number", place))
    if hint is Fraction:
        return _fraction(document, place)
    if hint is torch.dtype:
        return _DTYPES[_expect(document, isinstance(document, str) and document in _DTYPES, "dtype", place)]
    if hint is Tensor or hint is np.ndarray or origin is np.ndarray:
        try:
            held = get(document)
        except ValueError as error:
            raise CodecError(f"{place}: {error}") from error
        return torch.from_numpy(held.copy()) if hint is Tensor else held
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, document, get, place)
    if origin is not None and issubclass(origin, Mapping):
        pairs = [_expect(p, isinstance(p, list) and len(p) == 2, "pair", place) for p in _list(document, place)]
        key, kind = arguments
        return {_decode(key, k, get, place): _decode(kind, v, get, f"{place}[{str(k)[:40]!r}]") for k, v in pairs}
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        held = _expect(document, isinstance(document, list) and len(document) == len(arguments), "list", place)
        return tuple(_decode(kind, one, get, place) for kind, one in zip(arguments, held, strict=True))
    if origin is not None and issubclass(origin, Sequence):
        return tuple(_decode(arguments[0], one, get, place) for one in _list(document, place))
    raise TypeError(f"decode: {hint} is not supported")


def _dataclass(kind: Any, document: Any, get: Get, place: str) -> Any:
    hints = _hints(kind)
    names = {"is", *hints}
    _expect(document, isinstance(document, dict) and document.keys() == names, kind.__name__, place)
    _expect(document, document["is"] == kind.__name__, kind.__name__, place)
    return kind(**{name: _decode(hint, document[name], get, f"{place}.{name}") for name, hint in hints.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _list(document: Any, place: str) -> list[Any]:
    held: list[Any] = _expect(document, isinstance(document, list), "list", place)
    return held


def _fraction(document: Any, place: str) -> Fraction:
    _expect(document, isinstance(document, str) and len(document) <= LONGEST, "fraction", place)
    above, _, below = document.partition("/")
    digits = above.removeprefix("-")
    right = all(part.isascii() and part.isdigit() for part in (digits, below or "1")) and int(below or "1") > 0
    _expect(document, right, "fraction", place)
    return Fraction(int(above), int(below or "1"))


def _expect(document: Any, right: bool, what: str, place: str) -> Any:
    if not right:
        raise CodecError(f"{place} holds no {what}")
    return document
