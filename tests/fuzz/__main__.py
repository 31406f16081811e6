"""``python -m tests.fuzz``: fuzzes until it is stopped or its minutes are up, and replays one case."""

from __future__ import annotations

import argparse
import faulthandler
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import torch

from tests.fuzz.bad_arrays import array_case
from tests.fuzz.bad_certificates import certificate_case
from tests.fuzz.bad_networks import network_case
from tests.fuzz.bad_specs import spec_case
from tests.fuzz.case import Case, execute, limit_memory, report
from tests.importers.module_programs import trial as folding_trial
from tests.soundness.fuzz import CONTROLS, trial
from tests.soundness.module_habits import trial as habits_trial

ADDRESSES = 24 << 30
"""Bytes of address space; torch alone maps several GiB."""

FILES: dict[str, Callable[[random.Random], Case]] = {
    "networks": network_case,
    "specs": spec_case,
    "arrays": array_case,
    "certificates": certificate_case,
}
KINDS = (*FILES, "bounds", "folding", "habits")
REPLAY = "replay with:"
SILENCE = 300.0
"""Seconds after which a worker that has said nothing is taken to hang."""


def run_one(kind: str, seed: int, control: str) -> tuple[str, str]:
    """One case of a kind: what it was, and what is wrong (nothing, if that is empty)."""
    if kind == "bounds":
        return trial(seed, control)
    if kind == "folding":
        return folding_trial(seed)
    if kind == "habits":
        return habits_trial(seed)
    case = FILES[kind](random.Random(f"{kind} {seed}"))
    with tempfile.TemporaryDirectory() as folder:
        done = execute(case, Path(folder))
    return f"exit code {done.code}", report(case, done) if done.faults else ""


def main() -> int:
    """Starts a worker and watches it, or is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="of cases (default: all, in turn)")
    parser.add_argument("--seed", type=int, help="of the first case (default: drawn, and printed)")
    parser.add_argument("--count", type=int, default=sys.maxsize, help="cases (default: no end)")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--every", type=float, default=30.0, metavar="S", help="seconds between lines of progress")
    parser.add_argument("--keep-going", action="store_true", help="goes on after a failure")
    parser.add_argument("--control", default="", choices=CONTROLS, help="an unsoundness to inject")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:], "--worker"]
    if options.seed is None:
        command += ["--seed", str(random.SystemRandom().randrange(2**32))]
    return watch(command)


def watch(command: list[str]) -> int:
    """Runs a worker; where it crashes or says nothing any more, names the case that it was at."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as worker:
        assert worker.stderr is not None
        said: deque[str] = deque(maxlen=40)
        case = ""
        heard = threading.Event()

        def listen() -> None:
            nonlocal case
            for line in worker.stderr or ():
                heard.set()
                if line.startswith(REPLAY):
                    case = line.strip()
                    said.clear()
                else:
                    said.append(line)
            heard.set()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            while listener.is_alive():
                if not heard.wait(SILENCE):
                    print(f"FAILURE: silent for {SILENCE:g} s\n{case}", flush=True)
                    worker.kill()
                    break
                heard.clear()
                listener.join(1.0)
        except KeyboardInterrupt:
            worker.kill()
            print("fuzz: stopped", flush=True)
            return 0
        code = worker.wait()
    if code not in (0, 1):
        print(f"FAILURE: the worker ended with {code}\n{''.join(said)}{case}", flush=True)
    return 1 if code else 0


def work(options: argparse.Namespace) -> int:
    """Case after case."""
    faulthandler.enable()
    limit_memory(ADDRESSES)
    torch.set_num_threads(1)
    kinds = options.kind or list(KINDS)
    begin = last = time.monotonic()
    seen: Counter[str] = Counter()
    failures = count = 0
    print(f"fuzz: {', '.join(kinds)}, seed {options.seed}", flush=True)
    while count < options.count and time.monotonic() - begin < 60 * options.minutes:
        seed, kind = options.seed + count // len(kinds), kinds[count % len(kinds)]
        replay = f"{REPLAY} python -m tests.fuzz --kind {kind} --seed {seed} --count 1"
        replay += f" --control {options.control}" if options.control else ""
        print(replay, file=sys.stderr, flush=True)
        what, fault = run_one(kind, seed, options.control)
        count += 1
        seen[f"{kind}: {what}"] += 1
        if fault:
            failures += 1
            print(f"FAILURE of {kind}, seed {seed}\n{fault}\n{replay}", flush=True)
            if not options.keep_going:
                break
        if time.monotonic() - last > options.every:
            last = time.monotonic()
            print(f"fuzz: {count} cases in {last - begin:.0f} s, {failures} failures, seed {seed}", flush=True)
    table = "\n".join(f"  {number:7d} {what}" for what, number in sorted(seen.items()))
    print(f"fuzz: {count} cases in {time.monotonic() - begin:.0f} s, {failures} failures\n{table}", flush=True)
    return 1 if failures else 0


sys.exit(main())
