"""One search shared out over workers: the verdict and the certificate are those of a search that is not."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from tests.verifier.checkpoint_cases import CASES, few_inputs, small_batches
from tests.verifier.unreliable import Unreliable
from zonocuda.branch import Subproblems
from zonocuda.checker import check
from zonocuda.executors import Done, Executor, LocalExecutor, Notice
from zonocuda.graph import Graph
from zonocuda.prove import lemmas
from zonocuda.prove.lemma_pieces import LemmaPiece
from zonocuda.prove.lemmas import LemmaEffort
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, VerifyResult, box_packets, lemma_packets, neuron_search, sharing, verify
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.sharing import Answer, Packet, PacketError, Sharing


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are shared out after one batch, in small packets."""
    monkeypatch.setattr(box_packets, "HEAD", 0.0)
    monkeypatch.setattr(sharing, "FIRST", 0.02)
    monkeypatch.setattr(sharing, "LEAST", 0.02)


def decide(graph: Graph, problem: Spec, executor: Executor, **options: Any) -> VerifyResult:
    with small_batches("input"):
        return verify(graph, problem, device="cpu", timeout=120.0, executor=executor, certificate=True, **options)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_whichever_packets_are_lost_and_in_whatever_order_they_end_the_proof_is_whole(loss: float, seed: int) -> None:
    graph, problem = few_inputs()
    executor = Unreliable(seed, loss)
    result = decide(graph, problem, executor, split="input")
    assert result.verdict is Verdict.VERIFIED
    assert executor.ended == result.splits[0].packets > 3, "the search is not shared out: the test shows nothing"
    assert bool(executor.lost) is bool(loss)
    assert check(result, graph, problem).confirmed


@pytest.mark.parametrize("case", ["neuron", "lemmas"])
def test_a_search_by_signs_is_shared_out_and_so_is_its_proof(
    case: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuron_search, "EFFORTS", (LemmaEffort(4, 2),) if case == "lemmas" else ())
    for name in ("FIRST", "LATER"):
        monkeypatch.setattr(neuron_search, name, 2)
    make, options = CASES[case]
    graph, problem = make()
    executor = Unreliable(seed, 0.1)
    result = verify(graph, problem, device="cpu", timeout=120.0, executor=executor, certificate=True, **options)
    assert result.verdict is Verdict.VERIFIED
    assert result.splits[0].packets > 0
    assert executor.ended > result.splits[0].packets, "the search that is written down is shared out, too"
    assert check(result, graph, problem).confirmed


def test_lemmas_are_shared_out_and_what_is_lost_is_done_here(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuron_search, "EFFORTS", (LemmaEffort(6, 2),))
    monkeypatch.setattr(lemma_packets, "HEAD", 0.0)
    monkeypatch.setattr(lemmas, "LEAST_ROWS", 1)
    make, options = CASES["lemmas"]
    graph, problem = make()
    executor = Unreliable(seed, 0.5)
    with small_batches("lemmas"):
        alone = verify(graph, problem, device="cpu", timeout=120.0, certificate=True, **options)
        result = verify(graph, problem, device="cpu", timeout=120.0, executor=executor, certificate=True, **options)
    assert result.verdict is Verdict.VERIFIED
    assert executor.did["bound_lemmas"] > 4, "lemmas are not shared out: the test shows nothing"
    assert executor.lost > 0
    assert alone.splits[0].lemmas > 0
    assert result.splits[0].lemmas == alone.splits[0].lemmas
    assert result.certificate is not None
    assert result.certificate.forest is not None
    assert result.certificate.forest.lemmas > 0
    assert check(result, graph, problem).confirmed


