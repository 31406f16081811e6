"""A table on the terminal that follows a run: what is done, what each worker is at, and how long it may still take."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zonocuda.cli.output import printable
from zonocuda.executors.protocol import Notice
from zonocuda.fleet.record import VERDICTS, Job, Record
from zonocuda.fleet.runner import Plan

COLOURS = {"verified": "green", "falsified": "red", "unknown": "yellow", "timeout": "yellow", "error": "magenta"}


class LiveTable:
    """Shown from ``with`` to its end, drawn anew twice a second.

    Args:
        plan: what is run.
        jobs: by the executor's numbers.
    """

    def __init__(self, plan: Plan, jobs: dict[int, Job]) -> None:
        self._jobs = jobs
        self._total = len(plan.jobs)
        self._counts = Counter(record.verdict for record in plan.finished)
        self._before = len(plan.finished)
        self._at: dict[int, tuple[int, float]] = {}
        self._names: dict[int, str] = {}
        self._started = time.monotonic()
        self._lock = threading.Lock()  # rich draws in a thread of its own
        self._console = Console(stderr=True)
        self._live = Live(get_renderable=self.drawing, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def notice(self, event: Notice) -> None:
        """A task that began, or that lost its worker."""
        with self._lock:
            job = self._jobs[event.task]
            self._at = {worker: at for worker, at in self._at.items() if at[0] != event.task}
            if event.kind == "started":
                self._at[event.worker] = (event.task, time.monotonic())
            self._names[event.task] = str(job.instance)
        if event.kind == "lost":
            self._console.print(Text(printable(f"{event.text}, at {job.instance}"), style="magenta"))

    def record(self, record: Record) -> None:
        """An instance that ended."""
        with self._lock:
            self._counts[record.verdict] += 1
            name = f"{record.net} {record.spec}"
            self._at = {worker: at for worker, at in self._at.items() if self._names[at[0]] != name}

    def drawing(self) -> Group:
        """What is shown now."""
        with self._lock:
            counts, at = self._counts.copy(), dict(self._at)
        done, now = counts.total(), time.monotonic()
        fresh, elapsed = done - self._before, now - self._started
        line = Text(f"{done:,} of {self._total:,} done")
        for verdict in VERDICTS:
            if counts[verdict]:
                line.append(f"  {counts[verdict]:,} {verdict}", COLOURS[verdict])
        if fresh:
            left = timedelta(seconds=round((self._total - done) * elapsed / fresh))
            line.append(f"  {fresh / elapsed:.2f}/s, about {left} left")
        table = Table(box=None, pad_edge=False)
        for name, justify in (("worker", "right"), ("seconds", "right"), ("instance", "left")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for worker, (task, since) in sorted(at.items()):
            table.add_row(str(worker), f"{now - since:.1f}", Text(printable(self._names[task])))
        return Group(line, table)
