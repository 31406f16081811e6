"""VNN-LIB 1.0, the format of VNN-COMP: a subset of SMT-LIB over inputs X_0, X_1, ... and outputs Y_0, Y_1, ..."""

from __future__ import annotations

import re
from itertools import islice
from typing import NoReturn

from zonocuda.specs.bulk import UndecidedError, spec_of_commands
from zonocuda.specs.errors import VnnlibError, quoted
from zonocuda.specs.formula import (
    FALSE,
    MAX_DEPTH,
    OPERATORS,
    TRUE,
    Formula,
    FormulaError,
    Linear,
    Value,
    apply,
    conjunction,
    number,
)
from zonocuda.specs.regions import spec_of
from zonocuda.specs.spec import LinearConstraint, Spec
from zonocuda.specs.tokens import Commands

_TOKEN = re.compile(r'[()]|"[^"]*"|\|[^|]*\||[^()\s"|]+|["|]', re.ASCII)
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]*)")
_SILENT = frozenset(("set-logic", "set-info", "set-option", "check-sat", "get-model", "get-value", "exit"))
"""Commands that do not change what the file says."""
_ASKS = frozenset(("check-sat", "exit"))
_CONSTANTS = {"true": TRUE, "false": FALSE}
_NUMBER_START = frozenset("+-.0123456789")


def read_vnnlib1(text: str, source: str) -> Spec:
    """The property of a VNN-LIB 1.0 text from which comments were removed.

    Commands: ``(declare-const X_i Real)``, ``(declare-fun X_i () Real)`` and ``(assert F)``. F is built of ``and``,
    ``or``, ``not``, ``=>``, ``xor``, ``ite``, ``=``, ``true`` and ``false`` over comparisons ``<= >= < > = distinct``
    (chains of any length, as in SMT-LIB) and ``!=`` of linear terms in ``+ - * /``, decimal literals and declared
    variables. All assertions are conjoined; a point that satisfies them is a counterexample. The commands of SMT-LIB
    that say nothing of the property (``set-logic``, ``set-info``, ``set-option``, ``check-sat``, ``get-model``,
    ``get-value``, ``exit``) are passed over; an assertion or a declaration after ``check-sat`` is refused.

    Args:
        text: the file's text.
        source: how messages call the file.

    Raises:
        VnnlibError: anything else, with the file and the line.
    """
    return _Reader(text, source).spec()


def spec_in_bulk(commands: Commands) -> Spec | None:
    """The property of a text of the usual commands and a few others, as :func:`read_vnnlib1` finds it; None where it
    takes the reader of tokens."""
    if len(commands.terms) > 1:
        return None
    try:
        rest: list[tuple[int, LinearConstraint]] = []
        if commands.rest:
            reader = _Reader(commands.rest.decode("ascii"), "", frozenset(commands.declared.tolist()))
            for place, formula in reader.placed_assertions():
                if formula.terms != ((),) or any(not row.outputs and len(row.inputs) == 1 for row in formula.common):
                    return None  # a disjunction, or a bound of an input
                rest += [(place, row) for row in formula.common]
        return spec_of_commands(commands, rest)
    except (UndecidedError, VnnlibError):
        return None


