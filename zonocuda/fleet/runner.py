"""Runs a list of instances: what is to be done, what is done already, and the results as they come."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zonocuda.executors.local import LocalExecutor
from zonocuda.executors.protocol import Done, Executor, Notice
from zonocuda.fleet.digest import file_sha256, network_sha256
from zonocuda.fleet.instances import Given, check_seconds, read_instances
from zonocuda.fleet.outcome import Outcome
from zonocuda.fleet.record import ERROR, Job, Record
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.store import LOGS, Store

if TYPE_CHECKING:
    from zonocuda.executors.on_ray import RayExecutor

EXECUTORS = ("local", "ray")
GRACE = 120.0
"""Seconds that a worker has for the files, and to end by itself, before it is stopped."""

TABLE_SECONDS = 5.0
"""Between two times that the table of results is written."""


@dataclass(frozen=True)
class Plan:
    """What a run is about.

    Attributes:
        jobs: all of them, each once.
        finished: of those that need not be run again, the records, in the order of the jobs.
        category: what the list is called.
        store: where results go; None for nowhere.
    """

    jobs: tuple[Job, ...]
    finished: tuple[Record, ...]
    category: str
    store: Store | None

    @property
    def left(self) -> list[Job]:
        """The jobs without a record."""
        done = {record.key for record in self.finished}
        return [job for job in self.jobs if job.key not in done]


def make_plan(given: Given, settings: Settings, timeout: float | None, out: str | Path | None, resume: bool) -> Plan:
    """Reads the list and the files' digests, and what is done already.

    An instance is done where its record is of the same files by name and content, the same seconds and settings, and
    has a verdict; one that failed to run is tried again.

    Raises:
        ValueError, OSError: a list, a file or a folder that cannot be used.
    """
    if resume and out is None:
        raise ValueError("to resume, a run needs the folder of results (--out)")
    instances = read_instances(given)
    seconds = None if timeout is None else check_seconds(timeout, "timeout")
    of_network, of_file = cache(network_sha256), cache(file_sha256)
    jobs = tuple(
        Job(one, _finite(one.timeout if seconds is None else seconds), of_network(one.net), of_file(one.spec), settings)
        for one in instances
    )
    named: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if job.names in named:
            raise ValueError(f"{job.instance}: is listed twice, with different time limits or files")
        named[job.names] = job
    store = None if out is None else Store(Path(out), resume)
    done = {} if store is None else {record.key: record for record in store.records if record.has_verdict}
    finished = tuple(done[job.key] for job in jobs if job.key in done)
    category = Path(given).resolve() if isinstance(given, str | Path) else Path("instances")
    return Plan(jobs, finished, category.parent.name if category.is_file() else category.name, store)


def _finite(seconds: float | None) -> float | None:
    return None if seconds == math.inf else seconds


def execute(plan: Plan, executor: Executor, named: dict[int, Job] | None = None) -> Iterator[Record]:
    """The records of the jobs that are left, as they end; with a store, each is on the disk before it comes.

    Args:
        plan: the jobs.
        executor: what runs them.
        named: gets the jobs by the executor's numbers of tasks.
    """
    from_task = {} if named is None else named
    records = {record.key: record for record in plan.finished}

    def write_table(store: Store) -> float:
        store.write_table(plan.category, (records[job.key] for job in plan.jobs if job.key in records))
        return time.monotonic()

    written = 0.0
    if plan.left:
        settings = executor.put(plan.left[0].settings)
        for job in plan.left:
            limit = None if job.timeout is None else 2 * job.timeout + GRACE
            net, spec = (str(path.resolve()) for path in (job.instance.net, job.instance.spec))
            from_task[executor.submit(_decide, net, spec, job.timeout, settings, limit=limit)] = job
        for done in executor.as_completed():
            job = from_task[done.task]
            record = _record(job, done, plan.store)
            records[job.key] = record
            if plan.store is not None:
                plan.store.add(record)
                if time.monotonic() > written + TABLE_SECONDS:
                    written = write_table(plan.store)
            yield record
    if plan.store is not None:
        write_table(plan.store)


def _decide(*arguments: Any) -> Any:
    from zonocuda.fleet.work import decide  # in the worker alone: it loads torch

    return decide(*arguments)


def _prepare(threads: int, memory: int | None) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # which is read as torch is loaded
    from zonocuda.fleet.work import prepare

    prepare(threads, memory)


def _record(job: Job, done: Done, store: Store | None) -> Record:
    """The record of a task's end, whose files are written first."""
    record = Record(
        job.key,
        job.name,
        *job.names,
        job.net_sha256,
        job.spec_sha256,
        job.timeout,
        job.settings.to_json(),
        ERROR,
        done.error,
        lost=done.lost,
        finished=time.time(),
    )
    if done.is_late:
        assert job.timeout is not None
        reason = f"not decided within {job.timeout:g} s, and it did not end by itself: {done.error}"
        return replace(record, verdict="timeout", reason=reason, meaning="nothing is known", seconds=job.timeout)
    outcome: Outcome = done.value
    if done.error or outcome.error:  # no value where there is an error of the task
        return replace(record, reason=done.error or outcome.error)
    if (outcome.net_sha256, outcome.spec_sha256) != (job.net_sha256, job.spec_sha256):
        return replace(record, reason="the network or the property changed while the run was under way")
    files = {}
    if store is not None:
        files["result"] = store.save("documents", f"{job.name}.json", outcome.document.encode())
        if outcome.counterexample:
            files["counterexample"] = store.save("counterexamples", f"{job.name}.txt", outcome.counterexample.encode())
        if outcome.certificate:
            files["certificate"] = store.save("certificates", f"{job.name}.zip", outcome.certificate)
    return replace(
        record,
        verdict=outcome.verdict,
        reason=outcome.reason,
        meaning=outcome.meaning,
        margin=outcome.margin,
        seconds=outcome.seconds,
        loading=outcome.loading,
        phases=outcome.phases,
        splits=outcome.splits,
        files=files,
    )


