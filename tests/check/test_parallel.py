"""Several processes find what one finds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flint import arb

from tests.check.certificates import KINDS, certified, inline, threshold
from tests.check.test_forests import case, checked, false_one
from tests.check.test_smooth_proofs import whole
from zonocuda.checker import maps, trees
from zonocuda.checker.arithmetic import as_bytes, balls, from_bytes, lower, precisely
from zonocuda.checker.exact import Sample
from zonocuda.checker.parallel import Work, in_order
from zonocuda.checker.passes import Passes
from zonocuda.checker.proof import Sources
from zonocuda.checker.verdict import check, check_proof
from zonocuda.specs import Spec
from zonocuda.verifier import verify


@pytest.mark.parametrize("jobs", [1, 2, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_parts_come_back_in_order(count: int, jobs: int) -> None:
    offset = 10**6
    assert list(in_order(lambda k: k + offset, count, jobs)) == [k + offset for k in range(count)]


def test_parts_are_done_elsewhere() -> None:
    processes = set(in_order(lambda k: os.getpid(), 8, 2))
    assert processes
    assert os.getpid() not in processes


def test_an_error_of_a_part_is_that_of_all() -> None:
    def fails(k: int) -> int:
        if k == 5:
            raise ValueError("the sixth")
        return k

    with pytest.raises(ValueError, match="the sixth"):
        list(in_order(fails, 9, 2))


def test_a_process_that_is_killed_is_an_error_and_not_an_answer() -> None:
    def dies(k: int) -> int:
        if k == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    with pytest.raises(MemoryError, match="was killed"):
        list(in_order(dies, 9, 2))


def test_processes_do_not_outlive_the_one_that_began_them() -> None:
    code = (
        "import os, time\nfrom zonocuda.checker.parallel import Work, in_order\n"
        "def slow(k):\n    os.write(1, b'%d\\n' % os.getpid())\n    time.sleep(60)\n"
        "list(in_order(slow, 4, 2))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while any(map(is_alive, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended, and that nobody waits for, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("count", [1, 3, 32, 100])
def test_samples_of_parts_carry_as_many_rows_together(count: int) -> None:
    whole = Sample(None, 1 / 1000, 32)  # type: ignore[arg-type]
    whole.confirmed = 5
    assert sum(part.most for part in whole.parts(count)) == 27
    assert all(part.most == np.inf for part in Sample(None, 1.0, np.inf).parts(count))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["box", "lemmas"])
def test_a_forest_is_confirmed_alike_in_any_number_of_processes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "SETS_AT_ONCE", 6)
    graph, property_, certificate = case(kind)
    found = [check_proof(inline(certificate), graph, property_, None, Sources(work=Work(jobs))) for jobs in (1, 3)]
    assert found[0].confirmed
    assert found[0] == found[1]
    wrong = false_one(graph, property_)
    refused = [check_proof(inline(certificate), graph, wrong, None, Sources(work=Work(jobs))) for jobs in (1, 2)]
    assert not refused[0].confirmed
    assert refused[0] == refused[1]


@pytest.mark.parametrize("name", ["residual", "tanh"])
def test_rows_of_a_whole_box_are_carried_in_balls_alike_in_any_number_of_processes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them with ``exact``; about a smooth function always."""
    monkeypatch.setattr(maps, "BALLS_AT_ONCE", 60)
    if name == "tanh":
        graph, property_, certificate = whole(name)
    else:
        graph, property_ = threshold(name, 2, KINDS[name, 2])
        certificate = certified(graph, property_)
    chunks, chunk = [], Passes._chunk

    def counted(passes: Passes, *arguments: Any) -> Any:
        chunks.append(arguments)
        return chunk(passes, *arguments)

    monkeypatch.setattr(Passes, "_chunk", counted)
    found = [check_proof(certificate, graph, property_, None, Sources(exact=True, work=Work(1)))]
    alone = len(chunks)
    chunks.clear()
    found += [check_proof(certificate, graph, property_, None, Sources(exact=True, work=Work(jobs))) for jobs in (2, 3)]
    assert len(chunks) < alone, "two checks do less here than one did: but for what is a part by itself"
    assert found[0].confirmed
    assert found[0] == found[1] == found[2]


def test_numbers_come_back_from_other_processes_as_they_were() -> None:
    rng = random.Random(1)
    with precisely():
        some = [arb(rng.getrandbits(200)) / 3 ** rng.randrange(99) for _ in range(30)]
        some = [one * arb(2) ** rng.randrange(-3000, 3000) for one in some]
        values = lower(balls([*some, *(-one for one in some), arb(0), arb("inf"), arb("-inf"), arb(0, "inf")]))
    again = from_bytes(as_bytes(values))
    assert len(again) == len(values)
    assert all(a == b for a, b in zip(again, values, strict=True))
    for value in (arb("nan"), arb(1, 0.5)):  # a ball is no number, and none is made of it
        (none,) = from_bytes(as_bytes(balls([value])))
        assert not any((none > 0, none <= 0, none == none))


def test_regions_are_proven_alike_in_any_number_of_processes(tmp_path: Path) -> None:
    """Each of which reads the file's arrays for itself."""
    graph, one = threshold("fc", 2, -1)
    property_ = Spec(one.inputs, one.outputs, one.regions * 12)
    certificate = verify(graph, property_, certificate=True).certificate
    assert certificate is not None
    found = [checked(graph, property_, certificate, tmp_path / "c.zip", jobs=jobs) for jobs in (1, 2, 5)]
    assert found[0].confirmed
    assert len(found[0].details) == 13
    assert found[0] == found[1] == found[2]
    (false,) = false_one(graph, one).regions
    wrong = Spec(one.inputs, one.outputs, (*one.regions * 8, false, *one.regions * 3))
    refused = [checked(graph, wrong, certificate, tmp_path / "c.zip", jobs=jobs) for jobs in (1, 3)]
    assert not refused[0].confirmed
    assert refused[0].reason.startswith("region 8: ")
    assert refused[0] == refused[1]


@pytest.mark.parametrize(("jobs", "error"), [(0, ValueError), (2000, ValueError), (1.5, TypeError), (True, TypeError)])
def test_numbers_of_processes_that_are_none_are_refused(jobs: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="jobs must be"):
        check("nothing.zip", "net.onnx", "spec.vnnlib", jobs=jobs)
