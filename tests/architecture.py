"""The rooms of the package, read from its imports, and the drawing of docs/architecture.md.

python -m tests.architecture      draws it anew
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "zonocuda"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawing: python -m tests.architecture -->\n", "<!-- end of drawing -->\n"
INNER = ("bounds",)
"""Rooms whose floors are drawn one by one."""


def room_of(path: Path) -> str:
    """The first name below the package: the folder, or the module that lies in it directly."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(source: str, package: list[str]) -> Iterator[str]:
    """What a module of ``package`` imports, names with their homes: ``zonocuda.graph.ops``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_rooms(source: str, package: list[str]) -> Iterator[str]:
    """The rooms of zonocuda that a module of ``package`` imports, wherever in it the import stands."""
    for name in imported_names(source, package):
        parts = name.split(".")
        if parts[0] == "zonocuda":
            yield parts[1] if len(parts) > 1 else "__init__"


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> list[str]:
    """The names of the folder of a module."""
    return list(path.relative_to(ROOT).parent.parts)


# ---- the drawing -----------------------------------------------------------------------------------------------------


def _place(parts: list[str]) -> str | None:
    """The box of a module or name ``zonocuda.room.floor...``: a folder of the package, or a floor of an inner room."""
    if parts[0] != "zonocuda" or len(parts) < 2 or not (PACKAGE / parts[1]).is_dir():
        return None
    if parts[1] in INNER and len(parts) > 2 and (PACKAGE / parts[1] / parts[2]).is_dir():
        return f"{parts[1]}/{parts[2]}"
    return parts[1]


def imports() -> dict[str, set[str]]:
    """By box, the boxes that its modules import."""
    found: dict[str, set[str]] = {}
    for path in modules():
        here = _place(["zonocuda", *path.relative_to(PACKAGE).with_suffix("").parts])
        if here is None:
            continue
        names = imported_names(path.read_text(encoding="utf-8"), package_of(path))
        found.setdefault(here, set()).update(
            there for name in names if (there := _place(name.split("."))) is not None and there != here
        )
    return found


def reduced(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The edges that no longer way stands for.

    Raises:
        ValueError: boxes that import one another.
    """
    below: dict[str, set[str]] = {}

    def reach(box: str, way: tuple[str, ...]) -> set[str]:
        if box in way:
            raise ValueError(f"these import one another: {' -> '.join((*way, box))}")
        if box not in below:
            further = (reach(other, (*way, box)) for other in edges.get(box, ()))
            below[box] = set().union(edges.get(box, ()), *further)
        return below[box]

    for box in edges:
        reach(box, ())
    return {
        box: {other for other in others if not any(other in below[via] for via in others - {other})}
        for box, others in edges.items()
    }


def drawing() -> str:
    """The boxes and arrows, as Mermaid has them: an arrow leads to what is imported."""
    edges = reduced(imports())
    lines = [f"    {box.replace('/', '_')}[{box}]" for box in sorted(edges)]
    lines += [
        f"    {box.replace('/', '_')} --> {other.replace('/', '_')}"
        for box in sorted(edges)
        for other in sorted(edges[box])
    ]
    return "\n".join(["```mermaid", "graph TD", *lines, "```", ""])


def page_with(text: str) -> str:
    """The page with another drawing."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    return before + BEGIN + text + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page_with(drawing()), encoding="utf-8")
