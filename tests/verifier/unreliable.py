"""An executor in this process whose tasks end in any order, and of which some are lost."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from zonocuda.executors import Done, Shared, WhenLost


class Unreliable:
    """Runs one of the tasks that wait, by chance, whenever it is asked for one.

    Arguments and values are pickled on their way, as between processes.

    Args:
        seed: of the chance.
        loss: how many of the packets are lost, on average; none more than twice.
        workers: that it pretends to have.
    """

    def __init__(self, seed: int = 0, loss: float = 0.0, workers: int = 3) -> None:
        self.chance, self.loss, self.workers = random.Random(seed), loss, workers
        self.tasks: dict[int, tuple[Callable[..., Any], bytes]] = {}
        self.did: Counter[str] = Counter()  # by the name of the function
        self.shared: list[bytes] = []
        self.count = self.lost = self.ended = self.cancelled = 0

    def put(self, value: object) -> Shared:
        self.shared.append(pickle.dumps(value))
        return Shared(len(self.shared) - 1)

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: object,
        limit: float | None = None,
        when_lost: WhenLost = "alone",
    ) -> int:
        assert when_lost == "end"
        self.count += 1
        self.tasks[self.count] = function, pickle.dumps(arguments)
        return self.count

    def as_completed(self) -> Iterator[Done]:
        while self.tasks:
            task = self.chance.choice(sorted(self.tasks))
            function, arguments = self.tasks.pop(task)
            _, packet, *_ = pickle.loads(arguments)
            if getattr(packet, "losses", 0) < 2 and self.chance.random() < self.loss:
                self.lost += 1
                yield Done(task, error="the worker was lost", is_lost=True)
                continue
            given = [
                pickle.loads(self.shared[a.number]) if isinstance(a, Shared) else a for a in pickle.loads(arguments)
            ]
            value = pickle.loads(pickle.dumps(function(*given)))
            self.ended += 1
            self.did[function.__name__] += 1
            yield Done(task, value)

    def cancel(self, task: int) -> None:
        self.cancelled += self.tasks.pop(task, None) is not None