def test_a_worker_that_cannot_bound_lemmas_is_no_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Unreliable):
        def as_completed(self) -> Iterator[Done]:
            yield Done(self.tasks.popitem()[0], error="ValueError: the worker has other programs")

    executor = Failing()
    helpers = lemma_packets.LemmaHelpers(executor, None)  # type: ignore[arg-type]
    assert lemma_packets.helping(helpers, time.monotonic(), lambda share: 0.0) is None, "it has not lasted"
    assert lemma_packets.helping(None, 0.0, lambda share: 0.0) is None
    empty = torch.zeros(0, dtype=torch.int64)
    piece = LemmaPiece({}, "relu", empty, empty, None, 0, False)
    with pytest.raises(PacketError, match="other programs"):
        list(helpers([piece, piece], 1.0))
    assert executor.cancelled == 1


def test_a_counterexample_cancels_what_is_under_way_and_the_network_has_the_last_word() -> None:
    graph, problem = few_inputs(spare=-0.3)
    executor = Unreliable()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zonocuda.verifier.verification.falsify", lambda *a, **k: None)  # the search is left to packets
        patch.setattr("zonocuda.verifier.verification.replay", lambda *a, **k: None)
        result = decide(graph, problem, executor, split="input")
    assert result.verdict is Verdict.FALSIFIED
    assert executor.ended > 0
    assert not executor.tasks


def parts(*numbers: float) -> Subproblems:
    """Boxes [k, k]."""
    ends = torch.tensor(numbers).unsqueeze(1)
    return Subproblems.of(ends, ends)


def refute(problem: dict[str, Any], packet: Packet[Subproblems]) -> Answer[Subproblems]:
    """A worker on boxes [k, k]: refutes all but negative ones, whose opposite is open then; 7 seems to be unsafe."""
    values = packet.parts.lower[:, 0]
    suspects = values[values == 7].unsqueeze(1)
    left = packet.parts.at(values < 0)
    left = replace(left, lower=-left.lower, upper=-left.upper)
    if packet.stops and len(suspects):
        left = packet.parts.at(slice(0))
    return Answer(packet.name, left, len(values), packet.number, suspects, len(values), 0.5, problem["name"])


def share(executor: Executor, numbers: list[float], **changed: Any) -> tuple[Any, list[float], Sharing[Subproblems]]:
    """What is found, all numbers that were refuted, and the search."""
    refuted: list[float] = []

    def take(packet: Subproblems, answer: Answer[Subproblems]) -> Subproblems:
        assert answer.more == "toy"
        opened = (-answer.open.lower[:, 0]).tolist()
        refuted.extend(k for k in packet.lower[:, 0].tolist() if k not in opened)
        return answer.open

    given = {"replay": lambda points: None, "end": float("inf"), **changed}
    search = Sharing(executor, refute, {"name": "toy"}, Subproblems.cat, take=take, **given)
    return search.run(parts(*numbers)), sorted(refuted), search


def test_every_part_is_refuted_once_whatever_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    numbers = [float(k) for k in chance.sample(range(-90, 90), 60) if abs(k) != 7]
    executor = Unreliable(seed, 0.1)
    found, refuted, search = share(executor, numbers)
    assert found is None
    assert refuted == sorted(abs(k) for k in numbers)
    assert search.bounded == len(numbers) + sum(k < 0 for k in numbers)
    assert len(search.open) == 0
    assert search.packets == executor.ended


class Watched(Unreliable):
    """That keeps the packets, in the order in which they were handed out."""

    def __init__(self, workers: int = 1) -> None:
        super().__init__(workers=workers)
        self.packets: list[Packet[Subproblems]] = []

    def submit(self, function: Any, *arguments: Any, **how: Any) -> int:
        self.packets.append(arguments[1])
        return super().submit(function, *arguments, **how)


def count_down(problem: object, packet: Packet[Subproblems]) -> Answer[Subproblems]:
    """A worker on boxes [k, k] that never ends in time: each is [k - 1, k - 1] afterwards, and none where k was 1."""
    left = packet.parts.at(packet.parts.lower[:, 0] > 1)
    left = replace(left, lower=left.lower - 1, upper=left.upper - 1)
    return Answer(packet.name, left, len(packet.parts), 0, torch.zeros(0, 1), 0, packet.seconds)


