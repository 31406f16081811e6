"""The executor on Ray: as local workers, on a cluster of several nodes of which one dies. Skipped without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import zonocuda
from tests.fleet import tasks
from tests.verifier.checkpoint_cases import few_inputs, small_batches
from zonocuda.checker import check
from zonocuda.executors import run_ranks
from zonocuda.executors.on_ray import RayExecutor
from zonocuda.executors.protocol import Notice
from zonocuda.verifier import box_packets, sharing, verify

ray = pytest.importorskip("ray", reason="no Ray")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="no cluster of Ray's tests")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and a node of one."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_every_task_ends_once_and_a_lost_one_is_tried_again(cluster: Any, tmp_path: Path) -> None:
    notices: list[Notice] = []
    with RayExecutor(notify=notices.append) as executor:
        shared = executor.put(3)
        good = {executor.submit(tasks.double, shared): 6}
        good |= {executor.submit(tasks.double, i): 2 * i for i in range(5)}
        lost = executor.submit(tasks.die_once, signal.SIGKILL, tmp_path / "flag")
        bad, late = executor.submit(tasks.fail, "no way"), executor.submit(tasks.sleep, 60.0, limit=1.0)
        cancelled = executor.submit(tasks.sleep, 60.0)
        executor.cancel(cancelled)
        done = {d.task: d for d in executor.as_completed()}
    assert {task: done[task].value for task in good} == good
    assert set(done) == {*good, lost, bad, late}
    assert done[lost].value == "alive"
    assert len(done[lost].lost) == 1
    assert done[lost].lost[0].startswith("the worker was lost")
    assert [n.task for n in notices if n.kind == "lost"] == [lost]
    assert done[bad].error == "ValueError: no way"
    assert done[late].is_late


def test_a_node_that_dies_takes_no_task_with_it(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=2)
    with RayExecutor() as executor:
        numbers = {executor.submit(tasks.where, 1.0, i): i for i in range(20)}
        done = []
        for one in executor.as_completed():
            done.append(one)
            if node is not None and one.value[1] == node.node_id:
                executor._hand_out()
                time.sleep(0.4)  # now the node is at the next task
                cluster.remove_node(node, allow_graceful=False)
                node = None
    assert node is None
    assert sorted(d.task for d in done) == sorted(numbers), "nothing lost, nothing twice"
    assert {d.task: d.value[0] for d in done} == numbers
    assert any(d.lost for d in done), "the node was idle: the test shows nothing"


def test_instances_are_verified_on_a_cluster(cluster: Any, small: Path, tmp_path: Path) -> None:
    pairs = [(small / "net.onnx", small / name) for name in ("safe.vnnlib", "unsafe.vnnlib")]
    with RayExecutor() as executor:
        records = list(zonocuda.run(pairs, executor=executor, timeout=60, out=tmp_path / "out"))
    assert {Path(r.spec).name: r.verdict for r in records} == {"safe.vnnlib": "verified", "unsafe.vnnlib": "falsified"}


def test_one_hard_instance_is_shared_out_and_a_node_that_dies_changes_nothing(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(box_packets, "HEAD", 0.0)
    for name in ("FIRST", "LEAST"):
        monkeypatch.setattr(sharing, name, 0.02)
    node, lost = cluster.add_node(num_cpus=2), 0

    def notify(notice: Notice) -> None:
        nonlocal lost
        lost += notice.kind == "lost"

    def kill() -> None:  # as soon as a packet's worker there says that it begins; it waits then, before the packet
        until = time.monotonic() + 90
        while not (tmp_path / node.node_id).exists() and time.monotonic() < until:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    graph, problem = few_inputs()
    prepare = partial(tasks.say_where, tmp_path)
    with RayExecutor(notify=notify, prepare=prepare) as executor, small_batches("input"):
        result = verify(graph, problem, device="cpu", split="input", executor=executor, certificate=True, timeout=120.0)
    killer.join()
    assert lost > 0, "the node was idle: the test shows nothing"
    assert result.verified
    assert result.splits[0].packets > 0
    assert check(result, graph, problem).confirmed


def test_tasks_take_the_resources_that_they_are_said_to_need(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    with RayExecutor(cpus=0.5, gpus=1.0, memory=64 << 20) as executor:
        assert executor.workers == 1, "there is one GPU"
        for _ in range(3):
            executor.submit(tasks.resources)
        found = [done.value for done in executor.as_completed()]
    cluster.remove_node(node)
    assert len(found) == 3
    for taken, where in found:
        assert (taken["CPU"], taken["GPU"], taken["memory"]) == (0.5, 1.0, 64 << 20)
        assert where == node.node_id, "the only one that has a GPU"


def test_ranks_meet_on_a_cluster(cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    with RayExecutor() as executor:
        assert run_ranks(executor, 2, tasks.rank_and_sum, 3.0) == [(0, 6.0), (1, 6.0)]


def test_a_signal_ends_the_command_with_one_line(small: Path) -> None:
    """On a cluster of its own, which ends with it."""
    command = [sys.executable, "-m", "zonocuda", "run", str(small), "--executor", "ray", "--timeout", "300"]
    ended = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert ended.stdout is not None
    assert ended.stdout.readline() != ""  # the first instance has ended: Ray is at work
    ended.send_signal(signal.SIGTERM)
    assert ended.communicate(timeout=60)[1] == "zonocuda: terminated\n"
    assert ended.returncode == 143
