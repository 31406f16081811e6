"""What a proof about the executed network costs in margin and in proofs, beside one about the real network.

    python -m benchmarks.executed_cost [--count 3] [--sets mnist_fc ...] [--effort fast]

Needs ZONOCUDA_TEST_DATA. For the first instances of every set that others proved, bounds in float64 by
:func:`zonocuda.verify` in the dual direction, without its search for counterexamples. One line a set:

    real, float32, float64   how many properties are proven in each semantics
    margin                   the largest |difference| of a row's bound to that of ``real``, over the largest bound, for
                             float32 and float64
    seconds                  of the proofs, by semantics
"""

from __future__ import annotations

import argparse
import time

import torch

import zonocuda.verifier.verification as verification
from benchmarks.rounding_cost import SETS, images, instances
from zonocuda.verifier import Verdict, VerifyResult, verify

SEMANTICS = ("real", "float32", "float64")


def difference(real: VerifyResult, other: VerifyResult) -> float:
    """The largest difference of the rows' bounds, over the largest bound."""
    pairs = [(a.lower, b.lower) for a, b in zip(real.margins, other.margins, strict=True)]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return max(abs(a - b) for a, b in known) / max(abs(a) for a, _ in known)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--sets", nargs="*", default=[*SETS, "wong_kolter", "eran"])
    arguments = parser.parse_args()
    verification.falsify = lambda *args, **options: None
    verification.replay = lambda *args, **options: None
    print(
        f"{'set':30} {'n':>3} {'real':>5} {'float32':>8} {'float64':>8} {'margin in float32, float64':>28}"
        f" {'seconds':>20}"
    )
    for name in arguments.sets:
        proven, margin, seconds = (
            dict.fromkeys(SEMANTICS, 0),
            dict.fromkeys(SEMANTICS, 0.0),
            dict.fromkeys(SEMANTICS, 0.0),
        )
        cases = list((images if name in ("wong_kolter", "eran") else instances)(name, arguments.count))
        for network, spec in cases:
            results = {}
            for semantics in SEMANTICS:
                begin = time.perf_counter()
                results[semantics] = verify(
                    network,
                    spec,
                    dtype=torch.float64,
                    effort=arguments.effort,
                    semantics=semantics,
                    direction="dual",
                )
                seconds[semantics] += time.perf_counter() - begin
                proven[semantics] += results[semantics].verdict is Verdict.VERIFIED
                margin[semantics] = max(margin[semantics], difference(results["real"], results[semantics]))
        print(
            f"{name:30} {len(cases):3} {proven['real']:5} {proven['float32']:8} {proven['float64']:8}"
            f" {100 * margin['float32']:18.2g} % {100 * margin['float64']:5.1g} %"
            f"  {' '.join(f'{seconds[s]:6.2f}' for s in SEMANTICS)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
