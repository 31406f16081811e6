"""The lemmas of a search by signs of neurons, shared out: what a worker does with some rows of a layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from zonocuda.checkpoint import moved
from zonocuda.executors import Executor
from zonocuda.prove.lemma_pieces import LemmaPiece, LemmaTrees
from zonocuda.prove.lemmas import bound_piece
from zonocuda.verifier.ground import CPU, Ground
from zonocuda.verifier.sharing import GRACE, HEAD, LEAST, PacketError


def bound_lemmas(ground: Ground, piece: LemmaPiece, seconds: float) -> LemmaTrees:
    """In a worker: bounds of a piece, whose trees stop growing when the seconds are up."""
    end = time.monotonic() + seconds
    with ground.settled():
        arithmetics = [ground.arithmetic(dtype) for dtype in ground.dtypes]
        boxes = [arithmetic.box(ground.region) for arithmetic in arithmetics]
        here = moved(piece, torch.device(ground.device))
        found = bound_piece(arithmetics, boxes, here, lambda node: None, lambda: time.monotonic() < end)
    return moved(found, CPU)


@dataclass
class LemmaHelpers:
    """The workers of an executor, as :class:`zonocuda.prove.lemma_pieces.Helpers`; nothing else may be in it.

    Attributes:
        executor: what runs the pieces.
        ground: what they are about.
        end: of a share of all time, by :func:`time.monotonic`.
        pieces, lost: how many came back, and how many workers lost.
    """

    executor: Executor
    ground: Ground
    end: Callable[[float], float] = lambda share: 0.0
    pieces: int = 0
    lost: int = 0
    _shared: object = field(default=None)

    @property
    def count(self) -> int:
        """How many pieces they can be at at once."""
        return max(1, self.executor.workers)

    def __call__(self, pieces: Sequence[LemmaPiece], share: float) -> Iterator[tuple[int, LemmaTrees | None]]:
        """What comes of pieces, as they end; None where a worker was lost.

        Raises:
            PacketError: a worker that was not lost has failed.
        """
        if self._shared is None:
            self._shared = self.executor.put(self.ground)
        seconds = max(LEAST, self.end(share) - time.monotonic())
        numbers = {}
        for number, piece in enumerate(pieces):
            given = bound_lemmas, self._shared, moved(piece, CPU), seconds
            numbers[self.executor.submit(*given, limit=seconds + GRACE, when_lost="end")] = number
        try:
            for done in self.executor.as_completed():
                number = numbers.pop(done.task)
                if done.error:
                    if not (done.is_lost or done.is_late or "MemoryError" in done.error):
                        raise PacketError(f"a worker failed: {done.error}")
                    self.lost += 1
                    yield number, None
                    continue
                self.pieces += 1
                yield number, moved(done.value, torch.device(self.ground.device))
        finally:
            for task in numbers:
                self.executor.cancel(task)


def helping(helpers: LemmaHelpers | None, begin: float, end: Callable[[float], float]) -> LemmaHelpers | None:
    """The helpers of a search that began at ``begin``, once it has lasted; until the ``end`` of a share of the time."""
    if helpers is None or time.monotonic() < begin + HEAD:
        return None
    helpers.end = end
    return helpers
