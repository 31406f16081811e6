"""Who may enter which room: read from the imports and includes, and from the names of the files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture import (
    PACKAGE,
    PAGE,
    ROOT,
    drawing,
    imported_names,
    imported_rooms,
    modules,
    package_of,
    page_with,
    reduced,
    room_of,
)
from zonocuda.functions import FUNCTIONS
from zonocuda.relaxations import RULES

ROOMS: dict[str, set[str]] = {
    "kink": {"roundoff"},
    "version": set(),
    "ranks": set(),
    "brief": set(),
    "windows": set(),
    "in_place": set(),
    "roundoff": set(),
    "ties": set(),
    "functions": set(),
    "convolution": {"ops"},
    "precision": {"convolution"},
    "host_memory": set(),
    "archive": set(),
    "checkpoint": {"archive"},  # whatever it holds
    "executors": set(),  # whatever they run
    "pages": {"version"},  # whatever they show
    "reference": {"kink", "ties", "functions", "windows", "in_place"},
    "ops": {"kink", "ties", "functions", "windows", "in_place", "_C"},
    "graph": {"convolution", "functions", "reference", "brief"},
    "specs": set(),
    "importers": {"graph", "precision", "host_memory", "roundoff", "functions"},
    "domains": {"ops", "reference", "kink", "windows", "convolution", "brief", "ranks"},
    "relaxations": {"domains", "graph", "kink", "ops", "functions", "roundoff"},
    "branch": set(),
    "bounds": {"relaxations", "domains", "graph", "specs", "precision", "host_memory", "roundoff", "brief"},
    "tighten": {"bounds", "relaxations", "domains", "graph", "kink", "precision"},
    "prove": {
        "tighten",
        "bounds",
        "relaxations",
        "branch",
        "domains",
        "graph",
        "specs",
        "precision",
        "host_memory",
    },
    "verifier": {
        "executors",
        "checkpoint",
        "prove",
        "tighten",
        "bounds",
        "relaxations",
        "branch",
        "domains",
        "graph",
        "specs",
        "importers",
        "kink",
        "version",
        "brief",
        "precision",
        "host_memory",
        "functions",
    },
    "fleet": {
        "executors",
        "verifier",
        "prove",
        "bounds",
        "domains",
        "specs",
        "importers",
        "host_memory",
        "version",
        "pages",
        "functions",
    },
    "nonsmooth": {"ops", "ties", "pages"},
    "checker": {"archive", "version", "graph", "specs", "importers", "functions"},  # nothing of what it checks
}
FLOORS: dict[str, dict[str, set[str]]] = {  # folders in a room, and which others each may use; "" lies in none
    "bounds": {
        "": set(),
        "rounding": {""},
        "dual": {"", "rounding"},
        "plan": {"", "rounding", "dual"},
        "forward": {"", "rounding", "dual", "plan"},
    },
    "importers": {"constants": {""}, "onnx": {"", "constants"}, "aten": {"", "constants"}},
}
ENTRANCES = {"cli", "__init__", "__main__"}  # may use everything
CSRC_ROOMS = {"math": {"math"}, "common": {"common", "math"}, "cpu": {"common", "math", "cpu"}}
CSRC_ROOMS["cuda"] = {"common", "math", "cuda"}


def test_every_room_is_known() -> None:
    assert {room_of(path) for path in modules()} <= ROOMS.keys() | ENTRANCES


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_the_rooms_below_its_own(path: Path) -> None:
    room = room_of(path)
    if room in ENTRANCES:
        return
    wrong = set(imported_rooms(path.read_text(encoding="utf-8"), package_of(path))) - ROOMS[room] - {room}
    assert not wrong, f"zonocuda.{room} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "split it by concept, or delete"


@pytest.mark.parametrize("room", FLOORS)
def test_the_floors_of_a_room_are_known(room: str) -> None:
    folders = {path.name for path in (PACKAGE / room).iterdir() if (path / "__init__.py").is_file()}
    assert folders == FLOORS[room].keys() - {""}


@pytest.mark.parametrize(("room", "floor"), [(room, floor) for room in FLOORS for floor in FLOORS[room]])
def test_a_floor_imports_only_the_floors_below_it(room: str, floor: str) -> None:
    for path in sorted((PACKAGE / room / floor).glob("*.py")):
        found = set()
        for name in imported_names(path.read_text(encoding="utf-8"), package_of(path)):
            parts = name.split(".")
            if parts[:2] == ["zonocuda", room] and len(parts) > 2:
                found.add(parts[2] if (PACKAGE / room / parts[2]).is_dir() else "")
        wrong = found - FLOORS[room][floor] - {floor}
        assert not wrong, f"{path.relative_to(PACKAGE)} may not import {sorted(wrong)}"


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import zonocuda.graph.ops as o", {"graph"}),
        ("from zonocuda.ops import relu", {"ops"}),
        ("from zonocuda import _C, kink", {"_C", "kink"}),
        ("import zonocuda", {"__init__"}),
        ("from .. import graph", {"graph"}),
        ("from ..graph.ops import Relu", {"graph"}),
        ("from . import other", {"specs"}),
        ("def f():\n    from zonocuda.domains import x", {"domains"}),
        ("import torch\nfrom zonocuda_other import x", set()),
    ],
)
def test_the_reader_of_imports_sees_every_form(source: str, rooms: set[str]) -> None:
    assert set(imported_rooms(source, ["zonocuda", "specs"])) == rooms


# ---- activations ---------------------------------------------------------------------------------------------------

ABOVE_THE_RULES = ("bounds", "tighten", "prove", "branch")
MATHEMATICS = {"exp", "expm1", "log", "log1p", "sin", "cos", "atan", "sqrt", "rsqrt", "reciprocal", "power"}
FUNCTIONS_ALONE = set(FUNCTIONS) - MATHEMATICS
"""Names of functions that nobody computes with who does not mean an activation."""


def words(name: str) -> set[str]:
    """Those that a name is made of."""
    return set(re.split(r"[._]", name.lower()))


def names(source: str) -> Iterator[str]:
    """Every name of a module's syntax tree: variables, attributes, functions, classes, arguments, imports, keywords."""
    for node in ast.walk(ast.parse(source)):
        for kind in ("id", "attr", "name", "arg", "asname", "module"):
            value = getattr(node, kind, None)
            if isinstance(value, str):
                yield value


