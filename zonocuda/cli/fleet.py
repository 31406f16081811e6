"""``zonocuda run``, ``compare`` and ``report``: many instances, and what came of them. Torch is left to the workers."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from zonocuda.cli.live import LiveTable
from zonocuda.cli.output import Outputs, printable
from zonocuda.cli.program import children
from zonocuda.fleet.executor import Notice
from zonocuda.fleet.record import ERROR, VERDICTS, Job, Record
from zonocuda.fleet.runner import Plan, execute, local_executor, make_plan
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.store import JOURNAL, TABLE

FAILED = 1
SHOWN = 5
"""The slowest, the undecided and the failed that a summary names."""


def run(options: argparse.Namespace, outputs: Outputs) -> int:
    """``zonocuda run INSTANCES``; 0 where every instance got a verdict, else 1."""
    settings = _settings(options)
    plan = make_plan(options.instances, settings, options.timeout, options.out, options.resume)
    started = time.monotonic()
    records = list(plan.finished)
    jobs: dict[int, Job] = {}
    with ExitStack() as stack:
        if plan.store is not None:
            stack.callback(plan.store.close)
        if plan.finished:
            outputs.say(f"{len(plan.finished)} of {len(plan.jobs)} are done already")
        shows_table = sys.stderr.isatty() and sys.stdout.isatty() and not options.quiet
        table = stack.enter_context(LiveTable(plan, jobs)) if shows_table else None
        notify = _tell(outputs, jobs) if table is None else table.notice
        executor = local_executor(plan, options.jobs, options.worker_memory, options.device, notify, children)
        stack.enter_context(executor)
        for record in execute(plan, executor, jobs):
            records.append(record)
            if table is not None:
                table.record(record)
            elif not options.quiet:
                outputs.say(_line(record))
    outputs.say(*map(printable, summary(plan, records, time.monotonic() - started)))
    return FAILED if any(not record.has_verdict for record in records) else 0


def _settings(options: argparse.Namespace) -> Settings:
    settings = Settings(
        options.device,
        options.dtype,
        options.backend,
        options.direction,
        options.memory_budget,
        options.seed,
        options.effort,
        options.semantics,
        options.split,
        options.certificates,
    )
    if options.certificates and options.out is None:
        raise ValueError("--certificates: needs --out, where they are written to")
    if settings.device == "cuda" or "16" in settings.semantics:
        from zonocuda.fleet.work import check_settings  # with torch, to say why not

        check_settings(settings)
    return settings


def _tell(outputs: Outputs, jobs: dict[int, Job]) -> Callable[[Notice], None]:
    """Lost workers as plain lines."""

    def notice(event: Notice) -> None:
        if event.kind == "lost":
            outputs.say(printable(f"{event.text}, at {jobs[event.task].instance}"))

    return notice


def _line(record: Record) -> str:
    reason = "" if record.has_verdict else f": {record.reason}"
    return printable(f"{record.verdict:<9} {record.seconds:8.2f} s  {record.net} {record.spec}{reason}")


def summary(plan: Plan, records: Sequence[Record], seconds: float) -> Iterator[str]:
    """What came of all instances, and which deserve a look."""
    counts = Counter(record.verdict for record in records)
    named = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    yield f"{len(records)} instances: {named or 'none'}, in {seconds:.1f} s"
    slowest = sorted((r for r in records if r.has_verdict), key=lambda r: -r.seconds)
    undecided = [record for record in records if record.verdict in ("unknown", "timeout")]
    failed = [record for record in records if record.verdict == ERROR]
    if len(slowest) > 1:
        yield from _named("slowest", slowest[:SHOWN], len(slowest[:SHOWN]), lambda r: f"{r.seconds:.2f} s, {r.verdict}")
    yield from _named("undecided", undecided[:SHOWN], len(undecided), lambda r: r.reason)
    yield from _named("failed", failed[:SHOWN], len(failed), lambda r: r.reason)
    if plan.store is not None:
        yield f"results in {plan.store.folder}: {JOURNAL}, {TABLE}; zonocuda report {plan.store.folder} makes a page"


def _named(title: str, shown: Sequence[Record], count: int, why: Callable[[Record], str]) -> Iterator[str]:
    for record in shown:
        yield f"{title:<9} {record.net} {record.spec}: {why(record)}"
    if count > len(shown):
        yield f"{title:<9} and {count - len(shown)} more"
