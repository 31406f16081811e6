"""What runs tasks: a protocol of four calls, which local processes and clusters have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Shared:
    """A value that :meth:`Executor.put` gave to all workers; as an argument of a task it stands for the value."""

    number: int


@dataclass(frozen=True)
class Done:
    """The end of a task.

    Attributes:
        task: its number, as :meth:`Executor.submit` returned it.
        value: what the function returned; None where there is an ``error``.
        error: why there is no value; empty where there is.
        is_late: whether the task was stopped at its limit.
        lost: why workers of attempts before this one ended.
    """

    task: int
    value: Any = None
    error: str = ""
    is_late: bool = False
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """Something happened that is no result.

    Attributes:
        kind: ``started`` a task, or ``lost`` the worker of one.
        task: the task's number.
        worker: the worker's number.
        text: why it was lost.
    """

    kind: str
    task: int
    worker: int
    text: str = ""


class Executor(Protocol):
    """Runs functions in other processes.

    A function is one that a worker can import, its arguments and what it returns can be pickled. A task whose worker is
    lost is tried once more, when no other runs; every task that was submitted and not cancelled is in
    :meth:`as_completed` once.
    """

    def put(self, value: object) -> object:
        """Hands a value to all workers, once; what it returns stands for the value as an argument of tasks."""

    def submit(self, function: Callable[..., Any], *arguments: object, limit: float | None = None) -> int:
        """Adds a task; its number.

        Args:
            function, arguments: what to call.
            limit: seconds after which the worker is stopped, and the task ends as late.
        """

    def as_completed(self) -> Iterator[Done]:
        """The tasks as they end, until none is left; tasks may be added and cancelled meanwhile."""

    def cancel(self, task: int) -> None:
        """Drops a task, and stops it if it runs; it never comes out of :meth:`as_completed`."""


class WorkerStartError(OSError):
    """Workers end before they can take a task."""