class _Reader:
    """One pass over the tokens; expressions are evaluated when their parenthesis closes, without recursion."""

    def __init__(self, text: str, source: str, declared: frozenset[int] = frozenset()) -> None:
        """``declared``: variables that are declared besides, 2 i for X_i and 2 i + 1 for Y_i."""
        self._besides = declared
        self._text = text
        self._source = source
        self._tokens: list[str] = _TOKEN.findall(text)
        self._at = 0
        self._variables: dict[str, Linear] = {}
        self._declared: dict[str, set[int]] = {"X": set(), "Y": set()}

    def spec(self) -> Spec:
        """The property."""
        assertions = [formula for _, formula in self.assertions()]
        inputs, outputs = (self._count(kind) for kind in "XY")
        try:
            return spec_of(conjunction(assertions), inputs, outputs, lambda j: f"X_{j}")
        except FormulaError as error:
            raise VnnlibError(f"{self._source}: {error}") from None

    def placed_assertions(self) -> list[tuple[int, Formula]]:
        """The same, each with its place in the text."""
        found = self.assertions()
        places = [match.start() for match in _TOKEN.finditer(self._text)]
        return [(places[number], formula) for number, formula in found]

    def assertions(self) -> list[tuple[int, Formula]]:
        """What is asserted, each with the number of the token where the command begins."""
        assertions = []
        asked = False
        while self._at < len(self._tokens):
            start = self._at
            self._expect("(", "a command")
            command = self._next()
            match command:
                case "assert":
                    assertions.append((start, self._formula()))
                case "declare-const" | "declare-fun":
                    self._declare(command)
                case _ if command in _SILENT:
                    self._skip()
                case _:
                    self._fail(f"command {quoted(command)} is not supported", start + 1)
            if command in _ASKS:
                asked = True
            elif asked and command not in _SILENT:
                self._fail(f"{command} after check-sat has no effect on the answer that was asked for", start + 1)
            self._expect(")", f"the end of {command}")
        return assertions

    def _declare(self, command: str) -> None:
        start = self._at
        name = _unquoted(self._next())
        variable = _VARIABLE.fullmatch(name)
        if variable is None:
            self._fail(f"variable {quoted(name)}: names must be X_<index> or Y_<index>", start)
        if command == "declare-fun":
            self._expect("(", "() after the name")
            self._expect(")", "() after the name")
        self._expect("Real", "the type Real, the only one supported")
        if name in self._variables:
            self._fail(f"variable {name} is declared twice", start)
        # Twenty digits are more than any count, and keep int() fast.
        if len(name) > 20:
            self._fail(f"variable {quoted(name)}: the index is too large", start)
        kind, index = variable[1], int(variable[2])
        self._declared[kind].add(index)
        self._variables[name] = Linear.variable(kind, index)

    def _count(self, kind: str) -> int:
        declared = self._declared[kind]
        if not declared:
            raise VnnlibError(f"{self._source}: no {'input' if kind == 'X' else 'output'} {kind}_0 is declared")
        missing = next((i for i in range(len(declared)) if i not in declared), None)
        if missing is not None:
            raise VnnlibError(f"{self._source}: {kind}_{missing} is not declared, but {kind}_{max(declared)} is")
        return len(declared)

    def _formula(self) -> Formula:
        start = self._at
        frames: list[tuple[str, int, list[Value]]] = []
        while True:
            at = self._at
            token = self._next()
            value: Value
            if token == "(":
                operator = self._next()
                if operator not in OPERATORS:
                    self._fail(f"operator {quoted(operator)} is not supported", at + 1)
                if len(frames) == MAX_DEPTH:
                    self._fail(f"parentheses are nested more than {MAX_DEPTH} deep", at)
                frames.append((operator, at, []))
                continue
            if token == ")":
                if not frames:
                    self._fail("assert has no formula", at)
                operator, opened, arguments = frames.pop()
                try:
                    value = apply(operator, arguments)
                except FormulaError as error:
                    self._fail(str(error), opened)
            else:
                value = self._operand(token, at)
            if frames:
                frames[-1][2].append(value)
            elif isinstance(value, Formula):
                return value
            else:
                self._fail("assert takes a formula, got an arithmetic term", start)

    def _operand(self, token: str, at: int) -> Value:
        variable = self._variables.get(_unquoted(token))
        if variable is None and self._besides:
            match = _VARIABLE.fullmatch(token)
            if match is not None and 2 * int(match[2]) + (match[1] == "Y") in self._besides:
                variable = Linear.variable(match[1], int(match[2]))
        if variable is not None:
            return variable
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token[0] not in _NUMBER_START:
            self._fail(f"{quoted(token)} is not a declared variable", at)
        try:
            return Linear({}, number(token))
        except FormulaError as error:
            self._fail(str(error), at)

    def _skip(self) -> None:
        """Everything up to the parenthesis that closes the command."""
        depth = 0
        while depth or self._at == len(self._tokens) or self._tokens[self._at] != ")":
            token = self._next()
            depth += (token == "(") - (token == ")")

    def _next(self) -> str:
        if self._at == len(self._tokens):
            self._fail("the file ends before a parenthesis is closed", self._at - 1)
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str, what: str) -> None:
        found = self._next()
        if found != token:
            self._fail(f"expected {what}, got {quoted(found)}", self._at - 1)

    def _fail(self, message: str, at: int) -> NoReturn:
        """Raise the error at token number ``at``, whose line is only looked up now."""
        position = next(islice(_TOKEN.finditer(self._text), at, None)).start()
        line = self._text.count("\n", 0, position) + 1
        raise VnnlibError(f"{self._source}, line {line}: {message}")


def _unquoted(name: str) -> str:
    """A symbol without the bars that SMT-LIB allows around it."""
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == "|" else name
