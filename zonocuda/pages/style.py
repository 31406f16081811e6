"""The style of every page, in light and in dark."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --soft: #555; --line: #ddd; --ground: #fff; --curve: #1f5a96;
  --green: #15803d; --red: #b91c1c; --yellow: #a16207; --violet: #a21caf }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --soft: #a8a8a8; --line: #3a3a3a; --ground: #161616;
  --curve: #7fb2e5; --green: #4ade80; --red: #f87171; --yellow: #facc15; --violet: #e879f9 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--text);
  background: var(--ground) }
h1, h3, p, li, figcaption { overflow-wrap: anywhere } h2 { margin-top: 2.5rem } .headline { font-size: 18px }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
td, th { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td { overflow-wrap: anywhere; min-width: 4rem } td.text { min-width: 9rem }
td.number, th.number { text-align: right; white-space: nowrap; min-width: 0 } td.word { white-space: nowrap }
th button { all: unset; cursor: pointer; font-weight: 600; white-space: nowrap }
th button:focus-visible { outline: 2px solid var(--curve) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.verified, .none, .same { color: var(--green) } .falsified, .bifurcation, .contradiction { color: var(--red) }
.unknown, .timeout, .compensation { color: var(--yellow) } .error, .not-finite { color: var(--violet) }
dt { font-weight: 600 } dd { margin: 0 0 .6rem }
form { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin-bottom: .8rem } input, select { font: inherit }
figure { margin: .5rem 0 } figure svg { width: 100%; max-width: 40rem; height: auto; display: block }
figure.picture { display: inline-block; margin-right: 1.5rem } img { image-rendering: pixelated; width: 8rem }
figcaption, footer { font-size: 13px; color: var(--soft); max-width: 40rem } footer { margin-top: 3rem }
summary { cursor: pointer; overflow-wrap: anywhere } svg text { font: 12px system-ui, sans-serif; fill: var(--text) }
svg .grid { stroke: var(--line) } svg .curve { fill: none; stroke: var(--curve); stroke-width: 2 }
svg .other { stroke: var(--yellow); stroke-dasharray: 7 4 }
svg .bar, svg .node { fill: var(--curve) } svg .leaf { fill: var(--green) } svg .second { fill: var(--yellow) }
"""
