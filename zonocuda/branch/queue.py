"""The open boxes of a search."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from zonocuda.branch.subproblems import Subproblems

MEMORY = 2**30
"""Bytes of open boxes that are held in memory."""


RUN = 4096
"""Boxes that go to a file together, at most, of those that are put back."""


class Queue:
    """Last in, first out, and among those that came together the least bound first: deep, so that it stays short.

    What takes more than ``memory`` bytes goes to a file, what came first first, without what is known of it.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.memory = memory
        self._chunks: list[Subproblems] = []  # in memory, all later than those in files
        self._files: list[_File] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._chunks)) + sum(file.count for file in self._files)

    @property
    def worst(self) -> float:
        """The smallest bound above a box, inf where there is none."""
        return min([chunk.worst for chunk in self._chunks] + [file.worst for file in self._files], default=math.inf)

    def push(self, boxes: Subproblems) -> None:
        """Adds boxes.

        Raises:
            MemoryError: they do not fit in memory, and cannot be written to a file.
        """
        if len(boxes):
            self._chunks.append(boxes.at(boxes.bound.argsort(descending=True, stable=True)))
            self._write()

    @property
    def boxes(self) -> list[Subproblems]:
        """All of them, those that come first last, without what is known of them."""
        return [*(file.read() for file in self._files), *(chunk.plain for chunk in self._chunks)]

    def put_back(self, boxes: Subproblems) -> None:
        """Adds boxes in the order in which they were in another queue."""
        for first in range(0, len(boxes), RUN):
            self._chunks.append(boxes.at(slice(first, first + RUN)).copy())
            self._write()

    def pop(self, count: int) -> Subproblems:
        """Takes ``count`` boxes, or as many as there are and of which as much is known."""
        if not self._chunks:
            file = self._files.pop()
            self._chunks.append(file.read())
            file.path.unlink()
        taken: list[Subproblems] = []
        while count and self._chunks and (not taken or self._chunks[-1].known.shape[1] == taken[0].known.shape[1]):
            chunk = self._chunks.pop()
            keep = max(0, len(chunk) - count)
            if keep:
                self._chunks.append(chunk.at(slice(keep)))
            taken.append(chunk.at(slice(keep, None)))
            count -= len(chunk) - keep
        return Subproblems.cat(taken)

    def _write(self) -> None:
        """Writes chunks to files while more than one is in memory, and they are too large."""
        held = sum(chunk.bytes for chunk in self._chunks)
        while held > self.memory and len(self._chunks) > 1:
            first = self._chunks.pop(0)
            held -= first.bytes
            try:
                if self._folder is None:
                    self._folder = tempfile.TemporaryDirectory(prefix="zonocuda-")
                self._files.append(_File.of(first, Path(self._folder.name) / f"{len(self._files)}.pt"))
            except (OSError, RuntimeError) as error:  # torch raises either
                raise MemoryError(f"queue: open boxes cannot be written to a file: {error}") from error


@dataclass(frozen=True)
class _File:
    """Boxes in a file."""

    path: Path
    count: int
    worst: float
    device: torch.device

    @staticmethod
    def of(boxes: Subproblems, path: Path) -> _File:
        """Written to ``path``."""
        plain = boxes.plain
        torch.save([getattr(plain, column.name).cpu().clone() for column in fields(plain)], path)
        return _File(path, len(boxes), boxes.worst, boxes.lower.device)

    def read(self) -> Subproblems:
        """What was written."""
        columns = torch.load(self.path, weights_only=True)
        return Subproblems(*(column.to(self.device) for column in columns))
