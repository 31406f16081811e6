"""Counts the machine instructions (SASS, sm_90) in the loops of CUDA kernels; needs nvcc and nvdisasm, but no GPU.

    python -m tests.csrc.sass csrc/cuda/dual_relu.cu [--kernel PART_OF_NAME]

prints, for each kernel, its registers, spills and instructions, and for each of its loops the instructions of one
turn, the bytes of global memory that they name (a thread, a turn), and the routines that they call: ``div_s64`` is a
64-bit integer division, some 80 instructions more. Instructions on paths that are seldom taken count too. The source
may lie in another checkout: that is how two versions are compared. The program nvdisasm is looked for where NVDISASM
says, in the toolkit, and in PATH (``pip install nvidia-cuda-nvdisasm`` brings one).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.csrc.ptxas import Usage, compile_source, demangled, parse, toolkit

INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?U?P\w+\s+)?(?P<op>[A-Z]\S*)\s*(?P<operands>.*?)\s*;")
LABEL = re.compile(r"^(?P<name>[.$\w]+):\s*$")
TARGET = re.compile(r"\.L_x_\d+")
BITS = re.compile(r"\.(?:[US])?(8|16|64|128)\b")


@dataclass(frozen=True)
class Loop:
    """One loop of a kernel, with what it holds.

    Attributes:
        depth: 1 for the outermost.
        innermost: no loop lies in it.
        instructions: of one turn, every path counted, without those of inner loops.
        global_bytes: that a thread loads or stores in a turn, inner loops not counted.
        calls: how often each routine is called, inner loops not counted.
    """

    depth: int
    innermost: bool
    instructions: int
    global_bytes: int
    calls: dict[str, int]

    @property
    def integer_divisions(self) -> int:
        """Calls of 64-bit integer divisions and remainders."""
        return sum(n for name, n in self.calls.items() if re.search(r"(div|rem)_[su]64", name))

    def __str__(self) -> str:
        where = f"loop of depth {self.depth}{', innermost' if self.innermost else ''}"
        calls = "".join(f", {n} x {name}" for name, n in sorted(self.calls.items()))
        return f"{where}: {self.instructions} instructions, {self.global_bytes} bytes{calls}"


@dataclass
class Block:
    """Instructions that run one after the other."""

    ops: list[tuple[str, str]] = field(default_factory=list)  # opcode, operands
    targets: list[str] = field(default_factory=list)  # labels
    falls: bool = True  # the next block may follow


@dataclass(frozen=True)
class Code:
    """The code of one kernel: its instructions, those of the routines that it calls included, and its loops."""

    instructions: int
    loops: list[Loop]


def find_nvdisasm(home: Path) -> str:
    """The program nvdisasm.

    Raises:
        SystemExit: it is nowhere.
    """
    beside = home / "bin" / "nvdisasm"
    found = os.environ.get("NVDISASM") or (str(beside) if beside.exists() else shutil.which("nvdisasm"))
    if not found:
        raise SystemExit("no nvdisasm: pip install nvidia-cuda-nvdisasm, and set NVDISASM to its program")
    return found


def read_blocks(lines: list[str]) -> tuple[list[Block], dict[str, int]]:
    """The blocks of one section of nvdisasm's listing, and which block each label names."""
    blocks, labels = [Block()], {}
    for line in lines:
        if name := LABEL.match(line):
            if blocks[-1].ops:
                blocks.append(Block())
            labels[name["name"]] = len(blocks) - 1
        elif found := INSTRUCTION.match(line):
            op = found["op"].split(".")[0]
            blocks[-1].ops.append((found["op"], found["operands"]))
            if op in {"BRA", "BRX", "JMP", "JMX", "EXIT", "RET"}:
                blocks[-1].targets = TARGET.findall(found["operands"]) if op != "RET" else []
                always = not found["guard"] and not found["operands"].startswith(("P", "!P", "UP", "!UP", "~", "U"))
                blocks[-1].falls = not always
                blocks.append(Block())
    return blocks, labels


