"""Real instances while workers are killed: every verdict is the truth's, and none is lost."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import signal
import threading

import pytest

from benchmarks.fleet import chosen
from tests.data import data_root
from zonocuda.fleet import read_instances
from zonocuda.fleet.runner import execute, local_executor, make_plan
from zonocuda.fleet.settings import Settings

TRUTH = {"unsat": "verified", "sat": "falsified"}


@pytest.mark.slow
@pytest.mark.data
def test_no_verdict_changes_while_workers_are_killed(seed: int) -> None:
    listed = data_root() / "vnncomp" / "acasxu" / "instances.csv"
    with listed.open() as file:
        truth = {(row["onnx"], row["vnnlib"]): TRUTH[row["truth"]] for row in csv.DictReader(file)}
    instances = chosen(read_instances(listed), 16)
    chance, pids, stop = random.Random(seed), set[int](), threading.Event()

    def kill() -> None:
        while not stop.wait(chance.uniform(2.0, 6.0)):
            for pid in sorted(tuple(pids))[: chance.randrange(2)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    plan = make_plan(instances, Settings(device="cpu"), 60.0, None, False)
    killer = threading.Thread(target=kill)
    records = []
    with local_executor(plan, 2, None, "cpu", lambda notice: None, pids) as executor:
        killer.start()
        try:
            for record in execute(plan, executor):
                records.append(record)
                if len(records) == 2:  # one of the two workers, at least, is in the middle of something
                    for pid in tuple(pids):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                if len(records) == len(instances) // 2:
                    stop.set()
        finally:
            stop.set()
            killer.join()
    assert sorted((r.net, r.spec) for r in records) == sorted(one.names for one in instances)
    assert any(r.lost for r in records), "no worker was killed at work: the test shows nothing"
    for record in records:
        if record.is_decided:
            assert record.verdict == truth[record.net, record.spec]
        elif record.verdict == "error":
            assert record.lost, record.reason
    assert sum(record.is_decided for record in records) >= len(instances) - 4
