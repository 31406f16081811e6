"""Certificates of real instances: whether each is confirmed, how large it is, and what making and checking it costs.

    python -m benchmarks.certificates [--sets S ...] [--every N] [--only TEXT ...] [--seconds T] [--semantics S]
        [--json F]

Needs ZONOCUDA_TEST_DATA. Every instance (of each set every N-th, those whose names hold a TEXT) is verified without a
certificate, then with one; what is verified is written, and checked in one process. A line for each:

    proof      CPU seconds of the verdict without a certificate
    making     of a verdict with one, beyond that, as a part of it
    check      CPU seconds of the check, the reading of the files included, as a multiple of the proof's
    size       of the file
    leaves, lemmas   of proofs by splitting

and one for each set, with the median and the largest multiple of the check.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar, get_args

from benchmarks.machine import commit_info, machine_info
from tests.data import data_root
from zonocuda.checker import CertificateError, check
from zonocuda.verifier import VerifyResult, verify
from zonocuda.verifier.arguments import Semantics

SETS = ("acasxu", "reach_prob_density", "mnist_fc")
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One instance; seconds and sizes are 0 where there is nothing to check."""

    set: str
    name: str
    verdict: str
    proof: float
    making: float = 0.0
    check: float = 0.0
    bytes: int = 0
    leaves: int = 0
    lemmas: int = 0
    outcome: str = ""

    def __str__(self) -> str:
        start = f"{self.set:20} {self.name:32} {self.verdict:10} {self.proof:8.2f}"
        if not self.check:
            return f"{start} {self.outcome}"
        costs = f"{self.making / self.proof:7.2f} {self.check:8.2f} {self.check / self.proof:7.2f}"
        return f"{start} {costs} {self.bytes / 1000:9.1f} {self.leaves:8} {self.lemmas:6} {self.outcome}"


WIDTHS = {"set": -20, "instance": -32, "verdict": -10, "proof": 8, "making": 7, "check": 8, "times": 7, "kB": 9}
HEAD = " ".join(f"{name:{'<' if n < 0 else '>'}{abs(n)}}" for name, n in {**WIDTHS, "leaves": 8, "lemmas": 6}.items())


def instances(name: str, every: int, only: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Networks and specifications of a set."""
    folder = data_root() / "vnncomp" / name
    with (folder / "instances.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows[::every]:
        if not only or any(text in f"{row['onnx']} {row['vnnlib']}" for text in only):
            yield folder / row["onnx"], folder / row["vnnlib"]


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and its CPU seconds."""
    begin = time.process_time()
    return call(), time.process_time() - begin


def measured(name: str, net: Path, spec: Path, seconds: float, semantics: Semantics) -> Row:
    """One instance."""
    names = (path.name.split(".onnx")[0].split(".vnnlib")[0] for path in (net, spec))
    title = " ".join(part.removeprefix("ACASXU_run2a_").removesuffix("_batch_2000") for part in names)

    def proof(certificate: bool) -> VerifyResult:
        return verify(net, spec, timeout=seconds, semantics=semantics, certificate=certificate)

    first, plain = timed(lambda: proof(False))
    if not first.verified:
        return Row(name, title, str(first.verdict), plain)
    result, whole = timed(lambda: proof(True))
    if not result.verified or result.certificate is None or result.certificate.reason:
        reason = result.certificate.reason if result.certificate else f"then {result.verdict}"
        return Row(name, title, str(first.verdict), plain, whole - plain, outcome=f"NONE: {reason}")
    size = result.certificate.forest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "certificate.zip"
        path.write_bytes(result.proof(net, spec))
        count = path.stat().st_size
        try:
            found, cost = timed(lambda: check(path, net, spec))
            outcome = "confirmed" if found.confirmed else f"NOT CONFIRMED: {found.reason}"
        except CertificateError as error:
            cost, outcome = 0.0, f"NOT CONFIRMED: {error}"
    trees = (0, 0) if size is None else (size.leaves, size.lemmas)
    return Row(name, title, str(first.verdict), plain, whole - plain, cost, count, *trees, outcome)


def summary(name: str, rows: list[Row]) -> str:
    """A set in one line."""
    verified = [row for row in rows if row.verdict == "verified"]
    done = [row for row in verified if row.outcome == "confirmed"]
    line = f"{name}: {len(done)} confirmed of {len(verified)} verified, of {len(rows)}"
    if not done:
        return line
    times, making = ([getattr(row, what) / row.proof for row in done] for what in ("check", "making"))
    costs = f"check {statistics.median(times):.2f} times the proof's CPU time in the median, {max(times):.2f} at most"
    parts = f"making {statistics.median(making):.2f} of it in the median, {max(making):.2f} at most"
    return f"{line}; {costs}; {parts}; {max(row.bytes for row in done) / 1e6:.2f} MB at most"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--semantics", choices=get_args(Semantics), default="real")
    parser.add_argument("--json")
    options = parser.parse_args()
    print(HEAD)
    rows: list[Row] = []
    for net, spec in [pair for name in options.sets for pair in instances(name, options.every, options.only)][:1]:
        measured("", net, spec, options.seconds, options.semantics)  # what is done once in a process
    for name in options.sets:
        own = []
        for net, spec in instances(name, options.every, options.only):
            own.append(measured(name, net, spec, options.seconds, options.semantics))
            print(own[-1], flush=True)
        print(summary(name, own), flush=True)
        rows += own
    if options.json:
        facts = {"date": date.today().isoformat(), **commit_info(), **machine_info()}
        Path(options.json).write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