def searched(executor: Executor, work: Any, parts: Subproblems, **more: Any) -> Sharing[Subproblems]:
    """A search that leaves nothing open."""
    search = Sharing(
        executor, work, {"name": "toy"}, Subproblems.cat, lambda points: None, lambda p, a: a.open, float("inf"), **more
    )
    assert search.run(parts) is None
    assert len(search.open) == 0
    return search


def test_packets_are_taken_near_the_root_and_where_memory_is_scarce_from_what_is_soonest_refuted() -> None:
    chance = random.Random(0)
    given = parts(*(float(k) for k in range(10, 50)))
    given = replace(
        given,
        depth=torch.tensor(chance.sample(range(40), 40), dtype=torch.int32),
        bound=torch.tensor(chance.sample(range(-40, 0), 40), dtype=given.bound.dtype),
    )
    executor = Watched()
    searched(executor, refute, given)
    depths = torch.cat([packet.parts.depth for packet in executor.packets])
    assert depths.tolist() == list(range(40)), "those with the fewest splits above first"
    assert len(executor.packets) > 3
    executor = Watched()
    searched(executor, refute, given, memory=given.bytes)
    first = executor.packets[0].parts.bound
    assert first.tolist() == [float(-k) for k in range(1, len(first) + 1)], "the best bounds first"


def test_a_packet_that_ends_unfinished_gets_twice_the_seconds_up_to_a_share_of_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FIRST", "LEAST"):
        monkeypatch.setattr(sharing, name, 2.0**-6)
    monkeypatch.setattr(sharing, "ELAPSED", 0.0)
    executor = Watched()
    searched(executor, count_down, parts(*[9.0] * 8))
    assert {packet.seconds for packet in executor.packets} == {sharing.FIRST}, "the search has not lasted"
    monkeypatch.setattr(sharing, "ELAPSED", 1e9)
    monkeypatch.setattr(sharing, "MOST", 8 * sharing.FIRST)
    executor = Watched()
    search = searched(executor, count_down, parts(*[9.0] * 8))
    seconds = [packet.seconds for packet in executor.packets]
    assert set(seconds) == {sharing.FIRST * 2**k for k in range(4)}, "doubled, and at most MOST"
    assert seconds[:2] == [sharing.FIRST] * 2
    assert search.work_seconds == pytest.approx(sum(seconds))
    assert search.packets == len(seconds)


def test_a_point_that_the_network_does_not_confirm_ends_nothing() -> None:
    asked: list[float] = []

    def replay(points: torch.Tensor) -> Counterexample | None:
        asked.extend(points.flatten().tolist())
        return None

    found, refuted, _ = share(Unreliable(), [1.0, 7.0, 2.0, -3.0], replay=replay)
    assert (found, refuted) == (None, [1.0, 2.0, 3.0, 7.0])
    assert asked == [7.0, 7.0], "once where the packet stopped, once where it did not"


def test_what_time_leaves_open_is_said_to_be_open() -> None:
    executor = Unreliable()
    _, refuted, search = share(executor, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0], end=0.0)
    assert sorted([*refuted, *search.open.lower[:, 0].tolist()]) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0]
    assert len(search.open) > 0
    assert not executor.tasks


class Answers(Unreliable):
    """Whose tasks all end in one way."""

    def __init__(self, done: Done) -> None:
        super().__init__()
        self.done = done

    def as_completed(self) -> Iterator[Done]:
        while self.tasks:
            task = next(iter(self.tasks))
            del self.tasks[task]
            yield replace(self.done, task=task)


