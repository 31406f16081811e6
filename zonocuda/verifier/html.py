"""A verdict as a small table for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zonocuda.verifier.result import VerifyResult

SHOWN = 10
"""Rows, and numbers of a point, that the table shows."""


def result_html(result: VerifyResult) -> str:
    """The verdict, what it means and the rows with the smallest bounds; every text is escaped."""
    facts = [("reason", result.reason), ("meaning", result.meaning)]
    if result.margin is not None:
        facts.append(("margin", f"{result.margin:.6g} (smallest of {len(result.margins)} rows)"))
    if result.counterexample is not None:
        facts += [("x", _numbers(result.counterexample.x.flatten().tolist()))]
        facts += [("y", _numbers(result.counterexample.y.flatten().tolist()))]
    facts.append(("seconds", f"{result.seconds.get('total', 0.0):.3f}"))
    parts = [f"<b>{escape(str(result.verdict))}</b>", _table(facts)]
    known = [row for row in result.margins if row.lower is not None]
    worst = sorted(known, key=lambda row: row.lower or 0.0)[:SHOWN]
    if worst:
        cells = [(str(row.region), row.constraint, f"{row.lower:.6g}", row.dtype) for row in worst]
        parts.append(_table(cells, ("region", "unsafe where", "lower bound", "dtype")))
    if len(known) > len(worst):
        parts.append(f"{len(known) - len(worst)} more rows")
    return "<div>" + "".join(parts) + "</div>"


def _numbers(values: list[float]) -> str:
    shown = ", ".join(f"{value:.9g}" for value in values[:SHOWN])
    return shown if len(values) <= SHOWN else f"{shown}, ... ({len(values)} numbers)"


def _table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in ([heads] if heads else []) + lines) + "</table>"
