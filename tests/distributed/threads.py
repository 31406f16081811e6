"""Ranks that are threads of one process: the same calls, without processes to start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from zonocuda.ranks import Ranks

T = TypeVar("T")


class ThreadRanks(Ranks):
    """One of several threads."""

    def __init__(self, rank: int, board: list[Tensor], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.board, self.barrier = rank, len(board), board, barrier
        self._group = object()
        self.gathered: list[int] = []  # numbers of each rank, call by call

    def _gathered(self, x: Tensor) -> list[Tensor]:
        self.gathered.append(x.numel())
        self.board[self.rank] = x
        self.barrier.wait()
        parts = [part.clone() for part in self.board]
        self.barrier.wait()
        return parts

    def _broadcast(self, x: Tensor) -> None:
        x.copy_(self._gathered(x)[0])


def on_ranks(size: int, function: Callable[[Ranks], T]) -> list[T]:
    """What each of ``size`` ranks returns, in their order; where one fails, so do all."""
    barrier = threading.Barrier(size, timeout=60)
    board = [torch.empty(0)] * size

    def rank(number: int) -> T:
        try:
            with torch.no_grad():
                return function(ThreadRanks(number, board, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(rank, number) for number in range(size)]
    faults = [future.exception() for future in futures if future.exception() is not None]
    for fault in faults:
        if not isinstance(fault, threading.BrokenBarrierError):
            raise fault
    return [future.result() for future in futures]