# ---- the face in Python ----------------------------------------------------------------------------------------------


def default_jobs(device: str) -> int:
    """One worker a core; one where there is a GPU to share."""
    shares_gpu = device != "cpu" and os.path.exists("/dev/nvidia0")
    return 1 if shares_gpu else len(os.sched_getaffinity(0))


def default_memory(jobs: int) -> int | None:
    """Bytes for each of so many workers: an equal part of what is free; None where the system does not say."""
    from zonocuda.host_memory import free_host_memory

    free = free_host_memory()
    return None if free is None else max(1, free // jobs)


def default_threads(workers: int) -> int:
    """Threads of each of so many workers: an equal part of the cores, and no more than OMP_NUM_THREADS asks for."""
    part = max(1, len(os.sched_getaffinity(0)) // workers)
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(part, max(1, int(asked))) if asked.isdecimal() else part


def local_executor(
    plan: Plan, jobs: int | None, memory: int | None, device: str, notify: Callable[[Notice], None], pids: set[int]
) -> LocalExecutor:
    """Processes of this machine for a plan: no more than there is to do."""
    workers = max(1, min(jobs or default_jobs(device), len(plan.left)))
    logs = None if plan.store is None else plan.store.folder / LOGS
    prepare = partial(_prepare, default_threads(workers), memory or default_memory(workers))
    return LocalExecutor(workers, prepare=prepare, logs=logs, notify=notify, pids=pids)


def ray_executor(jobs: int | None, memory: int | None, device: str, notify: Callable[[Notice], None]) -> RayExecutor:
    """Ray's workers, each with a GPU where the device is one, on one thread where not."""
    from zonocuda.executors.on_ray import RayExecutor

    gpus = 1.0 if device == "cuda" else 0.0
    return RayExecutor(gpus=gpus, memory=memory, jobs=jobs, prepare=partial(_prepare, 1, None), notify=notify)


def search_executor(
    kind: Literal["local", "ray"],
    workers: int | None,
    device: str,
    notify: Callable[[Notice], None],
    pids: set[int] | None = None,
) -> LocalExecutor | RayExecutor:
    """What shares one search out: so many workers, or as :func:`run` has them by default."""
    if kind == "ray":
        return ray_executor(workers, None, device, notify)
    count = workers or default_jobs(device)
    return LocalExecutor(count, prepare=partial(_prepare, default_threads(count), None), notify=notify, pids=pids)


def run(
    instances: Given,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    timeout: float | None = None,
    resume: bool = False,
    executor: Executor | Literal["local", "ray"] = "local",
    worker_memory: int | None = None,
    certificates: bool = False,
    notify: Callable[[Notice], None] = lambda notice: None,
    **options: Any,
) -> Iterator[Record]:
    """Verifies many instances, each in one of several warm processes; yields their records as they end.

    Args:
        instances: a list's file, a folder, ``module:function``, or instances
            (:func:`~zonocuda.fleet.instances.read_instances`).
        out: folder for results (docs/fleet.md); None for none.
        jobs: how many processes; by default one a core, or one where a GPU is to be shared.
        timeout: seconds for each, instead of the list's own; None for those, inf for no limit.
        resume: whether to go on with the results in ``out``, whose records come first.
        executor: ``local`` processes, ``ray``, or an executor, which stays open.
        worker_memory: bytes that a worker may take beyond what it has when it is loaded; by default an equal part of
            what is free.
        certificates: whether proofs leave certificates in ``out``.
        notify: is told when a task starts, and when a worker is lost.
        options: ``device``, ``dtype``, ``backend``, ``direction``, ``memory_budget``, ``seed``, ``effort``,
            ``semantics``, ``split``, ``leaf`` and ``ulp`` of :func:`zonocuda.verify`.

    Returns:
        An iterator; closing it ends the workers.

    Raises:
        ValueError, TypeError, OSError: arguments, lists, files or folders that cannot be used; at the call.

    Examples:
        >>> instance = ("examples/networks/fc.onnx", "examples/specs/fc_10_0.04.vnnlib", 60)
        >>> [record.verdict for record in run([instance], jobs=1)]
        ['verified']
    """
    from zonocuda.fleet.work import check_settings

    settings = Settings.of({**options, "certificates": certificates})
    check_settings(settings)
    for name, value in (("jobs", jobs), ("worker_memory", worker_memory)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"run: {name} must be a positive integer, or None, got {value!r}")
    if isinstance(executor, str) and executor not in EXECUTORS:
        raise ValueError(f"run: executor must be one of {', '.join(EXECUTORS)}, or an Executor, got {executor!r}")
    plan = make_plan(instances, settings, timeout, out, resume)

    def records() -> Iterator[Record]:
        with ExitStack() as stack:
            if plan.store is not None:
                stack.callback(plan.store.close)
            yield from plan.finished
            if executor == "local":
                local = local_executor(plan, jobs, worker_memory, settings.device, notify, set())
                yield from execute(plan, stack.enter_context(local))
            elif executor == "ray":
                on_ray = ray_executor(jobs, worker_memory, settings.device, notify)
                yield from execute(plan, stack.enter_context(on_ray))
            else:
                yield from execute(plan, executor)

    return records()
