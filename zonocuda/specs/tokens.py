"""The usual commands of VNN-LIB 1.0 in bulk: declarations, comparisons of a variable, and disjunctions of conjunctions.

Nothing here says what is wrong with a file. What is not of these forms is left to the reader of single tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.specs.decimals import Decimals, read_decimals

CHUNK = 1 << 19
"""Bytes that are looked at together."""

Ints = NDArray[np.int32]

_SPACE, _OPEN, _CLOSE, _WORD, _VARIABLE, _NUMBER, _COMPARISON, _ATOM, _DECLARED, _TERM, _ASSERTED = range(11)
_KEYWORDS = {b"assert": 11, b"and": 12, b"or": 13, b"declare-const": 14, b"Real": 15, b"-": 16}
_ASSERT, _AND, _OR, _DECLARE, _REAL, _MINUS = _KEYWORDS.values()
_COMPARISONS = {b"<=": 0, b">=": 1, b"<": 2, b">": 3}

_CLASS = np.full(256, _WORD, dtype=np.uint8)
_CLASS[list(b" \t\n\r\f\v")] = _SPACE
_CLASS[ord("(")], _CLASS[ord(")")] = _OPEN, _CLOSE
_STARTS_NUMBER = np.isin(np.arange(256), list(b"+-.0123456789"))


@dataclass(frozen=True, eq=False)
class Atoms:
    """Comparisons ``left op right`` in the order of the file.

    Attributes:
        operator: ``[A]``: 0 ``<=``, 1 ``>=``, 2 ``<``, 3 ``>``.
        left, right: ``[A]``: 2 i for X_i, 2 i + 1 for Y_i, -1 - k for number k.
        numbers: the numbers.
    """

    operator: NDArray[np.int8]
    left: Ints
    right: Ints
    numbers: Decimals


@dataclass(frozen=True, eq=False)
class Commands:
    """A file's commands.

    Attributes:
        declared: variables as in ``Atoms.left``, in order.
        atoms: the comparisons of the commands that were read.
        common: ``[C]`` atoms that are asserted.
        asserted_at: ``[C]`` places in the text of their assertions.
        terms: for each disjunction that is asserted, its place, and the first atoms and the lengths of its terms.
        rest: the text with what was read replaced by spaces; empty where nothing is left.
    """

    declared: Ints
    atoms: Atoms
    common: Ints
    asserted_at: Ints
    terms: tuple[tuple[int, Ints, Ints], ...]
    rest: bytes


@dataclass(frozen=True, eq=False)
class _Stream:
    """Tokens: their kinds, their places in the text, where they end, numbers that say which they are, and of
    conjunctions how many comparisons they are of (1 for other tokens)."""

    kind: NDArray[np.int8]
    begin: Ints
    end: Ints
    value: Ints
    size: Ints

    def kept(self, keep: NDArray[np.bool_]) -> _Stream:
        return _Stream(*(getattr(self, name)[keep] for name in _COLUMNS))

    @staticmethod
    def joined(parts: list[_Stream]) -> _Stream:
        """All tokens, one part after the other; empties the list, so that no token is held twice."""
        stop = sum(len(part.kind) for part in parts)
        begin, end, value, size = (np.empty(stop, dtype=np.int32) for _ in range(4))
        whole = _Stream(np.empty(stop, dtype=np.int8), begin, end, value, size)
        while parts:
            part = parts.pop()
            start = stop - len(part.kind)
            for name in _COLUMNS:
                getattr(whole, name)[start:stop] = getattr(part, name)
            stop = start
        return whole

    def matches(self, *kinds: int) -> NDArray[np.int64]:
        """Where tokens of these kinds follow each other."""
        count = len(self.kind) - len(kinds) + 1
        if count <= 0:
            return np.zeros(0, dtype=np.int64)
        found = np.ones(count, dtype=bool)
        for offset, kind in enumerate(kinds):
            found &= self.kind[offset : offset + count] == kind
        return np.flatnonzero(found)


_COLUMNS = tuple(field.name for field in fields(_Stream))


def read_commands(data: bytes) -> Commands | None:
    """The commands of an ASCII text without comments; None where it is not of the form that is read here."""
    if b'"' in data or b"|" in data:
        return None
    text = np.frombuffer(data, dtype=np.uint8)
    streams: list[_Stream] = []
    parts: list[tuple[Any, Any, Any]] = []
    decimals: list[Decimals] = []
    begin = atoms = numbers = 0
    while begin < len(data):
        # No comparison is cut: none of those that are folded holds a parenthesis.
        end = data.rfind(b"\n(", begin, begin + CHUNK) + 1 or data.find(b")", begin + CHUNK) + 1 or len(data)
        part = _chunk(text, begin, end, atoms, numbers)
        if part is None:
            return None
        stream, found, read = part
        streams.append(stream)
        parts.append(found)
        decimals.append(read)
        atoms += len(found[0])
        numbers += len(read.mantissa)
        begin = end
    stream = _Stream.joined(streams)
    operator, left, right = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()
    joined = Decimals.joined(decimals)
    decimals.clear()
    return _commands(text, stream, Atoms(operator, left, right, joined))


def _chunk(
    text: NDArray[np.uint8], first: int, last: int, atoms: int, numbers: int
) -> tuple[_Stream, tuple[Any, Any, Any], Decimals] | None:
    """The tokens of a part of the text, with one for a comparison, a declaration, an assertion of a comparison."""
    char = text[first:last]
    kind_of_char = _CLASS[char]
    is_word = kind_of_char == _WORD
    edge = np.diff(is_word.view(np.int8), prepend=0, append=0)
    starts = edge[:-1] == 1
    begin = np.flatnonzero(starts | (kind_of_char == _OPEN) | (kind_of_char == _CLOSE))
    kind = kind_of_char[begin].astype(np.int8)
    length = np.ones(len(begin), dtype=np.int64)
    words = np.flatnonzero(kind == _WORD)
    length[words] = np.flatnonzero(edge == -1) - begin[words]
    value = np.zeros(len(begin), dtype=np.int32)
    _name_words(char, begin, length, kind, value, words)
    numeric = np.flatnonzero(kind == _NUMBER)
    read = read_decimals(char, begin[numeric], length[numeric])
    if read is None:
        return None
    value[numeric] = -1 - numbers - np.arange(len(numeric), dtype=np.int32)
    places, stops = (first + begin).astype(np.int32), (first + begin + length).astype(np.int32)
    stream = _Stream(kind, places, stops, value, np.ones(len(begin), dtype=np.int32))
    at = stream.matches(_OPEN, _MINUS, _NUMBER, _CLOSE)
    if len(at):
        read = read.negated(-1 - value[at + 2] - numbers)
        keep = np.ones(len(kind), dtype=bool)
        _fold(stream, keep, at, 4, _NUMBER, value[at + 2])
        stream = stream.kept(keep)
        kind, value = stream.kind, stream.value
    at = stream.matches(_OPEN, _COMPARISON)
    at = at[at + 4 < len(kind)]
    operand = (kind == _VARIABLE) | (kind == _NUMBER)
    at = at[operand[at + 2] & operand[at + 3] & (kind[at + 4] == _CLOSE)]
    at = at[(value[at + 2] >= 0) | (value[at + 3] >= 0)]
    at = at[value[at + 2] != value[at + 3]]
    found = value[at + 1].astype(np.int8), value[at + 2], value[at + 3]
    keep = np.ones(len(kind), dtype=bool)
    _fold(stream, keep, at, 5, _ATOM, np.arange(atoms, atoms + len(at), dtype=np.int32))
    at = stream.matches(_OPEN, _DECLARE, _VARIABLE, _REAL, _CLOSE)
    _fold(stream, keep, at, 5, _DECLARED, value[at + 2])
    stream = stream.kept(keep)
    keep = np.ones(len(stream.kind), dtype=bool)
    at = stream.matches(_OPEN, _ASSERT, _ATOM, _CLOSE)
    _fold(stream, keep, at, 4, _ASSERTED, stream.value[at + 2])
    return _conjunctions(stream.kept(keep)), found, read


def _name_words(
    char: NDArray[np.uint8],
    begin: NDArray[np.int64],
    length: NDArray[np.int64],
    kind: NDArray[np.int8],
    value: Ints,
    words: NDArray[np.int64],
) -> None:
    """Says of words whether they are variables, numbers, comparisons or keywords."""
    first = char[begin[words]]
    second = char[np.minimum(begin[words] + 1, len(char) - 1)]
    named = ((first == ord("X")) | (first == ord("Y"))) & (second == ord("_")) & (length[words] >= 3)
    variables = words[named & (length[words] <= 11)]
    index, is_number = np.zeros(len(variables), dtype=np.int64), np.ones(len(variables), dtype=bool)
    for k in range(2, int(length[variables].max(initial=0))):
        there = length[variables] > k
        digit = char[np.minimum(begin[variables] + k, len(char) - 1)] - np.uint8(48)
        is_number &= ~there | (digit < 10)
        index = np.where(there, index * 10 + digit, index)
    is_number &= (length[variables] == 3) | (char[np.minimum(begin[variables] + 2, len(char) - 1)] != ord("0"))
    is_number &= index < 2**29
    chosen = variables[is_number]
    kind[chosen] = _VARIABLE
    value[chosen] = 2 * index[is_number] + (char[begin[chosen]] == ord("Y"))
    kind[words[_STARTS_NUMBER[first] & ~((length[words] == 1) & ~((first >= 48) & (first < 58)))]] = _NUMBER
    others = words[kind[words] == _WORD]
    for word, code in (*_KEYWORDS.items(), *_COMPARISONS.items()):
        chosen = others[length[others] == len(word)]
        for k, letter in enumerate(word):
            chosen = chosen[char[begin[chosen] + k] == letter]
        is_comparison = word in _COMPARISONS
        kind[chosen], value[chosen] = (_COMPARISON, code) if is_comparison else (code, 0)


def _fold(
    stream: _Stream, keep: NDArray[np.bool_], at: NDArray[np.int64], count: int, kind: int, value: NDArray[Any]
) -> None:
    """Makes one token of ``count`` that follow each other, at every place ``at``."""
    stream.end[at] = stream.end[at + count - 1]
    stream.kind[at], stream.value[at] = kind, value
    for offset in range(1, count):
        keep[at + offset] = False


def _conjunctions(stream: _Stream) -> _Stream:
    """With one token for each conjunction of comparisons: its value is the first one's number."""
    ands = stream.matches(_OPEN, _AND)
    if not len(ands):
        return stream
    closes = np.flatnonzero(stream.kind == _CLOSE)
    where = np.searchsorted(closes, ands)
    ands, where = ands[where < len(closes)], where[where < len(closes)]
    close = closes[where]
    other = np.zeros(len(stream.kind) + 1, dtype=np.int32)
    np.cumsum(stream.kind != _ATOM, dtype=np.int32, out=other[1:])
    plain = (close > ands + 2) & (other[close] == other[np.minimum(ands + 2, len(stream.kind))])
    ands, close = ands[plain], close[plain]
    removed = np.zeros(len(stream.kind) + 1, dtype=np.int8)
    removed[ands + 1] += 1
    removed[close + 1] -= 1
    stream.size[ands] = close - ands - 2
    stream.value[ands] = stream.value[ands + 2]
    stream.end[ands] = stream.end[close]
    stream.kind[ands] = _TERM
    return stream.kept(np.cumsum(removed[:-1], dtype=np.int8) == 0)  # they do not nest: 0 or 1


