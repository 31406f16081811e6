"""Tables of `make compare` in docs/comparison.md, and their summary in docs/tightness.md, from pytest-benchmark's JSON.

    python -m benchmarks.peers.render FILE [--write]

Verdicts that contradict each other come first. For every bound of a peer stands the quickest of our settings whose
margin is no worse by more than 0.001, and by 0.01, times max(|margin|, 1); the ratio is of medians in one run.
``--write`` replaces what stands between the markers of both pages.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.commands import START_UP

DOCS = Path(__file__).parents[2] / "docs"
TOLERANCES = (1e-3, 1e-2)
DECIDED = {"verified", "falsified"}
RESIDUAL = re.compile("resnet|residual")
"""Names of networks with branches that are added."""

Entry = Mapping[str, Any]


def main() -> None:
    """Prints the tables, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = json.loads(options.file.read_text())
    if options.write:
        for name, marker, text in (("comparison", "table", page(found)), ("tightness", "beside", beside(found))):
            document = DOCS / f"{name}.md"
            document.write_text(put(document.read_text(), marker, text))
    else:
        print(page(found))


def put(document: str, marker: str, text: str) -> str:
    """A document with ``text`` between a marker and the next end.

    Raises:
        ValueError: it has no such marker.
    """
    before, found, rest = document.partition(f"<!-- {marker} -->")
    _, end, after = rest.partition("<!-- end -->")
    if not found or not end:
        raise ValueError(f"the document has no place <!-- {marker} --> with an end")
    return f"{before}{found}\n{text}\n{end}{after}"


def page(found: Entry) -> str:
    """All tables of a run."""
    entries = entries_of(found)
    parts = [machine(found, entries), *contradictions(entries), *bounds(entries), *layers(entries), *verdicts(entries)]
    return "\n\n".join(parts)


def beside(found: Entry) -> str:
    """The summary of bounds alone, with where it was measured."""
    entries = entries_of(found)
    return "\n\n".join([machine(found, entries), *summary(entries)])


def entries_of(found: Entry) -> list[Entry]:
    """What each benchmark of a run found."""
    return [{**one["extra_info"], **one["stats"]} for one in found["benchmarks"]]


def machine(found: Entry, entries: Sequence[Entry]) -> str:
    """Where and with what it was measured."""
    cpu = found["machine_info"].get("processor", "unknown processor")
    threads = sorted({str(entry["threads"]) for entry in entries if "threads" in entry})
    peers = {f"auto_LiRPA {e['auto_LiRPA']} with torch {e['torch']}" for e in entries if "auto_LiRPA" in e}
    when = str(found["datetime"])[:10]
    commit = str(found.get("commit_info", {}).get("id", "unknown"))[:7]
    return f"{cpu}, threads: {', '.join(threads)}; {when}, commit {commit}. {'; '.join(sorted(peers))}".strip()


def contradictions(entries: Sequence[Entry]) -> list[str]:
    """Instances where one tool says verified and another, or itself in another run, falsified."""
    by_instance: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in entries:
        if "instance" in entry:
            by_instance[entry["instance"]][entry["who"]] = entry["verdict"]
    if not by_instance:
        return []
    wrong = {name: said for name, said in by_instance.items() if set("/".join(said.values()).split("/")) >= DECIDED}
    if not wrong:
        return [f"Contradicting verdicts: none, of {len(by_instance)} instances."]
    lines = [f"* {name}: " + ", ".join(f"{who} {what}" for who, what in said.items()) for name, said in wrong.items()]
    return ["Contradicting verdicts:\n\n" + "\n".join(lines)]


def tight(entries: Sequence[Entry], peer: Entry, tolerance: float) -> Entry | None:
    """The quickest of our settings on a peer's network whose margin is no worse than the peer's by more than that."""
    least = peer["margin"] - tolerance * max(abs(peer["margin"]), 1)
    ours = (e for e in entries if e["who"] == "zonocuda" and e.get("network") == peer["network"] and "margin" in e)
    return min((e for e in ours if e["margin"] >= least), key=lambda entry: entry["median"], default=None)


def peers_of(entries: Sequence[Entry]) -> list[Entry]:
    """The bounds that are not ours."""
    return [entry for entry in entries if "margin" in entry and entry["who"] != "zonocuda"]


def name(peer: Entry) -> str:
    """Of a peer and its setting."""
    return f"{peer['who']}, {peer['setting']}"


