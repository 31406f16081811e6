"""One search shared out over an executor: packets of open parts, taken near the root, and what comes back of them.

A packet is searched by a pure function of the problem, which all workers get once, and of the packet: what it refutes,
and what it leaves open when its seconds are up, together cover the packet's parts, on whatever machine, in whatever
order. So a packet whose worker is lost is handed out again, whole, and nothing of it is counted before it came back.

Seconds of a packet grow where one ends unfinished, and are few where nothing else waits: parts are then soon spread
over all workers. No packet takes more than a share of the time that the search has lasted, so that little
of it is lost where the last packets end one after the other.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from zonocuda.branch import SignOutcome, SignParts, SignState
from zonocuda.executors import Done, Executor
from zonocuda.prove.timeline import Watch, unwatched
from zonocuda.verifier.falsify import Counterexample

HEAD = 1.0
"""Seconds of a search in this process before it is shared out: most end in less."""
FIRST = 0.25
"""Seconds of the first packets."""
MOST = 30.0
"""Seconds of a packet, at most,"""
ELAPSED = 1 / 16
"""and at most this share of what the search has lasted, but FIRST."""
LEAST = 0.05
"""Seconds of a packet at the end of the time, at least."""
PARTS = 1024
"""Of a packet, at most."""
LOSSES = 5
"""Workers that one packet may cost."""
GRACE = 60.0
"""Seconds beyond its own that a packet may take before its worker is stopped: for a worker's first packet, too."""

LATE = 5.0
"""Seconds beyond the end of the time after which it is."""


class PacketError(RuntimeError):
    """A packet that workers cannot do; the message is one line."""


class Parts(Protocol):
    """A batch of open parts."""

    @property
    def depth(self) -> Tensor:
        """``[S]``, how many splits lie above."""

    @property
    def bound(self) -> Tensor:
        """``[S]``, proven on what they are parts of."""

    @property
    def bytes(self) -> int:
        """Of the memory that holds them."""

    def __len__(self) -> int: ...

    def at(self, index: Tensor) -> Self:
        """Those at an index."""


P = TypeVar("P", bound=Parts)


@dataclass(frozen=True, eq=False)
class Packet(Generic[P]):
    """What a worker gets.

    Attributes:
        number: of the packet; chance in the search depends on it.
        name: of it, that no other packet has: its answer carries it back.
        parts: open parts.
        seconds: that it may take.
        seen: points that were tried before.
        stops: whether it ends at the first point that seems to be a counterexample; else these are collected.
        losses: how many workers it has cost.
    """

    number: int
    name: str
    parts: P
    seconds: float
    seen: int = 0
    stops: bool = True
    losses: int = 0


@dataclass(frozen=True, eq=False)
class Answer(Generic[P]):
    """What comes back of a packet.

    Attributes:
        packet: its name.
        open: what is left.
        bounded, depth: parts that were bounded, and the most splits above one of them.
        suspects: points ``[n, *input features]`` that seem to be counterexamples; where the packet stopped at one, the
            rest of the answer says nothing.
        tried: points that were looked at.
        seconds: what it took.
        more: what the kind of search adds.
    """

    packet: str
    open: P
    bounded: int
    depth: int
    suspects: Tensor
    tried: int
    seconds: float
    more: Any = None