def _commands(text: NDArray[np.uint8], stream: _Stream, atoms: Atoms) -> Commands | None:
    """Assertions of a whole text, whose comparisons and declarations are one token each, and most conjunctions."""
    stream = _conjunctions(stream)  # that were cut
    stream.kind[stream.kind == _ATOM] = _TERM
    size = stream.size
    depth = np.cumsum((stream.kind == _OPEN).view(np.int8) - (stream.kind == _CLOSE).view(np.int8), dtype=np.int32)
    if len(depth) and (depth.min() < 0 or depth[-1] != 0):
        return None
    declared = np.flatnonzero(stream.kind == _DECLARED)
    single = np.flatnonzero(stream.kind == _ASSERTED)
    asserts = np.flatnonzero((stream.kind == _ASSERT) | (stream.kind == _ASSERTED))
    if (
        (depth[declared] != 0).any()
        or (depth[single] != 0).any()
        or (len(declared) and len(asserts) and declared[-1] > asserts[0])
    ):
        return None
    covered = np.zeros(len(stream.kind) + 1, dtype=np.int8)
    for alone in (declared, single):
        covered[alone] += 1
        covered[alone + 1] -= 1
    at = stream.matches(_OPEN, _ASSERT, _TERM, _CLOSE)
    at = at[depth[at] == 1]
    covered[at] += 1
    covered[at + 4] -= 1
    common, asserted_at = _listed(
        np.concatenate([stream.value[single], stream.value[at + 2]]),
        np.concatenate([np.ones(len(single), dtype=np.int32), size[at + 2]]),
        np.concatenate([stream.begin[single], stream.begin[at]]),
    )
    order = np.argsort(asserted_at, kind="stable")
    common, asserted_at = common[order], asserted_at[order]
    terms = []
    for start in stream.matches(_OPEN, _ASSERT, _OPEN, _OR).tolist():
        if depth[start] != 1:
            continue
        stop = start + 4 + int(np.argmax(stream.kind[start + 4 :] != _TERM))
        if stop == start + 4 or stop + 1 >= len(stream.kind) or (stream.kind[stop : stop + 2] != _CLOSE).any():
            continue
        terms.append((int(stream.begin[start]), stream.value[start + 4 : stop], size[start + 4 : stop]))
        covered[start] += 1
        covered[stop + 2] -= 1
    left = np.cumsum(covered[:-1], dtype=np.int32) == 0
    rest = b""
    if left.any():
        if _asks_before(text, stream, left):
            return None
        blank = np.zeros(len(text) + 1, dtype=np.int8)
        np.add.at(blank, stream.begin[~left], 1)
        np.add.at(blank, stream.end[~left], -1)
        is_blank = (np.cumsum(blank[:-1], dtype=np.int32) > 0) & (text != ord("\n"))
        rest = np.where(is_blank, np.uint8(32), text).tobytes()
    return Commands(stream.value[declared], atoms, common, asserted_at, tuple(terms), rest)


def _asks_before(text: NDArray[np.uint8], stream: _Stream, left: NDArray[np.bool_]) -> bool:
    """Whether something was read behind the first command that may end what the file asks."""
    read = np.flatnonzero(~left)
    if not len(read):
        return False
    before = text[: int(stream.begin[read[-1]])].tobytes()
    return b"check-sat" in before or b"exit" in before


def _listed(first: Ints, size: Ints, place: Ints) -> tuple[Ints, Ints]:
    """The atoms of conjunctions, one after the other, each with the place of its conjunction."""
    total = int(size.sum())
    offset = np.repeat(np.cumsum(size) - size, size)
    return (np.repeat(first, size) + np.arange(total) - offset).astype(np.int32), np.repeat(place, size)
