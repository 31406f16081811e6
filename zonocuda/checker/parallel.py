"""Independent parts of a check in several processes, which begin as copies of this one; what is done is noted."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zonocuda.checker.journal import Arrays, Journal

T = TypeVar("T")

AHEAD = 2
"""Parts that wait for each process."""

_tasks: dict[int, Callable[[int], Any]] = {}
"""What the processes do, by a number; they are forked once it is here."""


def check_jobs(jobs: object) -> None:
    """Raises TypeError or ValueError unless it is a number of processes that can be had."""
    if isinstance(jobs, bool) or not isinstance(jobs, int):
        raise TypeError(f"check: jobs must be an integer, got {jobs!r}"[:200])
    if not 1 <= jobs <= 1024:
        raise ValueError(f"check: jobs must be from 1 to 1024, got {jobs}")
    if jobs > 1 and "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError("check: jobs must be 1 where processes cannot be forked")


def in_order(task: Callable[[int], T], count: int, jobs: int) -> Iterator[T]:
    """``task(0)``, ``task(1)``, ...: in this process, or in as many as ``jobs``, of which each works on one part.

    Raises:
        MemoryError: a process was killed.
    """
    jobs = min(jobs, count)
    if jobs <= 1:
        for k in range(count):  # no map, which a StopIteration of a task would end as if all were done
            yield task(k)
        return
    number = max(_tasks, default=0) + 1
    _tasks[number] = task
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _begin, (os.getpid(),))
    try:
        waiting: deque[Future[T]] = deque()
        for k in range(count):
            waiting.append(pool.submit(_run, number, k))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise MemoryError("a process of the check was killed") from error
    finally:
        pool.shutdown(cancel_futures=True)
        del _tasks[number]


@dataclass
class Work:
    """Batches of a check: how many processes share them, and where it is noted what is done.

    Attributes:
        name: of the part of the check that asks; what is noted is known by it, by how often that part asked before, and
            by what it asked.
    """

    jobs: int = 1
    journal: Journal | None = None
    name: str = ""
    asked: int = field(default=0, init=False)

    def part(self, name: str) -> Work:
        """The work of a part of the check."""
        return Work(self.jobs, self.journal, f"{self.name}{name}.")

    def each(self, task: Callable[[int], Arrays], count: int, topic: Callable[[], bytes]) -> Iterator[Arrays]:
        """``task(0)``, ``task(1)``, ...: of those that are not noted, as :func:`in_order` says. ``topic`` tells what
        is asked for."""
        journal = self.journal
        self.asked += 1
        if journal is None:
            yield from in_order(task, count, self.jobs)
            return
        about = hashlib.sha256(topic()).hexdigest()
        names = [f"{self.name}{self.asked}.{about}.{count}.{k}" for k in range(count)]
        known = [journal.known(name) for name in names]
        missing = [k for k, found in enumerate(known) if found is None]
        fresh = in_order(lambda n: task(missing[n]), len(missing), self.jobs)
        for name, held in zip(names, known, strict=True):
            found = held
            if found is None:
                found = next(fresh)
                journal.note(name, found)
            yield found


def _begin(parent: int) -> None:
    """A process says nothing of signals, which are its parent's, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(number: int, k: int) -> Any:
    return _tasks[number](k)