@pytest.mark.parametrize("room", ABOVE_THE_RULES)
def test_no_activation_is_named_above_the_rules(room: str) -> None:
    kinds = [op.__name__.lower() for op in RULES]
    assert "relu" in kinds
    for path in sorted((PACKAGE / room).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        named = {n for n in names(source) if any(kind in n.lower() for kind in kinds) or words(n) & FUNCTIONS_ALONE}
        named |= {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)} & set(FUNCTIONS)
        assert not named, f"{path.relative_to(PACKAGE)} names {sorted(named)}; ask zonocuda.relaxations.rule_of"


def test_the_reader_of_names_sees_every_kind() -> None:
    source = "from a.relu import b as relu2\ndef relu3(relu4, *, x=1): relu5.relu6(relu7=1)\nclass Relu8: pass"
    assert {n for n in names(source) if "relu" in n.lower()} == {
        "a.relu",
        *(f"relu{i}" for i in range(2, 8)),
        "Relu8",
    }


# ---- how to add an activation -------------------------------------------------------------------------------------


def listed(text: str) -> set[str]:
    """The modules that a text names."""
    return set(re.findall(r"`(zonocuda/[\w/]+\.py)`", text))


def naming(kind: str) -> set[str]:
    """The modules that name an operator."""
    every = ((path, set(names(path.read_text(encoding="utf-8")))) for path in PACKAGE.rglob("*.py"))
    return {str(path.relative_to(ROOT)) for path, found in every if kind in found}


def test_an_activation_is_added_in_at_most_ten_files_and_the_list_names_all_that_know_one() -> None:
    """Steps, the activation that was added last, are in no module that is not listed; nor are products."""
    page = PAGE.read_text(encoding="utf-8")
    section = page.split("## To add an activation", 1)[1].split("\n## ", 1)[0]
    steps = listed(section.split("`tests/relaxations/toy.py`", 1)[0].replace("NAME", "steps"))
    assert len(steps) <= 10
    assert all((ROOT / path).is_file() for path in steps)
    shapes = "zonocuda/graph/shapes.py"  # is to be faster than torch's own
    assert naming("Staircase") - steps == {shapes, "zonocuda/importers/functions.py"}  # what ONNX and ATen share
    every = listed(section.replace("NAME", "bilinear"))
    assert all((ROOT / path).is_file() for path in every)
    knowing = naming("Bilinear") & (naming("Elementary") | naming("Elementwise"))
    assert {"zonocuda/relaxations/table.py", "zonocuda/checker/maps.py"} <= knowing
    assert knowing - every == {shapes, "zonocuda/checker/norms.py"}  # which knows a norm by its parts


# ---- the drawing ---------------------------------------------------------------------------------------------------


