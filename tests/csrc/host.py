"""Builds and drives the program of host_kernels.cpp: CUDA kernel bodies on the CPU, under sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

HERE = Path(__file__).parent
# bounds-strict sees an index that leaves a row of an array but not the array; redzones do not.
BUILD_FLAGS = [
    *("-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas"),
    *("-fsanitize=address,undefined", "-fsanitize=bounds-strict", "-fno-sanitize-recover=all"),
    "-Wl,--wrap=__asan_register_globals",  # see host_cuda.h
]
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:redzone=512",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
PROGRAM = "host_kernels"
ANSWER = b"ok\n"  # comes before the outputs
TYPE_NAMES = {
    torch.float16: "float16",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.int8: "int8",
    torch.int32: "int32",
    torch.int64: "int64",
}


class HostFaultError(Exception):
    """The program ended instead of answering; the message is what it wrote to stderr."""


@dataclass(frozen=True)
class Launch:
    """<<<grid, block, shared>>>, grid and block in x and y, and how a test wants it.

    Attributes:
        wide: accesses are 16 bytes wide.
        last_block_only: the others are not run.
        shared: bytes of dynamic shared memory.
        narrow: indices have 32 bits, in kernels that are built for both widths.
    """

    grid: tuple[int, int]
    block: tuple[int, int]
    wide: bool = False
    last_block_only: bool = False
    shared: int = 0
    narrow: bool = False


@dataclass(frozen=True)
class Out:
    """An array that the kernel writes, and what it holds before; ``skip``: see :class:`Tail`."""

    before: Tensor
    skip: int = 0

    @staticmethod
    def unwritten(*shape: int, dtype: torch.dtype, skip: int = 0) -> Out:
        """All NaN, so that an element that is never written shows."""
        return Out(torch.full(shape, torch.nan, dtype=dtype), skip)


@dataclass(frozen=True)
class Tail:
    """An input of which only the last elements exist; ``skip`` elements, which nobody may touch, come before them."""

    values: Tensor
    skip: int


Argument = Tensor | Tail | Out | None


def build(folder: Path) -> Path:
    """Compiles host_kernels.cpp into ``folder``.

    Raises:
        RuntimeError: no g++, or it refuses the source.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("the kernel bodies cannot be run on the CPU: g++ (>= 12) is not in PATH")
    program = folder / PROGRAM
    command = [compiler, *BUILD_FLAGS, str(HERE / "host_kernels.cpp"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return program


class HostKernels:
    """The running program; it is started again after a fault."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()

    def close(self) -> None:
        """Ends the program."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
        self._stderr.close()

    def run(
        self,
        kernel: str,
        launch: Launch,
        arguments: Sequence[Argument],
        integers: Sequence[int] = (),
        reals: Sequence[float] = (),
        dtype: torch.dtype = torch.float32,
    ) -> list[Tensor]:
        """Runs one kernel of the table in host_kernels.cpp and returns its outputs.

        Raises:
            HostFaultError: a sanitizer or host_cuda.h found a mistake.
        """
        encoded = [_encode(a, dtype) for a in arguments]
        vector = 16 // dtype.itemsize if launch.wide else 1
        head = [
            f"{kernel} {TYPE_NAMES[dtype]} {vector} {int(launch.narrow)} {int(launch.last_block_only)}",
            f"{launch.grid[0]} {launch.grid[1]} {launch.block[0]} {launch.block[1]} {launch.shared}",
            _listed([str(i) for i in integers]),
            _listed([repr(float(r)) for r in reals]),
            _listed([text for text, _ in encoded]),
        ]
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(" ".join(head).encode() + b"\n" + b"".join(data for _, data in encoded))
            process.stdin.flush()
        except BrokenPipeError:
            raise self._fault(kernel) from None
        if process.stdout.read(len(ANSWER)) != ANSWER:
            raise self._fault(kernel)
        befores = [a.before for a in arguments if isinstance(a, Out)]
        return [_decode(process.stdout.read(t.numel() * t.itemsize), t) for t in befores]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._stderr.seek(0)
            self._stderr.truncate()
            self._process = subprocess.Popen(
                [str(self._program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=os.environ | ENVIRONMENT,
            )
        return self._process

    def _fault(self, kernel: str) -> HostFaultError:
        """The end of the program, as an exception."""
        assert self._process is not None
        self._process.communicate()
        status = self._process.returncode
        self._process = None
        self._stderr.seek(0)
        return HostFaultError(f"{kernel}: exit status {status}\n{self._stderr.read().decode()}")


def _listed(items: Sequence[str]) -> str:
    return " ".join([str(len(items)), *items])


def _encode(argument: Argument, dtype: torch.dtype) -> tuple[str, bytes]:
    """The description of an array in the head of a request, and its bytes."""
    if argument is None:
        return f"{TYPE_NAMES[dtype]} null 0 0", b""
    role = "out" if isinstance(argument, Out) else "in"
    skip = 0 if isinstance(argument, Tensor) else argument.skip
    values = (
        argument.before if isinstance(argument, Out) else argument.values if isinstance(argument, Tail) else argument
    )
    values = values.detach().contiguous()
    return f"{TYPE_NAMES[values.dtype]} {role} {values.numel()} {skip}", values.numpy().tobytes()


def _decode(data: bytes, like: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=like.dtype).reshape(like.shape) if data else like.clone()
