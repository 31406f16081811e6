"""Tasks in processes of this machine, which start once and stay warm.

Each worker has a socket of its own, so that one that dies takes nothing with it but its task: no queue is shared, and
no lock. It is a new interpreter, not a fork, in a session of its own (a terminal's Ctrl-C does not reach it), which
ends when its parent does (:mod:`zonocuda.executors.serve`).
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from zonocuda.executors.protocol import Done, Notice, Shared, Task, Waiting, WhenLost, WorkerStartError
from zonocuda.executors.serve import receive, send

_FAILED_STARTS = 5
"""Workers in a row that may end before they are ready."""


@dataclass(eq=False)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    log: IO[bytes]
    is_ready: bool = False
    has_started: bool = False
    task: Task | None = None
    until: float = math.inf
    known: set[int] = field(default_factory=set)


class LocalExecutor:
    """An :class:`~zonocuda.executors.protocol.Executor` of processes; leave its ``with`` block to end them.

    Args:
        jobs: how many processes at once.
        prepare: is called in each before its first task.
        logs: folder for what workers write to their standard error; None for none.
        pids: is kept equal to the processes' ids.
        notify: is told what happens.

    Raises:
        ValueError: no positive number of jobs.

    Examples:
        >>> import operator
        >>> with LocalExecutor(1) as executor:
        ...     task = executor.submit(operator.neg, 3)
        ...     [done.value for done in executor.as_completed()]
        [-3]
    """

    def __init__(
        self,
        jobs: int,
        *,
        prepare: Callable[[], object] = dict,
        logs: Path | None = None,
        pids: set[int] | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
    ) -> None:
        if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
            raise ValueError(f"jobs must be a positive integer, got {jobs!r}")
        self.jobs = jobs
        self.notify = notify
        self._prepare = prepare
        self._logs = logs
        self._pids = set[int]() if pids is None else pids
        self._workers: list[_Worker] = []
        self._waiting = Waiting()
        self._shared: list[object] = []
        self._started = self._failed_starts = 0

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes, and drops all tasks."""
        self._waiting.clear()
        while self._workers:
            self._end(self._workers[-1])

    # ---- the four calls ----------------------------------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """See :class:`Executor`."""
        return self.jobs

    @property
    def address(self) -> str:
        """See :class:`Executor`."""
        return "127.0.0.1"

    def put(self, value: object) -> Shared:
        """See :class:`Executor`."""
        self._shared.append(value)
        return Shared(len(self._shared) - 1)

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: object,
        limit: float | None = None,
        when_lost: WhenLost = "alone",
    ) -> int:
        """See :class:`Executor`."""
        return self._waiting.add(function, arguments, limit, when_lost)

    def cancel(self, task: int) -> None:
        """See :class:`Executor`."""
        self._waiting.drop(task)
        for worker in [w for w in self._workers if w.task is not None and w.task.number == task]:
            self._end(worker)

    def as_completed(self) -> Iterator[Done]:
        """See :class:`Executor`.

        Raises:
            WorkerStartError: several workers in a row ended before they could take a task.
        """
        while self._waiting or any(w.task for w in self._workers):
            self._start_workers()
            self._hand_out()
            patience = min((w.until for w in self._workers), default=math.inf) - time.monotonic()
            ready = wait([w.connection for w in self._workers], None if patience == math.inf else max(0.0, patience))
            for worker in list(self._workers):
                if worker not in self._workers:  # its task was cancelled by who got the last one
                    continue
                done = self._hear(worker) if worker.connection in ready else self._stop_if_late(worker)
                if done is not None:
                    yield done

    # ---- workers -----------------------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        busy = sum(w.task is not None for w in self._workers)
        wanted = min(self.jobs, len(self._waiting.first) + busy) or 1  # one where all that is left must be alone
        while len(self._workers) < wanted:
            self._start()

    def _start(self) -> None:
        self._started += 1
        number = self._started
        if self._logs is None:
            log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the worker)
        else:
            log = (self._logs / f"worker-{os.getpid()}-{number}.log").open("w+b")
        ours, theirs = socket.socketpair()
        with theirs:
            program = (
                f"import sys; sys.path[:] = {sys.path!r}; from zonocuda.executors.serve import serve; "
                f"serve({theirs.fileno()}, {os.getpid()})"
            )
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", program],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                log.close()
                raise
        self._pids.add(process.pid)
        worker = _Worker(number, process, Connection(ours.detach()), log)
        self._workers.append(worker)
        with contextlib.suppress(OSError):  # it has died: so says its socket, too
            send(worker.connection, self._prepare)

    def _end(self, worker: _Worker, has_died: bool = False) -> str:
        """Stops a worker; why it had ended, if it had."""
        self._workers.remove(worker)
        worker.connection.close()
        self._pids.discard(worker.process.pid)  # before it is waited for: then its number may be another's
        if has_died:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its socket is closed before its exit code is set
                worker.process.wait(timeout=5.0)
        worker.process.kill()
        code = worker.process.wait()
        with worker.log as log:
            if code == -signal.SIGKILL:
                return "was killed (signal 9), by the system where memory ran out"
            if code < 0:
                return (
                    f"was ended by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
                )
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 2000))
            lines = log.read().decode(errors="replace").strip().splitlines()
            return f"ended with exit code {code}" + (f": {lines[-1][:300]}" if lines else "")

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.is_ready and worker.task is None and self._waiting.first:
                self._give(worker, self._waiting.first)
        if self._waiting.alone and not self._waiting.first and not any(w.task for w in self._workers):
            for worker in self._workers[1:]:  # their memory, too, is in the way
                self._end(worker)
            if self._workers and self._workers[0].is_ready:
                self._give(self._workers[0], self._waiting.alone)

    def _give(self, worker: _Worker, tasks: deque[Task]) -> None:
        """Hands a worker the first of some tasks, which stays where it is if the worker has died."""
        task = tasks[0]
        try:
            for argument in task.arguments:
                if isinstance(argument, Shared) and argument.number not in worker.known:
                    worker.known.add(argument.number)
                    send(worker.connection, ("put", argument.number, self._shared[argument.number]))
            send(worker.connection, ("task", task.number, task.function, task.arguments))
        except OSError:
            worker.is_ready = False  # it has died: so says its socket, next
            return
        tasks.popleft()
        worker.task = task
        worker.until = math.inf if task.limit is None else time.monotonic() + task.limit
        self.notify(Notice("started", task.number, worker.number))

    def _hear(self, worker: _Worker) -> Done | None:
        try:
            message = receive(worker.connection)
        except (EOFError, OSError):
            return self._lose(worker)
        if message[0] == "ready":
            worker.is_ready = worker.has_started = True
            self._failed_starts = 0
            return None
        _, number, error, value = message
        task, worker.task, worker.until = worker.task, None, math.inf
        if task is None or task.number != number:
            raise RuntimeError(f"worker {worker.number} answered task {number}, which it was not given")
        return task.done(value, error)

    def _lose(self, worker: _Worker) -> Done | None:
        """What a worker's death means for its task: another attempt, or the end."""
        task = worker.task
        why = f"the worker {self._end(worker, has_died=True)}"
        if not worker.has_started:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise WorkerStartError(f"workers cannot start: {why}")
        if task is None:
            return None
        self.notify(Notice("lost", task.number, worker.number, why))
        return self._waiting.lose(task, why)

    def _stop_if_late(self, worker: _Worker) -> Done | None:
        task = worker.task
        if task is None or time.monotonic() < worker.until:
            return None
        self._end(worker)
        return task.late()
