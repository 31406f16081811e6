"""How many lines a confirmation rests on, as docs/certificate.md states it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOM = "zonocuda/checker"


def lines_of_code(source: str) -> int:
    """Lines with code: no blank ones, comments and docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    kept: set[int] = set()
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in ignored:
            kept.update(range(token.start[0], token.end[0] + 1))
    return len(kept - docstrings)


def module_path(name: str) -> Path | None:
    """The file of a module of the package."""
    base = ROOT / name.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(path: Path) -> set[Path]:
    """The files of the package that a file imports, wherever in it, with the packages that hold them."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "zonocuda":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "zonocuda"]
        for name in names:
            parts = name.split(".")
            packages = [".".join(parts[:n]) for n in range(2, len(parts) + 1)]
            found |= {file for part in packages if (file := module_path(part)) is not None}
    return found


def trusted() -> dict[str, int]:
    """Lines of code of the checker, and of all other files that it imports, directly or not."""
    pending = sorted((ROOT / ROOM).rglob("*.py"))
    seen = set(pending)
    while pending:
        for path in imported(pending.pop()) - seen:
            seen.add(path)
            pending.append(path)
    counts = {path: lines_of_code(path.read_text(encoding="utf-8")) for path in seen}
    own = sum(count for path, count in counts.items() if path.is_relative_to(ROOT / ROOM))
    return {"own": own, "others": sum(counts.values()) - own}


def test_lines_of_code_are_counted_without_words() -> None:
    source = '"""Words\nand words."""\n\n# words\nx = (\n    1,\n)\n\n\ndef f():\n    """Words."""\n    return "text"\n'
    assert lines_of_code(source) == 5


def test_the_trusted_base_is_no_larger_than_stated() -> None:
    text = (ROOT / "docs" / "certificate.md").read_text(encoding="utf-8")
    stated = [
        int(number.replace(",", "")) for number in re.findall(r"^\| [^|]*`zonocuda/.*\| ([0-9,]+) \|$", text, re.M)
    ]
    found = list(trusted().values())
    assert len(stated) == 2
    for claim, count in zip(stated, found, strict=True):
        assert 0.9 * claim <= count <= claim, f"docs/certificate.md states {claim} lines, there are {count}"
