"""Checkpoints of a verification: which regions are decided, and how far the search in the one under way is.

A checkpoint is believed as the memory of the process is: it *is* that memory, of a process that has ended. What keeps
others out is a digest of all that a proof depends on (:func:`identity`); what no digest can tell, who wrote the file,
nobody checks. A certificate does not rest on it: what closed leaves are written down with is proven again by who checks
it (docs/splitting.md).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from zonocuda.checkpoint import CheckpointError, digest, read, write
from zonocuda.graph import Graph
from zonocuda.prove.certificate import RegionRecord
from zonocuda.prove.combine import Combination
from zonocuda.prove.prover import Rung
from zonocuda.prove.row_bound import RowBound
from zonocuda.specs import Spec
from zonocuda.verifier.course_state import CourseState
from zonocuda.verifier.result import SplitStats
from zonocuda.verifier.splitting import BoxState
from zonocuda.version import __version__

FILE = "checkpoint.zip"
INTERVAL = 5.0
"""Seconds between two checkpoints, at least,"""
SHARE = 20.0
"""and so many times what the last one took to write."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, eq=False)
class NeuronState:
    """A search that splits neurons, and what it began with.

    Attributes:
        dtypes: that it computes in.
        open: the disjuncts that were open.
        climbed: the last rung of the bounds before it.
        course: how far it is.
    """

    dtypes: tuple[torch.dtype, ...]
    open: tuple[int, ...]
    climbed: Rung | None
    course: CourseState | None


@dataclass(frozen=True, eq=False)
class RegionState:
    """One region.

    Attributes:
        decided: whether it is proven safe.
        combinations: of its rows.
        contradictory: whether some of them refute a disjunct.
        boxes, neurons: the search that is under way.
        margins, splits: what the result says of a region that is decided.
        record: its proof, as it is written down; None where none is wanted, or needed.
    """

    decided: bool = False
    combinations: tuple[Combination, ...] = ()
    contradictory: bool = False
    boxes: BoxState | None = None
    neurons: NeuronState | None = None
    margins: tuple[RowBound, ...] = ()
    splits: tuple[SplitStats, ...] = ()
    record: RegionRecord | None = None


@dataclass(frozen=True, eq=False)
class State:
    """All regions that something is known of, by their positions."""

    regions: Mapping[int, RegionState]


def identity(graph: Graph, spec: Spec, settings: Mapping[str, object]) -> dict[str, str]:
    """What a checkpoint is of: digests of the network and of the specification as they were read, versions, settings.

    Two networks of one digest have the same operators with the same constants, bit by bit.
    """
    return {
        "version of zonocuda": __version__,
        "version of torch": str(torch.__version__),
        **{name: str(value) for name, value in settings.items()},  # first: some of them change the network
        "network": digest(graph),
        "specification": digest(spec),
    }


@dataclass
class Checkpoints:
    """Where a verification keeps its state; nowhere, by default.

    Attributes:
        path: of the file; None keeps nothing.
        identity: what it is of.
        regions: what is known.
        fault: why no more checkpoints are written; empty where they are.
        resumed: whether something was known at first.
        confirm: raises where what was computed cannot be believed, before it is written down.
        asked: the signal that wants the process to end, once a search has come to rest.
    """

    path: Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    regions: dict[int, RegionState] = field(default_factory=dict)
    fault: str = ""
    resumed: bool = False
    confirm: Callable[[], None] = lambda: None
    asked: int | None = None
    _next: float = 0.0
    _is_old: bool = False  # whether the file lacks something
    _last: tuple[int, Callable[[], RegionState]] | None = None

    @staticmethod
    def begin(directory: str | Path | None, resume: bool, identity: Callable[[], Mapping[str, str]]) -> Checkpoints:
        """Those of a directory, which is made if it is not there; what is in it is gone on with if ``resume``.

        Raises:
            CheckpointError: a checkpoint that is damaged, of something else, or not to be gone on with.
            OSError: nothing can be written there.
        """
        if directory is None:
            return Checkpoints()
        directory = Path(directory)
        path = directory / FILE
        if path.exists() and not resume:
            raise CheckpointError(f"{path}: is there already: resume, or remove it")
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(f".{FILE}-*.tmp"):  # of a process that was killed as it wrote
            left.unlink(missing_ok=True)
        result = Checkpoints(path, identity())
        if path.exists():
            result.regions = dict(read(path, result.identity, State).regions)
            result.resumed = bool(result.regions)
        else:
            write(path, result.identity, State({}))  # so that what cannot be written is known at once
        result._next = time.monotonic() + INTERVAL
        return result

    # ---- states ------------------------------------------------------------------------------------------------------

    def of(self, position: int) -> RegionState | None:
        """What is known of a region."""
        return self.regions.get(position)

    def offer(self, position: int, make: Callable[[], RegionState]) -> None:
        """Writes a region's state down if it is time to."""
        self._last = position, make
        if self.path is not None and not self.fault and time.monotonic() >= self._next:
            self.put(position, make())

    def decide(self, position: int, state: RegionState) -> None:
        """Takes note of a region that is decided."""
        if self.path is not None and not self.fault:
            self.regions[position], self._last, self._is_old = state, None, True
            if time.monotonic() >= self._next:
                self.flush()

    def settle(self) -> None:
        """Writes down what was offered last: a search has ended, and found no counterexample. (Where one was found, the
        parts of its batch are nowhere: a state made then would leave them out.)"""
        last, self._last = self._last, None
        if last is not None and self.path is not None:
            self.put(last[0], last[1]())

    def put(self, position: int, state: RegionState) -> None:
        """Writes a region's state down."""
        if self.path is not None and not self.fault:
            self.regions[position], self._last, self._is_old = state, None, True
            self.flush()

    def flush(self) -> None:
        """Writes down what was not yet. What fails ends the checkpoints, and nothing else."""
        if self.path is None or self.fault or not self._is_old:
            return
        self.confirm()
        begin = time.monotonic()
        try:
            write(self.path, self.identity, State(self.regions))
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.fault = f"{self.path}: cannot be written: {why}; no more checkpoints are made"
        self._is_old, now = False, time.monotonic()
        self._next = now + max(INTERVAL, SHARE * (now - begin))

    def is_asked(self) -> bool:
        """Whether a signal wants the search to come to rest."""
        return self.asked is not None

    # ---- signals -----------------------------------------------------------------------------------------------------

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM let the search come to rest, which asks :attr:`asked`, and write its state down;
        then they do what they did before. A second one does so at once."""
        self._last = None
        if self.path is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        caught = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked is None:
                self.asked = number
            else:
                restore()
                signal.raise_signal(number)

        def restore() -> None:
            for number in caught:
                signal.signal(number, before[number])

        for number in caught:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()
        if self.asked is not None:
            wanted, self.asked = self.asked, None
            signal.raise_signal(wanted)
