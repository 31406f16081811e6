"""Two sets of results side by side: contradictions, what only one decides, and how many each decides in what time."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zonocuda.fleet.record import ERROR, VERDICTS
from zonocuda.fleet.store import JOURNAL, latest, read_records

_WORDS = {
    "unsat": "verified",
    "holds": "verified",
    "sat": "falsified",
    "violated": "falsified",
    "unknown": "unknown",
    "timeout": "timeout",
    "run_instance_timeout": "timeout",
}
"""VNN-COMP's words, over the years; any other is an error."""


@dataclass(frozen=True)
class Result:
    """What a set says of an instance.

    Attributes:
        net, spec: how it calls the files.
        verdict: one of VERDICTS.
        seconds: what it took.
    """

    net: str
    spec: str
    verdict: str
    seconds: float

    @property
    def is_decided(self) -> bool:
        """Whether it was proven or refuted."""
        return self.verdict in ("verified", "falsified")


@dataclass(frozen=True)
class Pair:
    """An instance in both sets; None where a set lacks it."""

    first: Result | None
    second: Result | None

    @property
    def kind(self) -> str:
        """One of KINDS."""
        first, second = self.first, self.second
        if first is None or second is None:
            return "only in one"
        if first.is_decided and second.is_decided:
            return "same" if first.verdict == second.verdict else "contradiction"
        if first.is_decided or second.is_decided:
            return "decided by one"
        return "same" if first.verdict == second.verdict else "both open"

    @property
    def name(self) -> tuple[str, str]:
        """How the first set that has it calls the instance."""
        known = self.first or self.second
        assert known is not None
        return known.net, known.spec


KINDS = ("contradiction", "decided by one", "both open", "only in one", "same")
"""In the order of their worth."""


def read_results(path: Path) -> list[Result]:
    """The results of a folder, or of a results file of VNN-COMP: category, network, property, seconds to prepare,
    verdict, seconds.

    Raises:
        ValueError: neither, with the line.
        OSError: it cannot be read.
    """
    if path.is_dir():
        if not (path / JOURNAL).is_file():
            raise ValueError(f"{path}: holds no {JOURNAL}")
        records = latest(read_records(path)).values()
        return [Result(r.net, r.spec, r.verdict, r.seconds) for r in records]
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is not a regular file")
    found = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
                if any(cell.strip() for cell in row):
                    found.append(_result(row, f"{path}: line {number}"))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no file of results: {error}") from error
    if not found:
        raise ValueError(f"{path}: has no results")
    return found


def _result(row: Sequence[str], place: str) -> Result:
    cells = [cell.strip() for cell in row]
    try:
        _, net, spec, _, word, seconds = cells[:6]
        time = float(seconds)
    except ValueError as error:
        raise ValueError(
            f"{place}: must be category,network,property,seconds to prepare,verdict,seconds; got {','.join(row)[:80]!r}"
        ) from error
    if not math.isfinite(time):
        raise ValueError(f"{place}: {seconds!r} is no number of seconds")
    return Result(net, spec, _WORDS.get(word.lower(), ERROR), time)


def paired(first: Iterable[Result], second: Iterable[Result]) -> list[Pair]:
    """The instances of two sets, those first that deserve a look.

    Instances are the same where the names of both files are, without folders and ``.gz``; where a set has several of
    such names, the folders count, too.
    """
    sets = [list(first), list(second)]
    several = {key for one in sets for key, count in Counter(map(_short, one)).items() if count > 1}
    keyed: list[dict[tuple[str, str], Result]] = [
        {(_long(r) if _short(r) in several else _short(r)): r for r in one} for one in sets
    ]
    pairs = [Pair(keyed[0].get(key), keyed[1].get(key)) for key in {**keyed[0], **keyed[1]}]
    return sorted(pairs, key=lambda pair: KINDS.index(pair.kind))


def _short(result: Result) -> tuple[str, str]:
    net, spec = _long(result)
    return net.rsplit("/", 1)[-1], spec.rsplit("/", 1)[-1]


def _long(result: Result) -> tuple[str, str]:
    return result.net.removesuffix(".gz").removeprefix("./"), result.spec.removesuffix(".gz").removeprefix("./")


def cactus(results: Iterable[Result]) -> list[float]:
    """Seconds of the decided instances, ascending: the n-th is the time within which n are decided."""
    return sorted(result.seconds for result in results if result.is_decided)


def comparison(names: Sequence[str], pairs: Sequence[Pair]) -> Mapping[str, object]:
    """The document ``zonocuda.compare/1``.

    Args:
        names: of the two sets.
        pairs: as :func:`paired` has them.
    """
    sets = [[pair.first for pair in pairs], [pair.second for pair in pairs]]
    return {
        "schema": "zonocuda.compare/1",
        "sets": [
            {
                "name": name,
                "verdicts": {v: sum(r is not None and r.verdict == v for r in one) for v in VERDICTS},
                "cactus": cactus(r for r in one if r is not None),
            }
            for name, one in zip(names, sets, strict=True)
        ],
        "kinds": {kind: sum(pair.kind == kind for pair in pairs) for kind in KINDS},
        "instances": [
            {
                "net": pair.name[0],
                "spec": pair.name[1],
                "kind": pair.kind,
                "verdicts": [None if r is None else r.verdict for r in (pair.first, pair.second)],
                "seconds": [None if r is None else r.seconds for r in (pair.first, pair.second)],
            }
            for pair in pairs
        ],
    }
