"""VNN-LIB 2.0 through the ``vnnlib`` package, whose syntax tree keeps every literal as written."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from zonocuda.specs.errors import VnnlibError, quoted
from zonocuda.specs.formula import MAX_DEPTH, Formula, FormulaError, Linear, Value, apply, conjunction, number
from zonocuda.specs.regions import spec_of
from zonocuda.specs.spec import Spec

MAX_ELEMENTS = 10_000_000
"""Elements of a tensor."""

_VERSION = re.compile(r"\s*\(\s*vnnlib-version\s*<2\.0>\s*\)", re.ASCII)
_LEXEME = re.compile(r'"[^"\\\n]*"|\[[^\]]*\]|["()]')
_INDICES = re.compile(r"\[\s*(?:[0-9]{1,9}\s*(?:,\s*[0-9]{1,9}\s*)*)?\]", re.ASCII)
_NAMED = re.compile(
    r'(\(\s*declare-(input|output)\s+[^\s()"]+\s+[^\s()"]+\s*\[[^\]]*\]\s*)"([^"\n]*)"(?=\s*\))', re.ASCII
)
"""A declaration, which of both it is of, and the quoted name that follows."""
_TYPES = ("Real", "F32", "F64")
_OPERATORS = {
    "Plus": "+",
    "Minus": "-",
    "Negate": "-",
    "Multiply": "*",
    "LessEqual": "<=",
    "GreaterEqual": ">=",
    "LessThan": "<",
    "GreaterThan": ">",
    "Equal": "=",
    "NotEqual": "!=",
    "And": "and",
    "Or": "or",
}


def read_vnnlib2(text: str, source: str) -> Spec:
    """The property of a VNN-LIB 2.0 text from which comments were removed.

    The tree of the ``vnnlib`` package is walked here instead of taking the package's own linear forms and boxes,
    which go through float64: literals are read exactly from their spelling, as in version 1.0.

    One network with one input and one output of element type ``real``, ``float32`` or ``float64`` is supported; their
    elements are flattened in row-major order. Whatever the type, the property is read as one of real numbers: literals
    are exact decimals, and in which arithmetic a verdict holds is what ``semantics`` of the verification says, as in
    version 1.0. Other types are refused. The quoted name of a tensor in the ONNX file may follow a declaration, as for
    hidden nodes; where the network is read from such a file, it must be the tensor's.

    Args:
        text: the file's text.
        source: how messages call the file.

    Raises:
        VnnlibError: a malformed or unsupported file, or the ``vnnlib`` package is not installed.
    """
    if _VERSION.match(text) is None:
        raise VnnlibError(f"{source}: expected (vnnlib-version <2.0>) first; versions 1.0 and 2.0 are supported")
    _check_lexemes(text, source)
    named = {match[2]: match[3] for match in _NAMED.finditer(text)}
    query = _query(_NAMED.sub(lambda match: match[1] + " " * (len(match[3]) + 2), text), source)
    network = _network(query, source)
    shapes = {"Input": network.inputs[0].shape, "Output": network.outputs[0].shape}
    counts = {kind: math.prod(shape) for kind, shape in shapes.items()}
    if max(counts.values()) > MAX_ELEMENTS:
        raise VnnlibError(f"{source}: a tensor has more than {MAX_ELEMENTS} elements")
    try:
        assertions = [_formula(assertion.expr) for assertion in query.assertions]
        name = network.inputs[0].name
        spec = spec_of(
            conjunction(assertions),
            counts["Input"],
            counts["Output"],
            lambda j: f"{name}[{','.join(map(str, _unflattened(j, shapes['Input'])))}]",
        )
        return replace(spec, names=(named.get("input"), named.get("output")))
    except FormulaError as error:
        raise VnnlibError(f"{source}: {error}") from None


def _check_lexemes(text: str, source: str) -> None:
    """Refuse what the package would misread or not survive: indices that are no integers, deep nesting."""
    depth = 0
    for match in _LEXEME.finditer(text):
        lexeme = match[0]
        depth += (lexeme == "(") - (lexeme == ")")
        if depth > MAX_DEPTH:
            fault = f"parentheses are nested more than {MAX_DEPTH} deep"
        elif lexeme == '"':
            fault = "a string does not end on its line, or holds a backslash"
        elif lexeme[0] == "[" and _INDICES.fullmatch(lexeme) is None:
            fault = f"{quoted(lexeme)} is not a list of nonnegative integers"
        else:
            continue
        line = text.count("\n", 0, match.start()) + 1
        raise VnnlibError(f"{source}, line {line}: {fault}")


def _query(text: str, source: str) -> Any:
    try:
        vnnlib = importlib.import_module("vnnlib")
    except ImportError as error:
        raise VnnlibError(f"{source}: VNN-LIB 2.0 needs the vnnlib package ({error}); pip install vnnlib") from error
    try:
        return vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise VnnlibError(f"{source}{_reason(str(error))}") from None
    except (IndexError, RuntimeError, ValueError) as error:
        # What C++ throws for a number beyond its types, and pybind11 for text that is not ASCII.
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        raise VnnlibError(f"{source}: the vnnlib package cannot represent a number or character ({fault})") from None


def _reason(message: str) -> str:
    """The first fault of a message of the package, which is a line of text or a JSON report, with its line."""
    try:
        fault = json.loads(message)["errors"][0]
        message = f", line {fault['line']}: {fault['message']} ({fault['offendingSymbol']}): {fault['hint']}"
    except (ValueError, LookupError, TypeError):
        message = f": {message}"
    return " ".join(message.split())


def _network(query: Any, source: str) -> Any:
    """The only network of the query, of a supported kind."""
    if len(query.networks) != 1:
        names = ", ".join(quoted(network.name) for network in query.networks[:4])
        raise VnnlibError(f"{source}: {len(query.networks)} networks are declared ({names}); one is supported")
    network = query.networks[0]
    if network.hidden:
        raise VnnlibError(f"{source}: hidden node {network.hidden[0].name} is declared; hidden nodes are not supported")
    for kind, definitions in (("input", network.inputs), ("output", network.outputs)):
        if len(definitions) != 1:
            names = ", ".join(quoted(definition.name) for definition in definitions[:4])
            raise VnnlibError(
                f"{source}: {len(definitions)} {kind} tensors are declared ({names}); one {kind} is supported"
            )
        if definitions[0].dtype.name not in _TYPES:
            element = str(definitions[0]).split()[2]
            raise VnnlibError(
                f"{source}: {kind} {definitions[0].name} has element type {quoted(element)}; supported: real, float32 "
                "and float64"
            )
    return network


def _formula(root: Any) -> Formula:
    """The value of a tree, without recursion: its nodes are visited in postorder."""
    backward = []
    pending = [root]
    while pending:
        node = pending.pop()
        children = node.children()
        backward.append((node, len(children)))
        pending.extend(children)
    values: list[Value] = []
    line = 0
    try:
        for node, arity in reversed(backward):
            operator = _OPERATORS.get(type(node).__name__)
            if operator is None:
                line = getattr(node, "line", line)
                values.append(_leaf(node))
            else:
                arguments = values[-arity:]
                del values[-arity:]
                values.append(apply(operator, arguments))
    except FormulaError as error:
        raise FormulaError(f"line {line}: {error}") from None
    (value,) = values
    if not isinstance(value, Formula):
        raise FormulaError(f"line {line}: assert takes a formula, got an arithmetic term")
    return value


def _leaf(node: Any) -> Linear:
    match type(node).__name__:
        case "Float" | "Int":
            return Linear({}, number(node.lexeme))
        case "Var" if node.kind.name in ("Input", "Output"):
            kind = "X" if node.kind.name == "Input" else "Y"
            return Linear.variable(kind, _flattened(node.indices, node.shape))
        case kind:
            raise FormulaError(f"expression {quoted(str(node))} ({kind}) is not supported")


def _flattened(indices: list[int], shape: list[int]) -> int:
    """The row-major index of an element."""
    if len(indices) != len(shape) or not all(0 <= i < n for i, n in zip(indices, shape, strict=True)):
        raise FormulaError(f"indices {indices} do not fit the shape {shape}")
    index = 0
    for i, n in zip(indices, shape, strict=True):
        index = index * n + i
    return index


def _unflattened(index: int, shape: list[int]) -> Iterator[int]:
    """The indices of the element whose row-major index is ``index``."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    for stride in strides:
        yield index // stride
        index %= stride
