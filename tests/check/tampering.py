"""Certificates moved to false properties, and tampered with in every way one thinks of: how many the check confirms.

    python -m tests.check.tampering [--claims 1000] [--edits 1000] [--first 0] [--kinds K ...]

claims: certificates of proofs of every kind (``KINDS`` of :mod:`tests.check.attacks`), as they are, with other slopes,
or edited, with properties that a point violates exactly; none may be confirmed. edits: those of ``EDITS``
(:mod:`tests.check.tree_edits`) and of files, with the property that was proven and with one that is false; what is
confirmed of the first must be a proof, which balls confirm, too. ``--first`` is the seed to begin with, where a run is
to go on. A line for each kind says how many were tried, and how many of them were proofs still.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.check.attacks import KINDS, Proof, false_claims
from tests.check.certificates import inline, random_slopes
from tests.check.neuron_trees import with_forest
from tests.check.test_tampering import mutated
from tests.check.tree_edits import EDITS
from zonocuda.checker import CertificateError
from zonocuda.checker.certificate import read_document
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.forest import ForestRecord

PER_PROOF = 16
"""False claims of one certificate, and edits."""
FILES = ("a truncated file", "a file with other bytes", "an oversized file")


@dataclass
class Counts:
    """What was tried, by kind, and what of it was confirmed."""

    tried: Counter[str] = field(default_factory=Counter)
    confirmed: Counter[str] = field(default_factory=Counter)
    proofs: int = 0

    @property
    def total(self) -> int:
        """All that was tried."""
        return sum(self.tried.values())

    def lines(self) -> Iterator[str]:
        """One for each kind."""
        for name, tried in sorted(self.tried.items()):
            yield f"{name:36} {tried:6} {self.confirmed[name]:6}"


class ConfirmedError(Exception):
    """A certificate was confirmed that proves nothing."""


def forest_of(certificate: Certificate) -> ForestRecord | None:
    """Its trees, if it has any."""
    return certificate.regions[0].forest if certificate.regions else None


def claim(proof: Proof, kind: str, seed: int, counts: Counts, most: int = PER_PROOF) -> None:
    """Tries a certificate with false properties.

    Raises:
        ConfirmedError: one was confirmed.
    """
    rng, entry, forest = random.Random(seed), inline(proof.certificate), forest_of(proof.certificate)
    for number, wrong in enumerate(false_claims(proof, most, seed)):
        held = entry
        match number % 4:
            case 1:
                held = mutated(entry, rng)
            case 2:
                held = random_slopes(entry, seed + number)
            case 3 if forest is not None:
                edit = EDITS[rng.choice(sorted(EDITS))]
                held = inline(with_forest(proof.certificate, edit(forest, forest, rng)))
        counts.tried[kind] += 1
        if proof.checked(held, wrong).confirmed:
            raise ConfirmedError(f"a false claim of kind {kind!r}, seed {seed}, number {number}")


def edited(
    proof: Proof,
    other: Proof | None,
    seed: int,
    counts: Counts,
    most: int = PER_PROOF,
    names: Sequence[str] = tuple(sorted(EDITS)),
) -> None:
    """Tries edits of a certificate's trees; ``other`` is a proof of the same kind about another network.

    Raises:
        ConfirmedError: one is confirmed of a false property, or by float64 and not by balls.
    """
    forest, rng = forest_of(proof.certificate), random.Random(seed)
    if forest is None:
        return
    foreign = None if other is None else forest_of(other.certificate)
    (wrong,) = false_claims(proof, 1, seed)
    for number in range(most):
        name = names[(seed * most + number) % len(names)]
        held = inline(with_forest(proof.certificate, EDITS[name](forest, foreign or forest, rng)))
        counts.tried[name] += 1
        if proof.checked(held, wrong).confirmed:
            raise ConfirmedError(f"{name}: a false claim, seed {seed}, number {number}")
        if proof.checked(held).confirmed:
            counts.confirmed[name] += 1
            if not proof.checked(held, exact=True).confirmed:
                raise ConfirmedError(f"{name}: balls do not confirm what float64 does, seed {seed}, number {number}")


def edited_files(proof: Proof, seed: int, counts: Counts, path: Path) -> None:
    """Tries edits of a certificate's file: none is read as something else.

    Raises:
        ConfirmedError: one is confirmed of a false property.
    """
    proof.certificate.save(path)
    whole, rng = path.read_bytes(), random.Random(seed)
    (wrong,) = false_claims(proof, 1, seed)
    for name in FILES:
        content = bytearray(whole)
        match name:
            case "a truncated file":
                del content[rng.randrange(len(content)) :]
            case "a file with other bytes":
                for _ in range(rng.randint(1, 3)):
                    content[rng.randrange(len(content))] = rng.randrange(256)
            case _:  # lengths that its directory states, of members and of itself
                place = content.rindex(b"PK\x01\x02") + rng.choice([20, 24, 42])
                content[place : place + 4] = rng.choice([0xFFFFFFFE, 2**31, 2**30]).to_bytes(4, "little")
        path.write_bytes(content)
        counts.tried[name] += 1
        try:
            document = read_document(path)
        except CertificateError:
            continue
        try:
            held = document.fields["certificate"]
            if proof.checked(held, wrong, archive=document.archive).confirmed:
                raise ConfirmedError(f"{name}: a false claim, seed {seed}")
            counts.confirmed[name] += proof.checked(held, archive=document.archive).confirmed
        except CertificateError:
            continue
        finally:
            document.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="ends after so long")
    options = parser.parse_args()
    begin, claims, edits = time.monotonic(), Counts(), Counts()
    last: dict[str, Proof] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in count(options.first):
            if claims.total >= options.claims and edits.total >= options.edits:
                break
            if time.monotonic() - begin > options.seconds:
                print(f"to go on: --first {seed}")
                break
            kind = options.kinds[seed % len(options.kinds)]
            proof = KINDS[kind](seed)
            if proof is None:
                continue
            if not proof.checked(inline(proof.certificate)).confirmed:
                raise SystemExit(f"the proof itself is not confirmed: {kind}, seed {seed}")
            claims.proofs += 1
            if claims.total < options.claims:
                claim(proof, kind, seed, claims)
            if edits.total < options.edits:
                edited(proof, last.get(kind), seed, edits)
                edited_files(proof, seed, edits, Path(folder) / "certificate.zip")
            last[kind] = proof
    print(f"{claims.proofs} proofs; {claims.total} false claims, none confirmed:")
    print("\n".join(claims.lines()))
    print(f"{edits.total} edits; tried, and proofs still:")
    print("\n".join(edits.lines()))


if __name__ == "__main__":
    main()