@dataclass
class Sharing(Generic[P]):
    """A search that is shared out.

    Attributes:
        executor: what runs the packets; nothing else may be in it.
        work: ``(problem, packet)`` to an answer, in a worker.
        problem: what all packets are about.
        cat: joins batches of parts.
        replay: of suspects, a counterexample of the network itself, or None.
        take: is given a packet's parts and its answer, and returns what is open in the numbering of the whole search.
        end: when to stop, by :func:`time.monotonic`.
        stopped: whether somebody wants it to stop.
        keep: is called after every packet.
        watch: is told after every packet how far the search is.
        memory: bytes that open parts may take; from half of it on, those come first that are soonest refuted.
        packets, bounded, depth, work_seconds: what it took, in answers.
    """

    executor: Executor
    work: Callable[[Any, Packet[P]], Answer[P]]
    problem: object
    cat: Callable[[Sequence[P]], P]
    replay: Callable[[Tensor], Counterexample | None]
    take: Callable[[P, Answer[P]], P]
    end: float
    stopped: Callable[[], bool] = lambda: False
    keep: Callable[[], None] = lambda: None
    memory: int = 2**62
    watch: Watch = unwatched
    packets: int = 0
    bounded: int = 0
    depth: int = 0
    work_seconds: float = 0.0
    _waiting: list[tuple[P, float]] = field(default_factory=list)  # parts, and the seconds that they are to get
    _again: list[Packet[P]] = field(default_factory=list)  # packets that are whole, and come first
    _under_way: dict[int, Packet[P]] = field(default_factory=dict)
    _submitted: int = 0
    _name: str = field(default_factory=lambda: os.urandom(16).hex())  # of this search
    _stops: bool = True
    _seen: int = 0
    _least: float = FIRST  # seconds in which a packet gets on

    def run(self, parts: P) -> Counterexample | None:
        """Until nothing is open, a counterexample is found, or time is up.

        Raises:
            PacketError: a packet has cost too many workers, or they have no memory for it.
        MemoryError: what is open does not fit.
        """
        begin = time.monotonic()
        self._nothing = parts.at(torch.arange(0, device=parts.depth.device))
        self._waiting, self._least = [(parts, FIRST)] if len(parts) else [], FIRST
        shared = self.executor.put(self.problem)
        try:
            self._hand_out(shared, begin)
            for done in self.executor.as_completed():
                found = self._end(self._under_way[done.task], done)
                del self._under_way[done.task]  # what raises before leaves it open
                if found is not None:
                    return found
                self.keep()
                self.watch(sum(map(len, self._held)), lambda: self._worst)
                if self.stopped() or time.monotonic() >= self.end:
                    return None
                self._hand_out(shared, begin)
            return None
        finally:
            self._waiting += [(packet.parts, FIRST) for packet in (*self._again, *self._under_way.values())]
            self._again = []
            for task in self._under_way:
                self.executor.cancel(task)
            self._under_way = {}

    @property
    def open(self) -> P:
        """All parts that are open, those under way, too."""
        return self.cat([self._nothing, *self._held])

    @property
    def _held(self) -> list[P]:
        """The same, apart."""
        packets = [packet.parts for packet in (*self._again, *self._under_way.values())]
        return [*(parts for parts, _ in self._waiting), *packets]

    @property
    def _worst(self) -> float:
        """The smallest bound of one of them, inf where there is none."""
        return min((float(parts.bound.min()) for parts in self._held if len(parts)), default=math.inf)

    # ---- packets -----------------------------------------------------------------------------------------------------

    def _hand_out(self, shared: object, begin: float) -> None:
        workers = max(1, self.executor.workers)
        while len(self._under_way) < workers + 1:  # one that waits for the first worker that ends
            packet = self._again.pop() if self._again else self._cut(workers, begin)
            if packet is None:
                break
            limit = min(packet.seconds + GRACE, max(0.0, self.end - time.monotonic()) + LATE)
            task = self.executor.submit(self.work, shared, packet, limit=limit, when_lost="end")
            self._under_way[task] = packet

    def _cut(self, workers: int, begin: float) -> Packet[P] | None:
        """A packet of what waits, those with the fewest splits above first."""
        if not self._waiting:
            return None
        parts = self.cat([parts for parts, _ in self._waiting])
        seconds = torch.cat([torch.full((len(some),), own) for some, own in self._waiting])
        if parts.bytes > self.memory:
            raise MemoryError("the open parts do not fit in the memory budget")
        is_near = 2 * parts.bytes <= self.memory
        order = parts.depth.argsort(stable=True) if is_near else parts.bound.argsort(descending=True, stable=True)
        count = max(1, min(PARTS, -(-len(order) // (2 * workers))))
        index, rest = order[:count], order[count:]
        now = time.monotonic()
        most = min(MOST, ELAPSED * (now - begin)) if len(rest) else 0.0
        budget = max(self._least, min(most, float(seconds[index.cpu()].max())))
        self._waiting = []
        kept = seconds[rest.cpu()]
        for own in sorted(set(kept.tolist())):
            self._waiting.append((parts.at(rest[(kept == own).to(rest.device)]), own))
        self._submitted += 1
        within = max(LEAST, min(budget, (self.end - now) / (4 if len(self._under_way) >= workers else 2)))
        return Packet(
            self._submitted, f"{self._name}-{self._submitted}", parts.at(index), within, self._seen, self._stops
        )

    def _end(self, packet: Packet[P], done: Done) -> Counterexample | None:
        if done.error:
            self._lose(packet, done)
            return None
        answer: Answer[P] = done.value
        if answer.packet != packet.name:
            raise PacketError("the executor gave the answer of one packet for another")
        if len(answer.suspects):
            found = self.replay(answer.suspects)
            if found is not None:
                return found
            if packet.stops:  # what is left of it is nowhere: once more, without stopping
                self._stops = False
                self._again.append(replace(packet, stops=False, name=f"{packet.name}, whole"))
                return None
        self.packets += 1
        self.bounded += answer.bounded
        self.depth = max(self.depth, answer.depth)
        self.work_seconds += answer.seconds
        self._seen += answer.tried
        if not answer.bounded:
            self._least = max(self._least, 2 * packet.seconds)
        left = self.take(packet.parts, answer)
        if len(left):
            self._waiting.append((left, 2 * packet.seconds))
        return None

    def _lose(self, packet: Packet[P], done: Done) -> None:
        """A worker is lost, was stopped, or has failed: the packet is whole."""
        if not (done.is_lost or done.is_late or "out of memory" in done.error or "MemoryError" in done.error):
            raise PacketError(f"a worker failed: {done.error}")
        losses = packet.losses + 1
        if losses >= LOSSES:
            raise PacketError(f"{losses} workers could not do one packet of {len(packet.parts)} parts: {done.error}")
        self._again.append(replace(packet, losses=losses))


class SharedSearch(Protocol):
    """A tree whose parts others search, too."""

    @property
    def bounded(self) -> int:
        """Parts of the whole tree."""

    @property
    def sharing(self) -> Sharing[SignParts]:
        """What it took."""

    def run(self) -> SignOutcome[Counterexample]:
        """Until it is decided, or the time is up."""

    def state(self) -> SignState:
        """Of what came back so far."""
