"""Local workers: every task ends once, with its own result, whichever workers die, and when."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import tasks
from zonocuda.executors.local import _FAILED_STARTS
from zonocuda.executors.protocol import Notice, WorkerStartError
from zonocuda.fleet import LocalExecutor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two() -> Iterator[LocalExecutor]:
    with LocalExecutor(2) as executor:
        yield executor


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_task_ends_once_with_its_own_value(two: LocalExecutor) -> None:
    shared = two.put(0.01)
    numbers = {two.submit(tasks.double, float(i)): 2.0 * i for i in range(40)}
    slow = two.submit(tasks.sleep, shared, "slept")
    done = list(two.as_completed())
    assert {d.task: d.value for d in done} == {**numbers, slow: "slept"}
    assert len(done) == 41
    assert not any(d.error or d.lost for d in done)


def test_workers_are_few_and_stay(two: LocalExecutor) -> None:
    for _ in range(2):
        for _ in range(8):
            two.submit(tasks.process)
        pids = {d.value for d in two.as_completed()}
        assert len(pids) <= 2
    assert two.submit(tasks.process)
    assert {d.value for d in two.as_completed()} <= pids


def test_an_error_is_the_tasks_own_and_the_worker_goes_on(two: LocalExecutor) -> None:
    bad, good = two.submit(tasks.fail, "no\nway"), two.submit(tasks.double, 4)
    found = {d.task: (d.value, d.error) for d in two.as_completed()}
    assert found == {bad: (None, "ValueError: no way"), good: (8, "")}


def test_a_lost_task_is_tried_once_more_alone(tmp_path: Path) -> None:
    notices: list[Notice] = []
    log = tmp_path / "log"
    with LocalExecutor(2, notify=notices.append) as two:
        lost = two.submit(tasks.die_once, signal.SIGKILL, tmp_path / "flag")
        for i in range(4):
            two.submit(tasks.log, log, f"task{i}", 0.05)
        done = {d.task: d for d in two.as_completed()}
    assert [n.task for n in notices if n.kind == "lost"] == [lost]
    assert [n.task for n in notices if n.kind == "started"][-1] == lost, "after all others"
    assert done[lost].value == "alive"
    assert done[lost].lost == ("the worker was killed (signal 9), by the system where memory ran out",)
    assert len(log.read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("function", "arguments", "why"),
    [
        (tasks.die, (signal.SIGKILL,), "was killed (signal 9)"),
        (tasks.die, (signal.SIGSEGV,), "was ended by SIGSEGV"),
        (tasks.leave, (), "ended with exit code 7: a last word"),
    ],
)
def test_a_task_that_kills_its_worker_twice_is_an_error_and_the_others_are_done(
    two: LocalExecutor, function: object, arguments: tuple[object, ...], why: str
) -> None:
    bad = two.submit(function, *arguments)  # type: ignore[arg-type]
    good = [two.submit(tasks.double, i) for i in range(6)]
    done = {d.task: d for d in two.as_completed()}
    assert [done[task].value for task in good] == [0, 2, 4, 6, 8, 10]
    assert why in done[bad].error
    assert done[bad].error.endswith("also alone")
    assert why in done[bad].lost[0]


def test_a_lost_task_that_is_not_to_be_tried_again_ends_and_says_so(two: LocalExecutor, tmp_path: Path) -> None:
    lost = two.submit(tasks.die_once, signal.SIGKILL, tmp_path / "flag", when_lost="end")
    good = two.submit(tasks.double, 1)
    done = {d.task: d for d in two.as_completed()}
    assert done[good].value == 2
    assert done[lost].is_lost
    assert "was killed" in done[lost].error
    assert done[lost].lost == ()


def test_a_task_beyond_its_limit_is_stopped_and_said_to_be_late(two: LocalExecutor) -> None:
    late, good = two.submit(tasks.sleep, 60.0, limit=0.2), two.submit(tasks.sleep, 0.0, "in time", limit=60.0)
    done = {d.task: d for d in two.as_completed()}
    assert (done[good].value, done[good].is_late) == ("in time", False)
    assert done[late].is_late
    assert done[late].error == "it was stopped after 0.2 s"


def test_cancelled_tasks_never_come_out(two: LocalExecutor) -> None:
    running, first = two.submit(tasks.sleep, 60.0), two.submit(tasks.double, 1)
    waiting = two.submit(tasks.sleep, 60.0)
    found = []
    for done in two.as_completed():
        found.append(done.task)
        two.cancel(running)
        two.cancel(waiting)
    assert found == [first]


def test_tasks_may_be_added_while_others_end(two: LocalExecutor) -> None:
    two.submit(tasks.double, 1)
    found = []
    for done in two.as_completed():
        found.append(done.value)
        if len(found) < 4:
            two.submit(tasks.double, done.value)
    assert found == [2, 4, 8, 16]


def test_workers_killed_at_random_moments_lose_and_confuse_nothing(seed: int) -> None:
    """Some tasks fail for good, where both attempts were killed: they say so, and no other task has their place.

    A kill follows a start that came after the last kill, so that not only workers that are starting are met.
    """
    chance = random.Random(seed)
    pids: set[int] = set()
    started: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()

    def kill() -> None:
        while started.get(timeout=60) is not None:  # at most one for each task that starts: the others get on
            time.sleep(chance.uniform(0.0, 0.05))
            now = sorted(tuple(pids))
            for pid in chance.sample(now, min(1, len(now))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for _ in range(max(chance.randrange(4), started.qsize())):
                if started.get(timeout=60) is None:
                    return

    killer = threading.Thread(target=kill)
    with LocalExecutor(2, pids=pids, notify=started.put) as executor:
        numbers = {executor.submit(tasks.sleep, chance.uniform(0.0, 0.05), i): i for i in range(60)}
        killer.start()
        try:
            done = list(executor.as_completed())
        finally:
            started.put(None)
            killer.join()
    assert sorted(d.task for d in done) == sorted(numbers), "nothing lost, nothing twice"
    for one in done:
        assert one.value == numbers[one.task] if not one.error else len(one.lost) == 1
    assert any(d.lost for d in done), "no worker was killed at work: the test shows nothing"
    assert pids == set()


def test_workers_that_cannot_start_are_an_error_with_their_last_word() -> None:
    with LocalExecutor(2, prepare=tasks.leave) as executor:
        executor.submit(tasks.double, 1)
        with pytest.raises(WorkerStartError, match="workers cannot start: the worker ended with exit code 7: a last"):
            list(executor.as_completed())


def test_workers_end_with_their_block_and_with_their_parent() -> None:
    pids: set[int] = set()
    with LocalExecutor(1, pids=pids) as executor:
        executor.submit(tasks.sleep, 60.0)
        executor.submit(tasks.double, 1)
        executor._start_workers()
        (own,) = pids
        assert is_alive(own)
    assert not is_alive(own)
    program = (
        "import os, signal; from zonocuda.fleet import LocalExecutor; from tests.fleet import tasks\n"
        "executor = LocalExecutor(1); executor.submit(tasks.process); executor.submit(tasks.sleep, 60.0)\n"
        "for done in executor.as_completed():\n"
        "    print(done.value, flush=True)\n"
        "    executor._hand_out(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    while is_alive(int(killed.stdout)):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5])
def test_a_number_of_jobs_is_a_positive_integer(jobs: int) -> None:
    with pytest.raises(ValueError, match="jobs must be a positive integer"):
        LocalExecutor(jobs)


def test_a_worker_that_dies_while_it_is_given_a_task_had_started() -> None:
    """Not a failed start, of which few in a row end everything: the task goes to another worker."""
    with LocalExecutor(1) as executor:
        for value in range(_FAILED_STARTS + 1):
            executor.submit(tasks.double, value)
            executor._start_workers()
            (worker,) = executor._workers
            while not worker.is_ready:
                assert executor._hear(worker) is None
            worker.process.kill()
            worker.process.wait()
            worker.connection.close()  # what is sent now fails at once
            executor._hand_out()
            assert executor._lose(worker) is None
            assert executor._failed_starts == 0
        assert sorted(d.value for d in executor.as_completed()) == [2 * v for v in range(_FAILED_STARTS + 1)]
