"""Every native op on the CPU, private ones too, called by hostile_calls.py with values that nobody meant.

The ops are compiled once more for it, with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from tests.conftest import SEED
from tests.csrc.hostile_calls import CALLS, Draw
from tests.csrc.ptxas import ROOT
from tests.shared import made_once

HERE = Path(__file__).parent
LIBRARY = "ops.so"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"]
FLAGS = ["-std=c++20", "-O0", "-g1", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas", *SANITIZERS]
CALLS_OF_EACH_OP = 60
# Fresh memory is filled, so that a number that was never written shows; what is too large is refused as where memory is
# short.
ASAN = "detect_leaks=0:redzone=128:allocator_may_return_null=1:max_allocation_size_mb=64:max_malloc_fill_size=67108864"


def compiled(source: Path, folder: Path) -> Path:
    """The object file of a source, made in ``folder``."""
    target = folder / f"{source.stem}.o"
    include = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    done = subprocess.run(
        ["g++", *FLAGS, *include, "-c", str(source), "-o", str(target)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CPU ops, with sanitizers, in a shared library without the module; made once a run."""
    return made_once(tmp_path_factory, "sanitized", build) / LIBRARY


def build(folder: Path) -> None:
    """Compiles and links the library in ``folder``."""
    sources = [ROOT / "csrc" / "library.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda source: compiled(source, folder), sources))
    target = folder / LIBRARY
    paths = [f"-L{path}" for path in cpp_extension.library_paths()]
    command = ["g++", "-shared", *SANITIZERS, *map(str, objects), "-o", str(target), *paths, "-ltorch_cpu", "-lc10"]
    subprocess.run(command, check=True)


def run(program: list[str], fill: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs Python under the sanitizers' runtime; fresh memory is full of the byte ``fill``."""
    runtime = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": f"{ASAN}:malloc_fill_byte={fill}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run([sys.executable, *program], capture_output=True, text=True, env=environment, timeout=1200)


@pytest.mark.slow
def test_no_value_makes_an_op_leave_its_memory(library: Path) -> None:
    program = [str(HERE / "hostile_calls.py"), str(library), str(SEED), str(CALLS_OF_EACH_OP)]
    first = run(program)
    assert first.returncode == 0, first.stderr[-4000:]
    answered = {name: int(count) for name, count in re.findall(r" (\w+)=(\d+)", first.stdout)}
    assert answered.keys() == CALLS.keys()
    assert min(answered.values()) > CALLS_OF_EACH_OP / 10, f"hardly a call is answered: {answered}"
    second = run(program, fill=0x5A)
    assert second.stdout == first.stdout, "a result depends on what fresh memory holds"


@pytest.mark.slow
def test_the_sanitizers_see_an_op_that_leaves_its_memory(library: Path) -> None:
    # A tensor that claims more memory than it has, which no check of an op can see.
    program = f"""
import ctypes
import torch
torch.ops.load_library({str(library)!r})
short = torch.ones(64)
long = torch.frombuffer((ctypes.c_float * 72).from_address(short.data_ptr()), dtype=torch.float32)
torch.ops.zonocuda.scale_(long.reshape(1, 1, 72), torch.ones(1, 72))
"""
    done = run(["-c", program])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_every_op_of_the_library_is_called() -> None:
    schemas = re.findall(r'm\.def\(\s*"(\w+)\(', (ROOT / "csrc" / "library.cpp").read_text())
    assert len(schemas) > 30
    assert set(schemas) == CALLS.keys()


def test_the_numbers_drawn_are_hostile() -> None:
    d = Draw(SEED)
    index = torch.cat([d.index(40, 7) for _ in range(20)])
    assert (index < 0).any()
    assert (index >= 2**32).any()
    assert ((index >= 0) & (index < 7)).any()
    words = torch.cat([d.words(20) for _ in range(20)])
    assert {0, -1, -(2**31)} <= set(words.tolist())
    assert torch.cat([d.floats(20) for _ in range(20)]).isnan().any()
