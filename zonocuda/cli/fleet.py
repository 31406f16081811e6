"""``zonocuda run``, ``compare`` and ``report``: many instances, and what came of them. Torch is left to the workers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from zonocuda.cli.live import LiveTable
from zonocuda.cli.output import Outputs, printable
from zonocuda.cli.program import children
from zonocuda.executors.protocol import Executor, Notice
from zonocuda.fleet.compare import KINDS, Pair, cactus, comparison, paired, read_results
from zonocuda.fleet.compare_page import comparison_page
from zonocuda.fleet.page import page
from zonocuda.fleet.record import ERROR, VERDICTS, Job, Record
from zonocuda.fleet.runner import Plan, execute, local_executor, make_plan, ray_executor
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.store import JOURNAL, TABLE, latest, read_records

FAILED = 1
SHOWN = 5
"""The slowest, the undecided and the failed that a summary names."""
WITHIN = (1.0, 10.0, 100.0)
"""Seconds for which a comparison says how many are decided."""


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
        how = options.jobs, options.worker_memory, options.device, notify
        executor: Executor
        if options.executor == "ray":
            executor = stack.enter_context(ray_executor(*how))
        else:
            executor = stack.enter_context(local_executor(plan, *how, children))
        for record in execute(plan, executor, jobs):
            records.append(record)
            if table is not None:
                table.record(record)
            elif not options.quiet:
                outputs.say(_line(record))
    outputs.say(*map(printable, summary(plan, records, time.monotonic() - started)))
    return FAILED if any(not record.has_verdict for record in records) else 0


def compare(options: argparse.Namespace, outputs: Outputs) -> int:
    """``zonocuda compare FIRST SECOND``; 1 where the two contradict each other, else 0."""
    pairs = paired(*(read_results(Path(given)) for given in (options.first, options.second)))
    names = options.first, options.second
    outputs.say(*map(printable, compared(names, pairs)))
    outputs.write("--json", lambda: json.dumps(comparison(names, pairs), indent=1, allow_nan=False) + "\n")
    outputs.write("--html", lambda: comparison_page(names, pairs).encode("utf-8", "backslashreplace"))
    return FAILED if any(pair.kind == "contradiction" for pair in pairs) else 0


def compared(names: Sequence[str], pairs: Sequence[Pair]) -> Iterator[str]:
    """Verdicts that differ, contradictions first; then totals, and how many are decided in what time."""
    for pair in pairs:
        if pair.kind != "same":
            verdicts = " / ".join("absent" if r is None else r.verdict for r in (pair.first, pair.second))
            seconds = " / ".join("-" if r is None else f"{r.seconds:.2f}" for r in (pair.first, pair.second))
            yield f"{pair.kind:<15} {verdicts:<21} {' '.join(pair.name)}  {seconds} s"
    kinds = Counter(pair.kind for pair in pairs)
    yield f"{len(pairs)} instances: " + ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    for name, results in zip(names, ([p.first for p in pairs], [p.second for p in pairs]), strict=True):
        known = [result for result in results if result is not None]
        counts = Counter(result.verdict for result in known)
        times = cactus(known)
        within = ", ".join(f"{sum(t <= limit for t in times)} in {limit:g} s" for limit in WITHIN)
        total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        yield f"{name}: {total}; decided {within}, {len(times)} in all, {sum(times):.1f} s together"


def report(options: argparse.Namespace, outputs: Outputs) -> int:
    """``zonocuda report DIR``."""
    folder = Path(options.folder)
    if not (folder / JOURNAL).is_file():
        raise ValueError(f"{folder}: holds no {JOURNAL}, which run --out writes")
    records = list(latest(read_records(folder)).values())
    outputs.write("--html", lambda: page(folder, records).encode("utf-8", "backslashreplace"))
    outputs.say(f"{len(records)} instances in {printable(options.html)}")
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    settings = Settings.of_options(vars(options), options.certificates)
    if options.certificates and options.out is None:
        raise ValueError("--certificates: needs --out, where they are written to")
    if settings.device == "cuda" or "16" in settings.semantics or settings.ulp:
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