def natural_loops(blocks: list[Block], labels: dict[str, int]) -> dict[int, set[int]]:
    """By the block that begins a loop, the blocks of the loop. Routines, which only calls reach, are left out."""
    after = [[labels[t] for t in block.targets] + [i + 1] * block.falls for i, block in enumerate(blocks)]
    after = [[j for j in targets if j < len(blocks)] for targets in after]
    reached, stack = {0}, [0]
    while stack:
        new = [j for j in after[stack.pop()] if j not in reached]
        reached.update(new)
        stack.extend(new)
    before: dict[int, list[int]] = {i: [] for i in reached}
    for i in reached:
        for j in after[i]:
            before[j].append(i)
    dominators = {i: set(reached) for i in reached} | {0: {0}}
    changed = True
    while changed:
        changed = False
        for i in sorted(reached - {0}):
            new_set = {i} | set.intersection(*(dominators[j] for j in before[i]))
            changed = changed or new_set != dominators[i]
            dominators[i] = new_set
    loops: dict[int, set[int]] = {}
    for i in reached:
        for head in (j for j in after[i] if j in dominators[i]):
            body, stack = {head, i}, [i] if i != head else []
            while stack:
                new = [j for j in before[stack.pop()] if j not in body]
                body.update(new)
                stack.extend(new)
            loops.setdefault(head, set()).update(body)
    return loops


def access_bytes(op: str) -> int:
    """The bytes of global memory that an instruction names: 0 for one that names none."""
    name = op.split(".")[0]
    if name not in {"LDG", "STG", "LDGSTS", "RED", "ATOMG", "LD", "ST"}:
        return 0
    bits = BITS.findall(op)
    return int(bits[-1]) // 8 if bits else 4


def describe(blocks: list[Block], loops: dict[int, set[int]]) -> list[Loop]:
    """The loops, in the order of the code."""
    found = []
    for head, body in sorted(loops.items(), key=lambda item: (item[0], -len(item[1]))):
        inner = [other for h, other in loops.items() if h != head and other < body]
        own = [op for i in body - set().union(*inner) for op in blocks[i].ops]
        calls = Counter(re.sub(r".*\$__cuda_|[)`\s].*$", "", operands) for op, operands in own if op.startswith("CALL"))
        found.append(
            Loop(
                depth=1 + sum(body < other for other in loops.values()),
                innermost=not inner,
                instructions=len(own),
                global_bytes=sum(access_bytes(op) for op, _ in own),
                calls=dict(calls),
            )
        )
    return found


def read_listing(text: str) -> dict[str, Code]:
    """By mangled name, the kernels of a listing of ``nvdisasm -c``."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if start := re.match(r"^\s*\.section\s+(\.\w+)\.?([^,]*)", line):
            lines = sections.setdefault(start[2], []) if start[1] == ".text" else []
        lines.append(line)
    kernels = {}
    for name, section in sections.items():
        blocks, labels = read_blocks(section)
        total = sum(op.split(".")[0] != "NOP" for block in blocks for op, _ in block.ops)
        kernels[name] = Code(total, describe(blocks, natural_loops(blocks, labels)))
    return kernels


def measure(home: Path, source: Path) -> dict[str, tuple[Usage, Code]]:
    """By readable name, registers and code of each kernel of a .cu file.

    Raises:
        RuntimeError: nvcc refuses the source.
        SystemExit: there is no nvdisasm.
    """
    disassembler = find_nvdisasm(home)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        usages = parse(compile_source(home, source, ["-cubin", "-o", str(cubin)]))
        done = subprocess.run([disassembler, "-c", str(cubin)], capture_output=True, text=True, check=True)
    codes = read_listing(done.stdout)
    return {name: (usages[mangled], codes[mangled]) for mangled, name in demangled(usages).items()}


def main() -> None:
    """Prints what the module's head says."""
    parser = argparse.ArgumentParser(prog="python -m tests.csrc.sass", description=__doc__)
    parser.add_argument("sources", nargs="+", type=Path, help=".cu files")
    parser.add_argument("--kernel", default="", help="only kernels whose name holds this")
    options = parser.parse_args()
    home = toolkit()
    if home is None:
        raise SystemExit("no CUDA toolkit: set CUDA_HOME to the folder that has bin/nvcc")
    for source in options.sources:
        for name, (usage, code) in sorted(measure(home, source).items()):
            if options.kernel in name:
                head = f"{usage.registers} registers, {usage.spills} bytes spilled"
                print(f"{source.name} {name}: {head}, {code.instructions} instructions")
                for loop in code.loops:
                    print(f"  {'  ' * (loop.depth - 1)}{loop}")


if __name__ == "__main__":
    main()
