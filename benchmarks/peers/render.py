"""Tables of `make compare`: docs/comparison.md, from the JSON of pytest-benchmark.

    python -m benchmarks.peers.render FILE [--write]

Verdicts that contradict each other come first. For every bound of a peer stands the quickest of our settings whose
margin is no worse by more than 0.001, and by 0.01, times max(|margin|, 1); the ratio is of medians in one run.
``--write`` replaces what stands between the markers in docs/comparison.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
TOLERANCES = (1e-3, 1e-2)
DECIDED = {"verified", "falsified"}

Entry = Mapping[str, Any]


def main() -> None:
    """Prints the tables, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = page(json.loads(options.file.read_text()))
    if options.write:
        before, _, rest = PAGE.read_text().partition("<!-- table -->")
        PAGE.write_text(f"{before}<!-- table -->\n{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
    else:
        print(text)


def page(found: Entry) -> str:
    """All tables of a run."""
    entries = [{**one["extra_info"], **one["stats"]} for one in found["benchmarks"]]
    parts = [machine(found, entries), *contradictions(entries), *bounds(entries), *verdicts(entries)]
    return "\n\n".join(parts)


def machine(found: Entry, entries: Sequence[Entry]) -> str:
    """Where and with what it was measured."""
    cpu = found["machine_info"].get("processor", "unknown processor")
    threads = sorted({str(entry["threads"]) for entry in entries if "threads" in entry})
    peers = {f"auto_LiRPA {e['auto_LiRPA']} with torch {e['torch']}" for e in entries if "auto_LiRPA" in e}
    when = str(found["datetime"])[:10]
    commit = str(found.get("commit_info", {}).get("id", "unknown"))[:7]
    return f"{cpu}, threads: {', '.join(threads)}; {when}, commit {commit}. {'; '.join(sorted(peers))}".strip()


def contradictions(entries: Sequence[Entry]) -> list[str]:
    """Instances where one tool says verified and another falsified."""
    by_instance: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in entries:
        if "instance" in entry:
            by_instance[entry["instance"]][entry["who"]] = entry["verdict"]
    if not by_instance:
        return []
    wrong = {name: said for name, said in by_instance.items() if set(said.values()) >= DECIDED}
    if not wrong:
        return [f"Contradicting verdicts: none, of {len(by_instance)} instances."]
    lines = [f"* {name}: " + ", ".join(f"{who} {what}" for who, what in said.items()) for name, said in wrong.items()]
    return ["Contradicting verdicts:\n\n" + "\n".join(lines)]


def bounds(entries: Sequence[Entry]) -> list[str]:
    """Each bound of a peer, and the quickest of ours that is as tight."""
    measured = [entry for entry in entries if "margin" in entry]
    peers = [entry for entry in measured if entry["who"] != "zonocuda"]
    if not peers:
        return []
    rows = []
    for peer in peers:
        cells = [peer["network"], peer["setting"], f"{peer['margin']:.3f}", spread(peer), mib(peer)]
        for tolerance in TOLERANCES:
            least = peer["margin"] - tolerance * max(abs(peer["margin"]), 1)
            ours = [e for e in measured if e["who"] == "zonocuda" and e["network"] == peer["network"]]
            tight = [entry for entry in ours if entry["margin"] >= least]
            if tight:
                best = min(tight, key=lambda entry: entry["median"])
                ratio = best["median"] / peer["median"]
                cells.append(f"{ratio:.2f} ({best['setting']}: {best['margin']:.3f}, {mib(best)})")
            else:
                cells.append("not reached")
        rows.append(cells)
    titles = ["network", "auto_LiRPA", "margin", "median (quartiles)", "memory"]
    titles += [f"our time / its time, within {tolerance:g}" for tolerance in TOLERANCES]
    return ["## Bounds of one image", table(titles, rows)]


def verdicts(entries: Sequence[Entry]) -> list[str]:
    """Verdict and seconds of every tool on every instance, and how many it decided."""
    whole = [entry for entry in entries if "instance" in entry]
    if not whole:
        return []
    tools = list(dict.fromkeys(entry["who"] for entry in whole))
    at = {(entry["instance"], entry["who"]): entry for entry in whole}
    rows = []
    for instance in dict.fromkeys(entry["instance"] for entry in whole):
        cells = [at.get((instance, tool)) for tool in tools]
        rows.append([instance, *("" if c is None else f"{c['verdict']}, {c['median']:.1f} s, {mib(c)}" for c in cells)])
    decided = [sum(e["verdict"] in DECIDED for e in whole if e["who"] == tool) for tool in tools]
    rows.append(["decided", *map(str, decided)])
    return ["## Complete verification, whole processes", table(["instance", *tools], rows)]


def spread(entry: Entry) -> str:
    """The median, and between which the middle half lies; or the only one."""
    if entry.get("rounds") == 1:
        return f"{entry['median'] * 1e3:.1f} ms (one call)"
    return f"{entry['median'] * 1e3:.1f} ms ({entry['q1'] * 1e3:.1f} to {entry['q3'] * 1e3:.1f})"


def mib(entry: Entry) -> str:
    """Its memory."""
    return f"{entry['memory'] / 2**20:.1f} MiB"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()