def summary(entries: Sequence[Entry]) -> list[str]:
    """For each setting of a peer, from which to which part of its time ours takes at equal tightness."""
    peers = peers_of(entries)
    if not peers:
        return []
    rows = []
    for setting in dict.fromkeys(map(name, peers)):
        row = [setting]
        for is_residual in (False, True):
            some = [p for p in peers if name(p) == setting and bool(RESIDUAL.search(p["network"])) == is_residual]
            row += [spans(entries, some, tolerance) for tolerance in TOLERANCES]
        rows.append(row)
    kinds = ("others", "residual networks")
    titles = ["peer", *(f"{kind}, within {tolerance:g}" for kind in kinds for tolerance in TOLERANCES)]
    said = "Our time over the peer's at equal tightness, the least and the most over the networks, and on how many:"
    return [said, table(titles, rows)]


def spans(entries: Sequence[Entry], peers: Sequence[Entry], tolerance: float) -> str:
    """The least and the most ratio on the networks of some bounds of a peer."""
    pairs = [(peer, tight(entries, peer, tolerance)) for peer in peers]
    ratios = [ours["median"] / peer["median"] for peer, ours in pairs if ours is not None]
    if not ratios:
        return f"0 of {len(peers)}" if peers else "-"
    return f"{min(ratios):.2f} to {max(ratios):.2f} ({len(ratios)} of {len(peers)})"


def bounds(entries: Sequence[Entry]) -> list[str]:
    """Each bound of a peer, and the quickest of ours that is as tight."""
    peers = peers_of(entries)
    if not peers:
        return []
    rows = []
    for peer in peers:
        cells = [peer["network"], name(peer), f"{peer['margin']:.3f}", spread(peer), mib(peer)]
        for tolerance in TOLERANCES:
            best = tight(entries, peer, tolerance)
            if best is None:
                cells.append("not reached")
            else:
                ratio = best["median"] / peer["median"]
                cells.append(f"{ratio:.2f} ({best['setting']}: {best['margin']:.3f}, {mib(best)})")
        rows.append(cells)
    titles = ["network", "peer", "margin", "median (quartiles)", "memory"]
    titles += [f"our time / its time, within {tolerance:g}" for tolerance in TOLERANCES]
    return ["## Bounds of one image", *summary(entries), table(titles, rows)]


def layers(entries: Sequence[Entry]) -> list[str]:
    """Each layer by our kernels and in plain torch."""
    at = {(entry["layer"], entry["who"]): entry for entry in entries if "layer" in entry}
    rows = []
    for layer in dict.fromkeys(layer for layer, _ in at):
        ours, plain = at.get((layer, "zonocuda")), at.get((layer, "plain torch"))
        if ours is not None and plain is not None:
            ratio = f"{ours['median'] / plain['median']:.2f}"
            rows.append([layer, ours["shape"], spread(plain), spread(ours), ratio, mib(plain), mib(ours)])
    titles = ["layer", "of", "plain torch, median (quartiles)", "ours", "our time / its time", "its memory", "ours"]
    return ["## One layer", table(titles, rows)] if rows else []


def verdicts(entries: Sequence[Entry]) -> list[str]:
    """Verdict and seconds of every tool on every instance, what it takes to start first, and how many it decided."""
    whole = [entry for entry in entries if "instance" in entry]
    if not whole:
        return []
    whole.sort(key=lambda entry: entry["instance"] != START_UP)
    tools = list(dict.fromkeys(entry["who"] for entry in whole))
    at = {(entry["instance"], entry["who"]): entry for entry in whole}
    rows = []
    for instance in dict.fromkeys(entry["instance"] for entry in whole):
        cells = [at.get((instance, tool)) for tool in tools]
        rows.append([instance, *("" if c is None else f"{c['verdict']}, {seconds(c)}, {mib(c)}" for c in cells)])
    real = [entry for entry in whole if entry["instance"] != START_UP]
    decided = [sum(e["verdict"] in DECIDED for e in real if e["who"] == tool) for tool in tools]
    rows.append(["decided", *map(str, decided)])
    return ["## Complete verification, whole processes", table(["instance", *tools], rows)]


def seconds(entry: Entry) -> str:
    """The median of a verification's runs, and between which all lie, where there are several."""
    runs = entry.get("seconds", [entry["median"]])
    span = f" ({min(runs):.1f} to {max(runs):.1f})" if len(runs) > 1 else ""
    return f"{statistics.median(runs):.1f} s{span}"


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
