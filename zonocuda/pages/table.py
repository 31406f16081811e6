"""A table of a page that is sorted by its heads, and filtered by text and by a word of each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Cell(NamedTuple):
    """What is shown, what it is sorted by, and its class: ``number``, ``text``, or a word of the style."""

    shown: str
    value: str
    kind: str = "text"

    @staticmethod
    def number(value: float | None, places: str) -> Cell:
        """A number in a format; empty for None."""
        return Cell("", "", "number") if value is None else Cell(format(value, places), repr(value), "number")


class Line(NamedTuple):
    """A row: the word that it is filtered by, and its cells."""

    word: str
    cells: Sequence[Cell]


def table(columns: Sequence[str], lines: Sequence[Line], label: str, words: Sequence[str]) -> str:
    """The table and what filters it; :data:`SCRIPT` makes them work.

    Args:
        columns: the heads.
        lines: in the order at first.
        label: of the choice among words.
        words: in its order; those of no row are left out.
    """
    counts = Counter(line.word for line in lines)
    options = "".join(
        f'<option value="{escape(word)}">{escape(word)} ({counts[word]:,})</option>' for word in words if counts[word]
    )
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}</button></th>' for name in columns
    )
    return (
        '<form id="filter"><label>Text <input type="search" id="text" placeholder="network, property, reason"></label> '
        f'<label>{escape(label)} <select id="word"><option value="">all ({len(lines):,})</option>{options}</select>'
        '</label> <output id="count"></output></form>'
        f'<div class="scroll"><table id="instances"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(map(_row, lines))}</tbody></table></div>"
    )


def _row(line: Line) -> str:
    cells = (
        f'<td class="{escape(cell.kind)}" data-value="{escape(cell.value)}">{escape(cell.shown)}</td>'
        for cell in line.cells
    )
    return f'<tr data-word="{escape(line.word)}">{"".join(cells)}</tr>'


SCRIPT = """
"use strict";
const body = document.querySelector("#instances tbody"), rows = [...body.rows];
const heads = [...document.querySelectorAll("#instances th")];
const text = document.querySelector("#text"), word = document.querySelector("#word");
function show() {
  const wanted = text.value.toLowerCase();
  let count = 0;
  for (const row of rows) {
    const seen = ["", row.dataset.word].includes(word.value) && row.textContent.toLowerCase().includes(wanted);
    row.hidden = !seen;
    count += seen;
  }
  document.querySelector("#count").textContent = count.toLocaleString("en") + " shown";
}
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending";
  const order = down ? "descending" : "ascending";
  heads.forEach(other => other.setAttribute("aria-sort", other === head ? order : "none"));
  const value = row => row.cells[column].dataset.value;
  const numeric = body.rows.length > 0 && body.rows[0].cells[column].classList.contains("number");
  const compare = (a, b) => {
    if (!numeric) return value(a).localeCompare(value(b), "en", {numeric: true});
    const [x, y] = [a, b].map(row => value(row) === "" ? NaN : Number(value(row).replace("inf", "Infinity")));
    return Number.isNaN(x) ? (Number.isNaN(y) ? 0 : 1) * (down ? -1 : 1) : Number.isNaN(y) ? (down ? 1 : -1) : x - y;
  };
  rows.sort((a, b) => (down ? -1 : 1) * compare(a, b));
  body.append(...rows);
}));
document.querySelector("#filter").addEventListener("submit", event => event.preventDefault());
text.addEventListener("input", show);
word.addEventListener("change", show);
show();
"""
"""The program of a page with one such table."""
