"""The program of a report's page: its table is sorted and filtered."""

SCRIPT = """
"use strict";
const body = document.querySelector("#instances tbody"), rows = [...body.rows];
const heads = [...document.querySelectorAll("#instances th")];
const text = document.querySelector("#text"), verdict = document.querySelector("#verdict");
function show() {
  const wanted = text.value.toLowerCase();
  let count = 0;
  for (const row of rows) {
    const seen = ["", row.dataset.verdict].includes(verdict.value) && row.textContent.toLowerCase().includes(wanted);
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
verdict.addEventListener("change", show);
show();
"""
