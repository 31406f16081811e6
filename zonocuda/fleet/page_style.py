"""The style and the program of a report's page."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --soft: #555; --line: #ddd; --ground: #fff; --curve: #1f5a96;
  --green: #15803d; --red: #b91c1c; --yellow: #a16207; --violet: #a21caf }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --soft: #a8a8a8; --line: #3a3a3a; --ground: #161616;
  --curve: #7fb2e5; --green: #4ade80; --red: #f87171; --yellow: #facc15; --violet: #e879f9 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--text);
  background: var(--ground) }
h1, h3 { overflow-wrap: anywhere } h2 { margin-top: 2.5rem } .headline { font-size: 18px }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
td, th { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td { overflow-wrap: anywhere; min-width: 4rem } td.text { min-width: 9rem }
td.number { text-align: right; white-space: nowrap }
th button { all: unset; cursor: pointer; font-weight: 600; white-space: nowrap }
th button:focus-visible { outline: 2px solid var(--curve) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.verified { color: var(--green) } .falsified { color: var(--red) } .unknown, .timeout { color: var(--yellow) }
.error { color: var(--violet) } dt { font-weight: 600 } dd { margin: 0 0 .6rem }
form { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin-bottom: .8rem } input, select { font: inherit }
figure { margin: .5rem 0 } figure svg { width: 100%; max-width: 40rem; height: auto; display: block }
figure.picture { display: inline-block; margin-right: 1.5rem } img { image-rendering: pixelated; width: 8rem }
figcaption, footer { font-size: 13px; color: var(--soft); max-width: 40rem } footer { margin-top: 3rem }
summary { cursor: pointer; overflow-wrap: anywhere } svg text { font: 12px system-ui, sans-serif; fill: var(--text) }
svg .grid { stroke: var(--line) } svg .curve { fill: none; stroke: var(--curve); stroke-width: 2 }
svg .bar, svg .node { fill: var(--curve) } svg .leaf { fill: var(--green) }
"""

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
