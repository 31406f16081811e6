"""Runs that are killed (SIGKILL) at random moments and gone on with: the verdict must be that of a run that lives.

python -m tests.verifier.kill_loop --count 50      50 kills of each of two searches
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path

from tests.verifier.checkpoint_cases import CASES, small_batches


def child(name: str, folder: Path | None, out: Path) -> int:
    """Starts a run, which writes what it found to a file; its process."""
    process = os.fork()
    if process:
        return process
    try:
        run(name, folder, out)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run(name: str, folder: Path | None, out: Path) -> None:
    """Verifies, with a certificate, which is checked."""
    from zonocuda.checker import check
    from zonocuda.verifier import verify

    make, options = CASES[name]
    graph, problem = make()
    with small_batches(name):
        result = verify(
            graph,
            problem,
            timeout=200.0,
            device="cpu",
            certificate=True,
            checkpoint=folder,
            resume=folder is not None,
            **options,
        )
    found = {"verdict": str(result.verdict), "confirmed": check(result, graph, problem).confirmed}
    out.with_suffix(".tmp").write_text(json.dumps({**found, "boxes": [split.boxes for split in result.splits]}))
    os.replace(out.with_suffix(".tmp"), out)


def wait(process: int) -> None:
    """Waits for a process, which must end well."""
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"a run ended with status {status}")


def kills(name: str, count: int, chance: random.Random) -> None:
    """So many kills of runs of one case; a run that ends is followed by one that begins anew."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out.json"
        begin = time.monotonic()
        wait(child(name, None, out))
        seconds = time.monotonic() - begin
        wanted = json.loads(out.read_text())
        killed = finished = 0
        while True:
            out.unlink(missing_ok=True)
            folder = Path(place) / f"state{finished}"
            process = child(name, folder, out)
            time.sleep(chance.uniform(0, 1.1 * seconds))
            if killed < count and not out.exists():
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                killed += 1
                continue
            wait(process)
            finished += 1
            found = json.loads(out.read_text())
            print(f"{name}: {killed} killed, {finished} finished: {found}", flush=True)
            if found != wanted:
                raise SystemExit(f"{name}: found {found}, wanted {wanted}")
            if killed >= count:  # all kills were followed by a run that ended
                return


def main() -> None:
    """As the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="kills of each case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    for name in ("input", "neuron"):
        kills(name, options.count, chance)


if __name__ == "__main__":
    main()