def test_the_drawing_of_the_rooms_is_that_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with(drawing()), "python -m tests.architecture draws it anew"
    assert "verifier --> prove" in page


def test_a_drawing_leaves_out_what_a_longer_way_stands_for() -> None:
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    with pytest.raises(ValueError, match="these import one another: a -> b -> a"):
        reduced({"a": {"b"}, "b": {"a"}})


# ---- convolutions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["graph", "domains", "bounds", "tighten", "prove", "verifier"])
def test_networks_are_convolved_in_one_place(room: str) -> None:
    # What a proof convolves elsewhere, a GPU would take image after image (zonocuda/convolution.py).
    for path in sorted((PACKAGE / room).rglob("*.py")):
        own = re.findall(r"\b(?:F|torch|aten|functional)\.(conv\w*)\(", path.read_text(encoding="utf-8"))
        assert not own, f"{path.relative_to(PACKAGE)} calls torch's {own}"


# ---- C++ and CUDA --------------------------------------------------------------------------------------------------


def sources(room: str) -> list[Path]:
    """The files of a room of csrc."""
    return sorted(path for path in (ROOT / "csrc" / room).iterdir() if path.is_file())


def includes(path: Path) -> list[tuple[str, str]]:
    """The (opening character, name) of every include of a file."""
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("room", CSRC_ROOMS)
def test_a_room_of_csrc_includes_only_the_rooms_below_its_own(room: str) -> None:
    assert sources(room)
    for path in sources(room):
        for opening, name in includes(path):
            if opening == '"':
                target = (path.parent / name).resolve()
                assert target.is_file(), f"{path.name} includes {name}, which is not there"
                assert target.parent.name in CSRC_ROOMS[room], f"{room}/{path.name} includes {name}"


def test_the_mathematics_includes_no_torch_and_no_cuda_header() -> None:
    for path in sources("math"):
        foreign = [name for opening, name in includes(path) if opening == "<" and ("/" in name or "." in name)]
        assert not foreign, f"math/{path.name} includes {foreign}"


def test_the_stable_abi_is_reached_through_one_header() -> None:
    for room in CSRC_ROOMS:
        for path in sources(room):
            torch_headers = [name for _, name in includes(path) if name.startswith(("torch/", "ATen/", "c10/"))]
            assert not torch_headers or path.name == "stable.h", f"{room}/{path.name} includes {torch_headers}"


# ---- one op, one name ----------------------------------------------------------------------------------------------


def op_names() -> list[str]:
    """The ops that csrc/library.cpp defines, without their backwards and without those in place."""
    return [name for name in defined_names() if not name.endswith("_")]


def in_place_names() -> list[str]:
    """The ops in place: a name and an underscore."""
    return [name for name in defined_names() if name.endswith("_")]


def defined_names() -> list[str]:
    """What csrc/library.cpp defines, without backwards."""
    schemas = (ROOT / "csrc" / "library.cpp").read_text(encoding="utf-8")
    return re.findall(r'm\.def\(\s*"([a-z]\w*)\(', schemas)


def test_there_are_ops() -> None:
    assert {"concretize", "relu"} <= set(op_names())
    assert "scale_" in in_place_names()


@pytest.mark.parametrize("op", op_names())
def test_an_op_has_its_files_under_one_name(op: str) -> None:
    for name in (
        f"csrc/cpu/{op}.cpp",
        f"csrc/cuda/{op}.cu",
        f"zonocuda/ops/{op}.py",
        f"zonocuda/reference/{op}.py",
        f"tests/ops/test_{op}.py",
        f"benchmarks/bench_{op}.py",
    ):
        assert (ROOT / name).is_file(), f"{name} is missing"


@pytest.mark.parametrize("op", op_names())
def test_an_op_and_its_backward_have_a_schema_and_a_kernel_on_both_devices(op: str) -> None:
    schemas = (ROOT / "csrc" / "library.cpp").read_text(encoding="utf-8")
    assert f'"_{op}_backward(' in schemas
    for path in (f"csrc/cpu/{op}.cpp", f"csrc/cuda/{op}.cu"):
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in (op, f"_{op}_backward"):
            assert f'm.impl("{name}"' in text, f"{path} registers no {name}"


@pytest.mark.parametrize("op", in_place_names())
def test_an_op_in_place_lies_beside_the_op_that_is_not(op: str) -> None:
    assert op.removesuffix("_") in op_names()
    for path in (f"csrc/cpu/{op.removesuffix('_')}.cpp", f"csrc/cuda/{op.removesuffix('_')}.cu"):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f'm.impl("{op}"' in text, f"{path} registers no {op}"
