"""Tasks on a Ray cluster (``pip install 'zonocuda[ray]'``): the one that RAY_ADDRESS names, or one on this machine.

The package must be installed on every node, and paths must name the same files there. Ray's own retries are off: a task
whose worker or node is lost is tried once more when no other runs, as everywhere, so that results say so.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from zonocuda.executors.protocol import Done, Notice, Shared, Task, Waiting, WhenLost
from zonocuda.executors.serve import call

_PATIENCE = 1.0
"""Seconds after which the cluster's size is looked at again."""


@dataclass
class _Running:
    task: Task
    slot: int
    until: float


_prepared = False


def _run(prepare: Callable[[], object], function: Callable[..., Any], *arguments: object) -> tuple[str, object]:
    """A task in a worker of Ray, which is made ready before its first."""
    global _prepared
    if not _prepared:
        prepare()
        _prepared = True
    return call(function, arguments, {})


class RayExecutor:
    """An :class:`~zonocuda.executors.protocol.Executor` on Ray; leaving its ``with`` block cancels what still runs.

    Args:
        cpus: that each task takes.
        gpus: that each task takes.
        memory: bytes that each task takes of its node's; None for none in particular. Ray does not enforce it.
        jobs: the most tasks at once; by default as many as the cluster has CPUs, and GPUs, for.
        prepare: is called in each worker before its first task.
        notify: is told what happens.
        init: arguments of ``ray.init``, where Ray is not connected yet.

    Raises:
        ImportError: there is no Ray.
    """

    def __init__(
        self,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        memory: int | None = None,
        jobs: int | None = None,
        prepare: Callable[[], object] = dict,
        notify: Callable[[Notice], None] = lambda notice: None,
        init: dict[str, Any] | None = None,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("the executor ray needs Ray: pip install 'zonocuda[ray]'") from error
        self._ray = ray
        self._starts = not ray.is_initialized()
        if self._starts:
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            ray.init(**{"log_to_driver": False, "logging_level": "error", "include_dashboard": False, **(init or {})})
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():  # Ray's own print a stack
                    signal.signal(number, handler)
        resources = {"num_cpus": cpus, "num_gpus": gpus, **({} if memory is None else {"memory": memory})}
        self._call = ray.remote(max_retries=0, max_calls=0, **resources)(_run)
        self._needs = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
        self._jobs = jobs
        self._prepare = ray.put(prepare)
        self._shared: list[Any] = []
        self._waiting = Waiting()
        self._running: dict[Any, _Running] = {}
        self.notify = notify

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels all tasks, and leaves the cluster if this executor joined it."""
        for reference in [*self._running]:
            self._stop(reference)
        self._waiting.clear()
        if self._starts:
            self._ray.shutdown()

    # ---- the four calls ----------------------------------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """See :class:`Executor`: what the cluster has room for now."""
        return self._slots()

    @property
    def address(self) -> str:
        """See :class:`Executor`."""
        return str(self._ray.util.get_node_ip_address())

    def put(self, value: object) -> Shared:
        """See :class:`Executor`: once in the object store."""
        self._shared.append(self._ray.put(value))
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
        for reference in [r for r, running in self._running.items() if running.task.number == task]:
            self._stop(reference)

    def as_completed(self) -> Iterator[Done]:
        """See :class:`Executor`."""
        while self._waiting or self._running:
            self._hand_out()
            until = min((running.until for running in self._running.values()), default=math.inf)
            patience = max(0.0, min(_PATIENCE, until - time.monotonic()))
            ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=patience) if self._running else ([], [])
            if not self._running:
                time.sleep(_PATIENCE)  # the cluster has no room at all now
            now = time.monotonic()
            late = [r for r, running in self._running.items() if running.until <= now and r not in ready]
            for reference in (*ready, *late):
                if reference not in self._running:  # cancelled by who got the last one
                    continue
                done = self._end(reference) if reference in ready else self._stop_late(reference)
                if done is not None:
                    yield done

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def _slots(self) -> int:
        """How many tasks the cluster has room for now."""
        there = self._ray.cluster_resources()
        slots = min((int(there.get(name, 0.0) / amount) for name, amount in self._needs.items()), default=1)
        return slots if self._jobs is None else min(slots, self._jobs)

    def _hand_out(self) -> None:
        slots, waiting = self._slots(), self._waiting
        while waiting.first and len(self._running) < slots:
            self._start(waiting.first.popleft())
        if waiting.alone and slots and not waiting.first and not self._running:
            self._start(waiting.alone.popleft())

    def _start(self, task: Task) -> None:
        taken = {running.slot for running in self._running.values()}
        slot = next(slot for slot in range(1, len(taken) + 2) if slot not in taken)
        until = math.inf if task.limit is None else time.monotonic() + task.limit
        given = [self._shared[a.number] if isinstance(a, Shared) else a for a in task.arguments]
        self._running[self._call.remote(self._prepare, task.function, *given)] = _Running(task, slot, until)
        self.notify(Notice("started", task.number, slot))

    def _end(self, reference: Any) -> Done | None:
        running = self._running.pop(reference)
        task = running.task
        try:
            error, value = self._ray.get(reference)
            return task.done(value, error)
        except self._ray.exceptions.RayTaskError as fault:  # of what prepares, or of pickling
            why = f"{type(fault.cause or fault).__name__}: {' '.join(str(fault.cause or fault).split())}"
            return task.done(None, why[:2000])
        except self._ray.exceptions.RayError as fault:
            why = f"the worker was lost ({type(fault).__name__})"
        self.notify(Notice("lost", task.number, running.slot, why))
        return self._waiting.lose(task, why)

    def _stop_late(self, reference: Any) -> Done:
        task = self._running[reference].task
        self._stop(reference)
        return task.late()

    def _stop(self, reference: Any) -> None:
        del self._running[reference]
        self._ray.cancel(reference, force=True)
