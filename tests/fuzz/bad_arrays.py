"""Arrays with faults, for the commands that read them."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile

import numpy as np

from tests.fuzz.bad_networks import BYTES
from tests.fuzz.bad_specs import network
from tests.fuzz.case import Case


def array_case(rng: random.Random) -> Case:
    """``zonocuda bounds`` or ``zonocuda audit`` with a file that holds no array of two numbers."""
    shape = rng.choice(((2,), (1, 2), (3, 2), (2, 1, 1), (), (0,), (5,)))
    kinds = ("<f4", "<f8", "<i8", ">f4", "<c16", "|b1", "<U3", "<M8[s]", "<f2", "|u1", "|V8")
    array = np.zeros(shape, dtype=np.dtype(rng.choice(kinds)))
    if array.size and array.dtype.kind == "f" and rng.random() < 0.3:
        array.reshape(-1)[0] = rng.choice((np.nan, np.inf, 1e30))
    file = io.BytesIO()
    np.save(file, array)
    content, title = file.getvalue(), f"{array.dtype} {shape}"
    codes: tuple[int, ...] = (0, 2)
    match rng.randrange(7):
        case 0:
            content, title, codes = header(rng), "a strange header", (2,)
        case 1:
            content, title, codes = pickled(), "a pickle", (2,)
        case 2:
            content, title, codes = archive(), "an archive", (2,)
        case 3 | 4:
            change = rng.choice(BYTES)
            content, title = change(rng, content), f"{title} + {change.__name__}"
    files: dict[str, bytes | None] = {"net.onnx": network(), "x.npy": content}
    if rng.random() < 0.5:
        return Case(title, files, ("bounds", "@net.onnx", "--center", "@x.npy", "--eps", "0.1"), codes)
    arguments = ("audit", "@net.onnx", "--data", "@x.npy", "--no-certificates")
    if rng.random() < 0.3:
        files["y.npy"] = content
        arguments = (*arguments, "--labels", "@y.npy")
    return Case(title, files, arguments, codes)


def header(rng: random.Random) -> bytes:
    """A .npy file whose header says something else than a short array of numbers."""
    shape = rng.choice(("(10000000000,)", "(2**9,)", "(-1,)", "(1e9,)", "2", "(" * 500, "[2]", "('a',)", "(True,)"))
    dtype = rng.choice(("'<f4'", "'|O'", "'<f999'", "[('a','<f4')]", "__import__('os')", "'<f4,<f4'", "3"))
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + bytes(8)


class Payload:
    """What a pickle runs when it is read: it raises, where nothing else does."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return exec, ("raise SystemExit('code of a file was executed')",)


def pickled() -> bytes:
    """An array of objects, which only a pickle holds."""
    text = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + pickle.dumps(Payload())


def archive() -> bytes:
    """An .npz file under the name of a .npy file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as folder:
        folder.writestr("a.npy", pickled())
    return file.getvalue()
