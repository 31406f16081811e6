"""What runs tasks: a protocol of four calls, which local processes and clusters have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

WhenLost = Literal["alone", "end"]
"""What becomes of a task whose worker is lost: it is tried once more when no other runs, or it ends."""


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
        is_lost: whether it ended with its worker.
    """

    task: int
    value: Any = None
    error: str = ""
    is_late: bool = False
    lost: tuple[str, ...] = ()
    is_lost: bool = False


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

    A function is one that a worker can import, its arguments and what it returns can be pickled. Every task that was
    submitted and not cancelled is in :meth:`as_completed` once.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at once, about."""

    @property
    def address(self) -> str:
        """Where workers reach this process: a name or number of this machine."""

    def put(self, value: object) -> object:
        """Hands a value to all workers, once; what it returns stands for the value as an argument of tasks."""

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: object,
        limit: float | None = None,
        when_lost: WhenLost = "alone",
    ) -> int:
        """Adds a task; its number.

        Args:
            function: what to call.
            arguments: of the function.
            limit: seconds after which the worker is stopped, and the task ends as late.
            when_lost: what becomes of it if its worker is lost.
        """

    def as_completed(self) -> Iterator[Done]:
        """The tasks as they end, until none is left; tasks may be added and cancelled meanwhile."""

    def cancel(self, task: int) -> None:
        """Drops a task, and stops it if it runs; it never comes out of :meth:`as_completed`."""


class WorkerStartError(OSError):
    """Workers end before they can take a task."""


@dataclass
class Task:
    """A task that has not ended.

    Attributes:
        number, function, arguments, limit, when_lost: as :meth:`Executor.submit` was told.
        lost: why workers that had it ended.
    """

    number: int
    function: Callable[..., Any]
    arguments: tuple[object, ...]
    limit: float | None
    when_lost: WhenLost
    lost: list[str] = field(default_factory=list)

    def done(self, value: object, error: str) -> Done:
        """It ended by itself."""
        return Done(self.number, value, error, lost=tuple(self.lost))

    def late(self) -> Done:
        """It was stopped at its limit."""
        return Done(self.number, error=f"it was stopped after {self.limit:g} s", is_late=True, lost=tuple(self.lost))


class Waiting:
    """The tasks of an executor that no worker has: ``first`` come first, those that are to be ``alone`` after all."""

    def __init__(self) -> None:
        self.first: deque[Task] = deque()
        self.alone: deque[Task] = deque()
        self._submitted = 0

    def __bool__(self) -> bool:
        return bool(self.first or self.alone)

    def add(
        self, function: Callable[..., Any], arguments: tuple[object, ...], limit: float | None, when_lost: WhenLost
    ) -> int:
        """A new task; its number."""
        self._submitted += 1
        self.first.append(Task(self._submitted, function, arguments, limit, when_lost))
        return self._submitted

    def drop(self, number: int) -> None:
        """A task is cancelled."""
        self.first = deque(task for task in self.first if task.number != number)
        self.alone = deque(task for task in self.alone if task.number != number)

    def clear(self) -> None:
        """All are cancelled."""
        self.first.clear()
        self.alone.clear()

    def lose(self, task: Task, why: str) -> Done | None:
        """What the loss of a task's worker means: another attempt, or the end."""
        if task.lost or task.when_lost == "end":
            error = f"{why}, also alone" if task.lost else why
            return Done(task.number, error=error, lost=tuple(task.lost), is_lost=True)
        task.lost.append(why)
        self.alone.append(task)
        return None
