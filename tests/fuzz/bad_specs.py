"""VNN-LIB files with faults, of version 1.0 and 2.0."""

from __future__ import annotations

import gzip
import random
import re
import zlib
from functools import cache

from tests.cli.files import DISTANCE
from tests.fuzz.case import Case
from tests.importers.onnx_models import model, op

OPTIONS = ("--effort", "fast", "--timeout", "5", "--device", "cpu", "--memory-budget", "0.5")
DECLARED = "".join(f"(declare-const {v} Real)\n" for v in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "".join(f"(assert (>= X_{j} -0.5))\n(assert (<= X_{j} 0.75))\n" for j in (0, 1))
HEADER_2 = "(vnnlib-version <2.0>)\n(declare-network N (declare-input X real [1, 2]) (declare-output Y real [2]))\n"
BOX_2 = "".join(f"(assert (and (>= X[0,{j}] -0.5) (<= X[0,{j}] 0.75)))\n" for j in (0, 1))
ROW, ROW_2 = "(assert (<= Y_0 -1))\n", "(assert (<= Y[0] -1.0))\n"

NUMBERS = (
    *("0", "-0", "+5", "1e999", "-1e999", "1e-999", "1e308", "1.8e308", "3.5e38", "-3.5e38", "1e-46", "1e", "e5"),
    *("nan", "inf", "-inf", "0x10", "1_0", "1.2.3", "--1", "", ".", "1e1e1", "\u0661", "1e99999999999", "1/3"),
    *("9" * 400, "9" * 5000, "0." + "1" * 900, "0." + "1" * 5000, "1e1000", "1e-1000", "0.1"),
)

FAULTS_1 = (
    (DECLARED + ROW, "an input without bounds"),
    (DECLARED + "(assert (<= X_0 1))(assert (<= X_1 1))(assert (>= X_1 0))" + ROW, "an input with one bound"),
    (DECLARED + BOX.replace("0.75", "1e999") + ROW, "a bound beyond float64"),
    (DECLARED + BOX.replace("0.75", "nan") + ROW, "a bound that is not a number"),
    (DECLARED + BOX + "(assert (<= Y_0 1e999))", "a row beyond float64"),
    (DECLARED + BOX + "(assert (<= Y_2 0))", "an output that is not declared"),
    (DECLARED + "(declare-const X_2 Real)(assert (<= X_2 1))(assert (>= X_2 0))" + BOX + ROW, "three inputs"),
    (DECLARED + "(declare-const Y_2 Real)" + BOX + ROW, "three outputs"),
    (DECLARED.replace("(declare-const Y_1 Real)\n", "") + BOX + ROW, "one output"),
    (DECLARED + BOX + "(assert (<= (* Y_0 Y_1) 0))", "a product of variables"),
    (DECLARED + BOX + "(assert (sin Y_0))", "an operator that is not known"),
    (DECLARED + BOX + ROW[:-3], "a parenthesis that is not closed"),
    (DECLARED + BOX + ROW + ")", "a parenthesis too many"),
    (DECLARED + BOX + "(assert " + "(and " * 5000 + "(<= Y_0 1)" + ")" * 5001, "parentheses without end"),
    (DECLARED + BOX + "(assert " + "(not " * 300_000, "parentheses that nobody closes"),
    (DECLARED + BOX + "(assert (and" + " (or (<= Y_0 1) (<= Y_1 1))" * 40 + "))", "2^40 conjunctions"),
    ("\x00" * 100, "null bytes"),
    (HEADER_2 + BOX + ROW, "version 1.0 below the head of version 2.0"),
    (HEADER_2.replace("[1, 2]", "[1, 3]") + BOX_2 + ROW_2, "three inputs, version 2.0"),
    (HEADER_2.replace("[1, 2]", "[1000000, 1000000]") + BOX_2 + ROW_2, "10^12 inputs, version 2.0"),
    (HEADER_2.replace("[1, 2]", "[99999999999999999999]") + BOX_2 + ROW_2, "an extent beyond 64 bits, version 2.0"),
    (HEADER_2.replace("[1, 2]", "[0]") + ROW_2, "no inputs, version 2.0"),
    (HEADER_2 + ROW_2, "an input without bounds, version 2.0"),
    (HEADER_2 + BOX_2 + "(assert (<= Y[7] 0.0))", "an index that does not exist, version 2.0"),
    (HEADER_2 + BOX_2 + "(assert (<= Y[0] 1e999))", "a row beyond float64, version 2.0"),
    (HEADER_2 + BOX_2 + "(assert " + "(and " * 5000, "parentheses without end, version 2.0"),
    (HEADER_2.replace("real", "float16") + BOX_2 + ROW_2, "an element type of its own arithmetic, version 2.0"),
    (HEADER_2.replace("<2.0>", "<3.0>") + BOX_2 + ROW_2, "version 3.0"),
)
"""Texts that must be refused."""

EMPTY = (
    (DECLARED + BOX + "(assert (>= X_0 0.8))" + ROW, "every input box is empty"),
    (DECLARED + BOX + "(assert (<= X_1 -0.50000000000000000000000000001))" + ROW, "every input box is empty"),
    (DECLARED + "(assert (>= X_0 1))(assert (<= X_0 -1))" + ROW, "every input box is empty"),
    (HEADER_2 + BOX_2 + "(assert (>= X[0,0] 0.8))" + ROW_2, "every input box is empty"),
    (DECLARED + BOX + "(assert (or (and (<= X_0 -1) (<= Y_0 0)) (and (>= X_1 1) (<= Y_1 0))))", "input box is empty"),
    (DECLARED + BOX + "(assert (<= 1 0))", "the specification has no unsafe region"),
    (DECLARED + BOX + "(assert (and (<= Y_0 1) (> 0 0)))", "the specification has no unsafe region"),
)
"""Texts that no point satisfies, with the reason of the verdict ``verified``."""


def good_spec(rng: random.Random, inputs: int, outputs: int) -> bytes:
    """A small box and one or two rows."""
    lines = [f"(declare-const X_{j} Real)" for j in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for j in range(inputs):
        low = rng.uniform(-1, 1)
        lines += [f"(assert (>= X_{j} {low}))", f"(assert (<= X_{j} {low + rng.choice((0, 0.01, 1))}))"]
    for _ in range(rng.choice((1, 2))):
        lines.append(f"(assert (<= Y_{rng.randrange(max(1, outputs))} {rng.choice((-1e3, -1, 0, 1))}))")
    return "\n".join(lines).encode()


def network() -> bytes:
    """Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1."""
    import numpy as np

    weights = {f"w{i}": np.array(m, dtype=np.float32) for i, m in enumerate(DISTANCE)}
    nodes = [op("Gemm", "x w0", "h", transB=1), op("Relu", "h", "r"), op("Gemm", "r w1", transB=1)]
    content: bytes = model(nodes, [1, 2], weights).SerializeToString()
    return content


def spec_case(rng: random.Random) -> Case:
    """A property of a fixed network with a fault, or that nothing satisfies, or changed at random."""
    name, content, codes, says = "p.vnnlib", b"", (0, 2), ""
    kind = rng.randrange(8)
    if kind == 0:
        text, title = rng.choice(FAULTS_1)
        content, codes = text.encode(), (2,)
    elif kind == 1:
        text, says = rng.choice(EMPTY)
        title, content, codes = f"nothing satisfies it: {says}", text.encode(), (0,)
    elif kind == 2:
        title, name, content, codes = compressed(rng)
    elif kind == 3:
        title, content = "noise", rng.randbytes(rng.choice((0, 1, 10, 1000)))
        codes = (2,)
    else:
        text = random_spec(rng)
        title = "a random property"
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            change = rng.choice(CHANGES)
            title += f" + {change.__name__}"
            text = change(rng, text)
        content = text.encode("utf-8", "replace")
    files: dict[str, bytes | None] = {"net.onnx": network(), name: content}
    if rng.random() < 0.01:
        title, codes, says, files[name] = "a folder", (2,), "", None
    return Case(title, files, ("verify", "@net.onnx", f"@{name}", *OPTIONS), codes, says)


def compressed(rng: random.Random) -> tuple[str, str, bytes, tuple[int, ...]]:
    """A gzip stream: whole, truncated, damaged, not one at all, or one that fills the memory."""
    good = (DECLARED + BOX + ROW).encode()
    whole = gzip.compress(good)
    match rng.choice((0, 1, 1, 2, 2, 3, 4, 5)):
        case 0:
            return "compressed", "p.vnnlib.gz", whole, (0,)
        case 1:
            return "truncated", "p.vnnlib.gz", whole[: rng.randrange(1, len(whole) - 1)], (2,)
        case 2:
            changed = bytearray(whole)
            changed[rng.randrange(10, len(whole))] ^= 1 << rng.randrange(8)
            return "damaged", "p.vnnlib.gz", bytes(changed), (2,)
        case 3:
            return "not compressed", "p.vnnlib.gz", good, (2,)
        case 4:
            return "compressed, and does not say so", "p.vnnlib", whole, (2,)
        case _:
            return "a bomb", "p.vnnlib.gz", bomb(b"("), (2,)


@cache
def bomb(unit: bytes, size: int = (1 << 28) + (1 << 20)) -> bytes:
    """A gzip file of about a megabyte that decompresses to ``size`` bytes, more than any reader takes."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = unit * ((1 << 20) // len(unit))
    return b"".join([packer.compress(block) for _ in range(size // len(block))] + [packer.flush()])


def term(rng: random.Random, depth: int) -> str:
    """A random arithmetic term, linear or not."""
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(("X_0", "X_1", "Y_0", "Y_1", "Y_0", "Y_1", f"{rng.uniform(-2, 2):.3f}", rng.choice(NUMBERS)))
    parts = " ".join(term(rng, depth - 1) for _ in range(rng.choice((1, 2, 2, 3))))
    return f"({rng.choice('+-*/')} {parts})"


def formula(rng: random.Random, depth: int) -> str:
    """A random formula."""
    if depth == 0 or rng.random() < 0.3:
        return f"({rng.choice(('<=', '>=', '<', '>', '=', '!='))} {term(rng, 2)} {term(rng, 2)})"
    parts = " ".join(formula(rng, depth - 1) for _ in range(rng.choice((1, 2, 3))))
    return f"({rng.choice(('and', 'or', 'not', '=>'))} {parts})"


def random_spec(rng: random.Random) -> str:
    """A box and random assertions, in either version."""
    bounds = []
    for j in (0, 1):
        low, high = rng.choice(("-0.5", "0", "1e-46", "-1e30")), rng.choice(("0.75", "0", "1e-45", "1e30"))
        bounds.append(f"(assert (>= X_{j} {low}))\n(assert (<= X_{j} {high}))\n")
    rows = "".join(f"(assert {formula(rng, 2)})\n" for _ in range(rng.choice((1, 1, 2))))
    text = "".join(bounds) + rows
    if rng.random() < 0.7:
        return DECLARED + text
    text = re.sub(r"X_(\d)", r"X[0,\1]", text)
    return HEADER_2 + re.sub(r"Y_(\d)", r"Y[\1]", text).replace("(= ", "(== ")


def drop(rng: random.Random, text: str) -> str:
    tokens = re.findall(r"[()]|[^()\s]+", text)
    del tokens[rng.randrange(len(tokens))]
    return " ".join(tokens)


def swap(rng: random.Random, text: str) -> str:
    tokens = re.findall(r"[()]|[^()\s]+", text)
    tokens[rng.randrange(len(tokens))] = rng.choice((*tokens, *NUMBERS, "(", ")", ";", "\n", "\r", "\x00", "\u00e9"))
    return " ".join(tokens)


def repeat(rng: random.Random, text: str) -> str:
    begin = rng.randrange(len(text))
    return text[:begin] + text[begin : begin + rng.choice((1, 20, 200))] * rng.choice((2, 3, 50)) + text[begin:]


def cut(rng: random.Random, text: str) -> str:
    begin = rng.randrange(len(text))
    return text[:begin] + text[begin + rng.choice((1, 5, 50)) :]


def number(rng: random.Random, text: str) -> str:
    found = list(re.finditer(r"-?\d+\.?\d*", text))
    chosen = rng.choice(found)
    return text[: chosen.start()] + rng.choice(NUMBERS) + text[chosen.end() :]


def noise(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + "".join(chr(rng.choice((rng.randrange(32), rng.randrange(0x300)))) for _ in range(3)) + text[at:]


CHANGES = (drop, swap, repeat, cut, number, number, noise)
