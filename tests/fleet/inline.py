"""An executor in this process, and outcomes that no verifier made: for tests of what a run does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from zonocuda.executors.protocol import Done, Shared, WhenLost
from zonocuda.fleet.digest import file_sha256, network_sha256
from zonocuda.fleet.outcome import Outcome
from zonocuda.fleet.settings import Settings


class InlineExecutor:
    """Runs the tasks one after the other, as they are asked for.

    Args:
        instead: is called in the place of each task's function.
    """

    def __init__(self, instead: Callable[..., Any] | None = None) -> None:
        self.instead = instead
        self.tasks: dict[int, tuple[Callable[..., Any], tuple[object, ...], float | None]] = {}
        self.ended: dict[int, Done] = {}
        self.shared: list[object] = []
        self.count = 0

    @property
    def workers(self) -> int:
        return 1

    def put(self, value: object) -> Shared:
        self.shared.append(value)
        return Shared(len(self.shared) - 1)

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: object,
        limit: float | None = None,
        when_lost: WhenLost = "alone",
    ) -> int:
        self.count += 1
        self.tasks[self.count] = (function, arguments, limit)
        return self.count

    def as_completed(self) -> Iterator[Done]:
        while self.tasks:
            task = next(iter(self.tasks))
            function, arguments, _ = self.tasks.pop(task)
            if task in self.ended:
                yield self.ended[task]
                continue
            given = [self.shared[a.number] if isinstance(a, Shared) else a for a in arguments]
            yield Done(task, (self.instead or function)(*given))

    def cancel(self, task: int) -> None:
        self.tasks.pop(task, None)


def verdict_in_the_property(net: str, spec: str, timeout: float | None, settings: Settings) -> Outcome:
    """What the property's file says: a verdict, or ``error`` and why."""
    from pathlib import Path

    word, _, why = Path(spec).read_text().strip().partition(" ")
    digests = network_sha256(Path(net)), file_sha256(Path(spec))
    if word == "error":
        return Outcome(*digests, error=why)
    return Outcome(
        *digests,
        verdict=word,
        reason=f"as {Path(spec).name} says",
        meaning="nothing",
        margin=0.5 if word == "verified" else None,
        phases={"forward": 0.25},
        loading=0.125,
        seconds=0.5,
        document="{}\n",
        counterexample="sat\n((X_0 1.0)\n(Y_0 1.0))\n" if word == "falsified" else "",
        certificate=b"proof" if settings.certificates else b"",
    )
