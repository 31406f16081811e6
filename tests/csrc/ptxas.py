"""What ptxas says of each CUDA kernel: registers, stack and spills on sm_90.

Write the table again after a deliberate change, or with another nvcc (minutes; needs no GPU):

    python -m tests.csrc.ptxas

and look at the difference: a kernel that needs more registers runs fewer warps at a time.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils import cpp_extension

ROOT = Path(__file__).parent.parent.parent
SOURCES = ROOT / "csrc" / "cuda"
TABLE = Path(__file__).parent / "registers.json"
# torch's BuildExtension adds these to the flags of setup.py.
TORCH_FLAGS = [*cpp_extension.COMMON_NVCC_FLAGS, "-DTORCH_EXTENSION_NAME=_C", "-Xcompiler=-fPIC"]


@dataclass(frozen=True, order=True)
class Usage:
    """Of one kernel: registers of a thread, and bytes of stack and of spilled registers."""

    registers: int
    stack: int
    spills: int


def from_setup(*names: str) -> list[Any]:
    """Top-level names of setup.py, without running its build.

    Raises:
        KeyError: setup.py defines no such name.
    """
    path = ROOT / "setup.py"
    kept = (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    namespace: dict[str, Any] = {"__file__": str(path)}
    exec(compile(tree, str(path), "exec"), namespace)
    return [namespace[name] for name in names]


def toolkit() -> Path | None:
    """The CUDA toolkit that setup.py finds."""
    (find,) = from_setup("find_cuda_home")
    home = find()
    assert home is None or isinstance(home, Path)
    return home


def release(home: Path) -> str:
    """The release of nvcc, such as 13.0."""
    (version,) = from_setup("nvcc_version")
    return str(version(home))


def compile_source(home: Path, source: Path, output: list[str]) -> str:
    """Compiles one .cu file for sm_90 as setup.py does, with the flags of ``output``; what nvcc and ptxas say.

    Raises:
        RuntimeError: nvcc refuses the source.
    """
    (flags,) = from_setup("NVCC_FLAGS")
    include = [f"-I{path}" for path in [*cpp_extension.include_paths(), home / "include"]]
    target = ["-gencode=arch=compute_90,code=sm_90", str(source), *output]
    command = [str(home / "bin" / "nvcc"), *flags, *TORCH_FLAGS, *include, *target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def demangled(names: Iterable[str]) -> dict[str, str]:
    """The readable names of kernels, by mangled name."""
    mangled = list(names)
    done = subprocess.run(["c++filt", *mangled], capture_output=True, text=True, check=True)
    return {name: readable(text) for name, text in zip(mangled, done.stdout.splitlines(), strict=True)}


def parse(report: str) -> dict[str, Usage]:
    """The mangled names of the kernels for sm_90 in a report of ``ptxas -v``, and their usage.

    A kernel that more than one file has counts with the largest.
    """
    entry = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for 'sm_90'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers",
        re.DOTALL,
    )
    found: dict[str, Usage] = {}
    for m in entry.finditer(report):
        usage = Usage(int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]))
        found[m["name"]] = max(usage, found.get(m["name"], usage))
    return found


def by_name(kernels: dict[str, Usage]) -> dict[str, Usage]:
    """Usages by the readable names of the kernels, sorted."""
    return {name: kernels[mangled] for mangled, name in sorted(demangled(kernels).items(), key=lambda item: item[1])}


def readable(name: str) -> str:
    """The template and its arguments: without namespaces, return type and parameters."""
    return re.sub(r"\bzonocuda::(cuda::)?", "", name).removeprefix("void ").split("(")[0]


def main() -> None:
    """Writes the table."""
    home = toolkit()
    if home is None:
        raise SystemExit("no CUDA toolkit: set CUDA_HOME to the folder that has bin/nvcc")
    with tempfile.TemporaryDirectory() as folder:
        sources = sorted(SOURCES.glob("*.cu"))
        reports = [compile_source(home, source, ["-c", "-o", f"{folder}/{source.stem}.o"]) for source in sources]
    usages = by_name(parse("".join(reports)))
    registers = {name: usage.registers for name, usage in usages.items()}
    TABLE.write_text(json.dumps({"nvcc": release(home), "registers": registers}, indent=2) + "\n")


if __name__ == "__main__":
    main()
