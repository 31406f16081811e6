"""The table of a run: what each row must do, how long it took, and what share of the machine's rates that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.machine import Machine


@dataclass(frozen=True)
class Cost:
    """What a call must move and do, however it does it: bytes, and additions and multiplications."""

    bytes: int
    operations: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.operations + other.operations)

    def floor(self, machine: Machine) -> float:
        """The seconds that the larger of both needs at the machine's measured rates."""
        return max(self.bytes / machine.copy_bandwidth, self.operations / machine.product_rate)


def facts(
    machine: Machine, subject: str, cost: Cost | None, seconds: float, host: float | None = None
) -> dict[str, Any]:
    """What a benchmark's JSON says beside its times.

    Args:
        machine: what the device can do.
        subject: what was measured, such as ``native``.
        cost: what the call must do.
        seconds: its time.
        host: how long it keeps the host of a GPU.
    """
    known: dict[str, Any] = {
        "subject": subject,
        "device": machine.name,
        "torch": torch.__version__,
        "copy_gigabytes_per_second": machine.copy_bandwidth / 1e9,
        "product_gigaoperations_per_second": machine.product_rate / 1e9,
    }
    if host is not None:
        known["host_seconds"] = host
    if cost is not None:
        known |= {
            "bytes": cost.bytes,
            "operations": cost.operations,
            "gigabytes_per_second": cost.bytes / seconds / 1e9,
            "gigaoperations_per_second": cost.operations / seconds / 1e9,
            "fraction_of_copy_bandwidth": cost.bytes / seconds / machine.copy_bandwidth,
            "fraction_of_product_rate": cost.operations / seconds / machine.product_rate,
            "fraction_of_floor": cost.floor(machine) / seconds,
        }
    return known


@dataclass(frozen=True)
class Row:
    """One benchmark: its group, its median in seconds, and its facts."""

    group: str
    median: float
    info: Mapping[str, Any]

    @staticmethod
    def of(benchmark: Any) -> Row:
        """From pytest-benchmark's own object."""
        return Row(benchmark.group, benchmark.stats.median, benchmark.extra_info)

    @staticmethod
    def read(entry: Mapping[str, Any]) -> Row:
        """From an entry of its JSON."""
        return Row(entry["group"], entry["stats"]["median"], entry["extra_info"])

    @property
    def subject(self) -> str:
        """Native, reference, yardstick, ..."""
        return str(self.info["subject"])

    def rates(self) -> list[str]:
        """GB/s, share of copy bandwidth, GFLOP/s and share of product rate; dashes where nothing is known."""
        if "bytes" not in self.info:
            return ["-"] * 4
        info = self.info
        return [
            f"{info['gigabytes_per_second']:.2f}",
            f"{info['fraction_of_copy_bandwidth']:.0%}",
            f"{info['gigaoperations_per_second']:.2f}",
            f"{info['fraction_of_product_rate']:.0%}",
        ]


BASELINES = ("reference", "yardstick", "dense", "torch")
HEADER = ("group", "what", "median ms", "GB/s", "of copy", "GFLOP/s", "of GEMM", "faster")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table, in order; ``faster``: how many times faster than the baseline of the row's group."""
    baselines = {row.group: row.median for row in rows if row.subject in BASELINES}
    result = []
    for row in sorted(rows, key=lambda row: (row.group, row.subject)):
        faster = "" if row.subject in BASELINES or row.group not in baselines else baselines[row.group] / row.median
        times = f"{faster:.2f}x" if isinstance(faster, float) else faster
        result.append((row.group, row.subject, f"{row.median * 1e3:.3f}", *row.rates(), times))
    return result


def machines(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each device."""
    for name in sorted({row.info["device"] for row in rows}):
        info = next(row.info for row in rows if row.info["device"] == name)
        yield (
            f"{name}: copies {info['copy_gigabytes_per_second']:.1f} GB/s (read + written), multiplies matrices at "
            f"{info['product_gigaoperations_per_second']:.0f} GFLOP/s, torch {info['torch']}"
        )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table, for a terminal."""
    yield from machines(rows)
    host = {(row.group, row.subject): row.info["host_seconds"] for row in rows if "host_seconds" in row.info}
    lines = [HEADER, *cells(rows)]
    if host:  # of a GPU: how long a call keeps the host
        lines = [(*HEADER, "host ms"), *((*line, _milliseconds(host.get(line[:2]))) for line in lines[1:])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        yield "  ".join([*left, *right]).rstrip()