@pytest.mark.parametrize(
    ("done", "why"),
    [
        (Done(0, error="was killed", is_lost=True), "5 workers could not do one packet of 1 parts: was killed"),
        (Done(0, error="was stopped", is_late=True), "5 workers could not do one packet of 1 parts: was stopped"),
        (Done(0, error="RuntimeError: out of memory"), "5 workers could not do one packet of 1 parts"),
        (Done(0, error="ValueError: another program"), "a worker failed: ValueError: another program"),
    ],
)
def test_a_packet_that_no_worker_can_do_leaves_the_verdict_open(done: Done, why: str) -> None:
    with pytest.raises(PacketError, match=why):
        share(Answers(done), [1.0])
    graph, problem = few_inputs()
    result = decide(graph, problem, Answers(done), split="input")
    assert result.verdict is Verdict.UNKNOWN
    assert done.error in result.reason


class Mistaken(Unreliable):
    """Who gives every answer for the task that ended before."""

    def as_completed(self) -> Iterator[Done]:
        last: Done | None = None
        for done in super().as_completed():
            yield done if last is None else replace(last, task=done.task)
            last = done


def test_an_answer_to_another_packet_is_none() -> None:
    with pytest.raises(PacketError, match="the answer of one packet for another"):
        share(Mistaken(), [1.0, 2.0, -3.0, 4.0])
    graph, problem = few_inputs()
    result = decide(graph, problem, Mistaken(), split="input")
    assert (result.verdict, result.certificate) == (Verdict.UNKNOWN, None)


def test_what_ends_a_search_in_the_middle_of_an_answer_leaves_its_packet_open() -> None:
    class Interrupted(Sharing[Subproblems]):
        def _end(self, packet: Packet[Subproblems], done: Done) -> Counterexample | None:
            raise KeyboardInterrupt

    search = Interrupted(Unreliable(), refute, {"name": "toy"}, Subproblems.cat, lambda x: None, lambda p, a: p, 1e9)
    with pytest.raises(KeyboardInterrupt):
        search.run(parts(1.0, 2.0, 3.0))
    assert sorted(search.open.lower[:, 0].tolist()) == [1.0, 2.0, 3.0]


def test_a_search_that_is_shared_out_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """With what came back before; packets under way are open."""

    class Ends(Unreliable):
        def as_completed(self) -> Iterator[Done]:
            for number, done in enumerate(super().as_completed()):
                if number == 4:
                    raise KeyboardInterrupt
                yield done

    graph, problem = few_inputs()
    with pytest.raises(KeyboardInterrupt):
        decide(graph, problem, Ends(), split="input", checkpoint=tmp_path)
    result = decide(graph, problem, Unreliable(), split="input", checkpoint=tmp_path, resume=True)
    assert (result.verdict, result.resumed) == (Verdict.VERIFIED, True)
    assert check(result, graph, problem).confirmed


@pytest.mark.parametrize("executor", ["ray", 2, object()])
def test_what_is_no_executor_is_refused(executor: Any) -> None:
    with pytest.raises(TypeError, match="verify: executor must be an Executor"):
        verify(*few_inputs(), executor=executor)


@pytest.mark.slow
def test_workers_killed_at_random_moments_change_nothing(seed: int) -> None:
    chance, pids, started, lost = random.Random(seed), set[int](), 0, 0
    timers: list[threading.Timer] = []

    def kill() -> None:
        for pid in chance.sample(sorted(pids), min(1, len(pids))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def notify(notice: Notice) -> None:
        nonlocal started, lost
        lost, started = lost + (notice.kind == "lost"), started + (notice.kind == "started")
        if notice.kind == "started" and started % 3 == 1 and len(timers) < 6:  # the others get on
            timers.append(threading.Timer(chance.uniform(0.0, 0.05), kill))
            timers[-1].start()

    graph, problem = few_inputs()
    with LocalExecutor(2, pids=pids, notify=notify) as executor:
        result = decide(graph, problem, executor, split="input")
        for timer in timers:
            timer.join()
    assert lost > 0, "no worker was killed at work: the test shows nothing"
    assert result.verdict is Verdict.VERIFIED
    assert check(result, graph, problem).confirmed
