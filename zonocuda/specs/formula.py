"""Exact linear arithmetic and boolean formulas in disjunctive normal form: what every VNN-LIB version is read into.

Both readers build expressions bottom-up with ``number``, ``Linear`` and ``apply``. Numbers are rationals: nothing
here rounds. Every size that a hostile file could blow up (digits, exponents, products, disjunctions) is bounded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import combinations, pairwise

from zonocuda.specs.errors import quoted
from zonocuda.specs.spec import LinearConstraint

MAX_DIGITS = 1000
"""Digits of a literal, and the largest absolute value of its exponent."""
MAX_BITS = 1 << 14
"""Bits of a numerator or denominator that arithmetic may produce."""
MAX_DISJUNCTS = 1_000_000
"""Conjunctions of a disjunctive normal form."""
MAX_ROWS = 50_000_000
"""Constraints of a disjunctive normal form, counted once for each conjunction that holds them."""
MAX_DEPTH = 1000
"""Nesting of parentheses within an assertion."""

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_MAX_FLOAT = Fraction(sys.float_info.max)
_ZERO = Fraction(0)

Variable = tuple[str, int]
"""``("X", j)`` for flattened input j, ``("Y", i)`` for flattened output i."""


class FormulaError(ValueError):
    """What is wrong with an expression, in one line, without its place in the file."""


@dataclass(frozen=True)
class Linear:
    """sum coefficients[v] * v + constant, exact; no coefficient is zero."""

    coefficients: Mapping[Variable, Fraction]
    constant: Fraction

    @staticmethod
    def variable(kind: str, index: int) -> Linear:
        """The flattened input ("X") or output ("Y") of that index."""
        return Linear({(kind, index): Fraction(1)}, Fraction(0))


@dataclass(frozen=True)
class Formula:
    """The conjunction of all rows of ``common`` and, for at least one of ``terms``, of all rows of that term.

    A disjunctive normal form whose shared rows are stored once. ``terms`` is empty for a formula that no point
    satisfies, and ``((),)`` for a plain conjunction; a single nonempty term never occurs.
    """

    common: tuple[LinearConstraint, ...]
    terms: tuple[tuple[LinearConstraint, ...], ...]

    @property
    def size(self) -> int:
        """Number of rows, shared ones counted once for each term."""
        return len(self.terms) * len(self.common) + sum(map(len, self.terms))


TRUE = Formula((), ((),))
FALSE = Formula((), ())

Value = Linear | Formula


def number(text: str) -> Fraction:
    """The exact value of a decimal literal.

    Raises:
        FormulaError: no such literal, or more than MAX_DIGITS digits or an exponent beyond MAX_DIGITS.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise FormulaError(f"{quoted(text)} is not a number")
    sign, whole, decimals, exponent = match[1], match[2], match[3] or "", match[4] or "0"
    # The lengths come first: int() of a long digit string is slow, and refused by Python beyond 4300 digits.
    if len(whole) + len(decimals) > MAX_DIGITS or len(exponent) > MAX_DIGITS or abs(int(exponent)) > MAX_DIGITS:
        raise FormulaError(
            f"number {quoted(text)} has more than {MAX_DIGITS} digits or an exponent beyond {MAX_DIGITS}"
        )
    digits = int(sign + whole + decimals)
    power = int(exponent) - len(decimals)
    return Fraction(digits * 10**power) if power >= 0 else Fraction(digits, 10**-power)


def exceeds_float64(value: Fraction) -> bool:
    """Whether ``value`` is larger in magnitude than every finite float64."""
    # Comparing lengths first spares the product of long integers in nearly all cases.
    large = value.numerator.bit_length() - value.denominator.bit_length() >= sys.float_info.max_exp - 1
    return large and abs(value) > _MAX_FLOAT


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise FormulaError(f"arithmetic on constants produces a number of more than {MAX_BITS} bits")
    return value


def _sum(parts: Sequence[Linear], signs: Sequence[int]) -> Linear:
    coefficients: dict[Variable, Fraction] = {}
    constant = _ZERO
    for part, sign in zip(parts, signs, strict=True):
        for variable, c in part.coefficients.items():
            signed = c if sign > 0 else -c
            if variable not in coefficients:
                coefficients[variable] = signed
            elif total := _bounded(coefficients[variable] + signed):
                coefficients[variable] = total
            else:
                del coefficients[variable]
        if part.constant:
            signed = part.constant if sign > 0 else -part.constant
            constant = _bounded(constant + signed) if constant else signed
    return Linear(coefficients, constant)


def _scaled(term: Linear, factor: Fraction) -> Linear:
    scaled = {v: _bounded(c * factor) for v, c in term.coefficients.items() if factor}
    return Linear(scaled, _bounded(term.constant * factor))


def _difference(parts: Sequence[Linear]) -> Linear:
    """a - b - c ..., and -a for a single a."""
    return _sum(parts, [-1] if len(parts) == 1 else [1] + [-1] * (len(parts) - 1))


def _product(parts: Sequence[Linear]) -> Linear:
    nonconstant = [part for part in parts if part.coefficients]
    if len(nonconstant) > 1:
        raise FormulaError("'*' multiplies variables with each other: only linear terms are supported")
    result = nonconstant[0] if nonconstant else Linear({}, Fraction(1))
    for part in parts:
        if not part.coefficients:
            result = _scaled(result, part.constant)
    return result


def _quotient(parts: Sequence[Linear]) -> Linear:
    if len(parts) != 2:
        raise FormulaError(f"'/' takes 2 arguments, got {len(parts)}")
    term, divisor = parts
    if divisor.coefficients:
        raise FormulaError("'/' divides by a variable: only linear terms are supported")
    if not divisor.constant:
        raise FormulaError("'/' divides by zero")
    return _scaled(term, 1 / divisor.constant)


def _nonpositive(term: Linear, strict: bool) -> Formula:
    """term <= 0, or term < 0 where ``strict``; decided at once where it has no variable."""
    if not term.coefficients:
        return TRUE if (term.constant < 0 if strict else term.constant <= 0) else FALSE
    for c in (*term.coefficients.values(), term.constant):
        if exceeds_float64(c):
            raise FormulaError("a comparison has a coefficient or constant beyond the range of float64")
    inputs = {i: c for (kind, i), c in term.coefficients.items() if kind == "X"}
    outputs = {i: c for (kind, i), c in term.coefficients.items() if kind == "Y"}
    return Formula((LinearConstraint(outputs, inputs, term.constant, strict),), ((),))


def _compare(operator: str, parts: Sequence[Linear]) -> Formula:
    """A comparison; of more than two terms: of every neighbouring pair, and of all pairs for ``distinct``."""
    if operator == "distinct":
        return conjunction([_compare("!=", pair) for pair in combinations(parts, 2)])
    if len(parts) > 2:
        return conjunction([_compare(operator, pair) for pair in pairwise(parts)])
    match operator:
        case "<=" | "<":
            return _nonpositive(_difference(parts), operator == "<")
        case ">=" | ">":
            return _nonpositive(_difference(parts[::-1]), operator == ">")
        case "=":
            return conjunction([_compare("<=", parts), _compare(">=", parts)])
        case _:
            return disjunction([_compare("<", parts), _compare(">", parts)])


def check_size(disjuncts: int, rows: int) -> None:
    """Raise a FormulaError where a disjunctive normal form is too large."""
    if disjuncts > MAX_DISJUNCTS or rows > MAX_ROWS:
        raise FormulaError(
            f"the disjunctive normal form has more than {MAX_DISJUNCTS} disjuncts or {MAX_ROWS} constraints; "
            "split the property into several files"
        )


def conjunction(parts: Sequence[Formula]) -> Formula:
    """The formula that holds where every part holds (everywhere, for no parts).

    Raises:
        FormulaError: the disjunctive normal form exceeds MAX_DISJUNCTS or MAX_ROWS.
    """
    choices = [part.terms for part in parts if part.terms != ((),)]
    if not all(choices):
        return FALSE
    count = 1
    for choice in choices:
        count *= len(choice)
        check_size(count, 0)
    rows = sum(count // len(terms) * sum(map(len, terms)) for terms in choices)
    check_size(count, rows)
    terms: list[tuple[LinearConstraint, ...]] = [()]
    for choice in choices:
        terms = [left + right for left in terms for right in choice]
    return Formula(tuple(row for part in parts for row in part.common), tuple(terms))


def disjunction(parts: Sequence[Formula]) -> Formula:
    """The formula that holds where at least one part holds (nowhere, for no parts).

    Raises:
        FormulaError: the disjunctive normal form exceeds MAX_DISJUNCTS or MAX_ROWS.
    """
    possible = [part for part in parts if part.terms]
    if len(possible) == 1:
        return possible[0]
    check_size(sum(len(part.terms) for part in possible), sum(part.size for part in possible))
    return Formula((), tuple(part.common + term for part in possible for term in part.terms))


def negation(formula: Formula) -> Formula:
    """The formula that holds where ``formula`` does not.

    Raises:
        FormulaError: the disjunctive normal form exceeds MAX_DISJUNCTS or MAX_ROWS.
    """
    no_term = conjunction([disjunction([_flipped(row) for row in term]) for term in formula.terms])
    return disjunction([no_term, *map(_flipped, formula.common)])


def _flipped(row: LinearConstraint) -> Formula:
    """The row's negation: not (value <= 0) is -value < 0, and not (value < 0) is -value <= 0."""
    outputs = {i: -c for i, c in row.outputs.items()}
    inputs = {j: -c for j, c in row.inputs.items()}
    return Formula((LinearConstraint(outputs, inputs, -row.constant, not row.strict),), ((),))


_ARITHMETIC: dict[str, Callable[[Sequence[Linear]], Linear]] = {
    "+": lambda parts: _sum(parts, [1] * len(parts)),
    "-": _difference,
    "*": _product,
    "/": _quotient,
}


def _if(parts: Sequence[Formula]) -> Formula:
    condition, one, other = parts
    return disjunction([conjunction([condition, one]), conjunction([negation(condition), other])])


_COMPARISONS = ("<=", ">=", "<", ">", "=", "!=", "distinct")
_CONNECTIVES: dict[str, Callable[[Sequence[Formula]], Formula]] = {
    "and": conjunction,
    "or": disjunction,
    "not": lambda parts: negation(parts[0]),
    "=>": lambda parts: disjunction([*map(negation, parts[:-1]), parts[-1]]),  # associates to the right
    "xor": lambda parts: reduce(lambda a, b: _if([a, negation(b), b]), parts),
    "ite": _if,
    "=": lambda parts: conjunction([_if([a, b, negation(b)]) for a, b in pairwise(parts)]),
}
_LEAST, _MOST = {"=>": 2, "xor": 2} | dict.fromkeys(_COMPARISONS, 2), {"!=": 2}
_EXACTLY = {"not": 1, "ite": 3}
OPERATORS = frozenset((*_ARITHMETIC, *_COMPARISONS, *_CONNECTIVES))


def apply(operator: str, arguments: Sequence[Value]) -> Value:
    """The value of ``(operator arguments...)`` for one of OPERATORS.

    Raises:
        FormulaError: a wrong number or kind of arguments, a nonlinear term, a division by zero, or a size limit.
    """
    least = _EXACTLY.get(operator, _LEAST.get(operator, 1))
    most = _EXACTLY.get(operator, _MOST.get(operator, len(arguments)))
    if not least <= len(arguments) <= most:
        wanted = f"{'' if least == most else 'at least '}{least}" if least > len(arguments) else str(most)
        raise FormulaError(f"{operator!r} takes {wanted} argument(s), got {len(arguments)}")
    formulas = [a for a in arguments if isinstance(a, Formula)]
    if operator in _CONNECTIVES and (formulas or operator not in _COMPARISONS):
        if len(formulas) != len(arguments):
            raise FormulaError(f"{operator!r} takes formulas, got an arithmetic term")
        return _CONNECTIVES[operator](formulas)
    terms = [a for a in arguments if isinstance(a, Linear)]
    if len(terms) != len(arguments):
        raise FormulaError(f"{operator!r} takes arithmetic terms, got a formula")
    return _ARITHMETIC[operator](terms) if operator in _ARITHMETIC else _compare(operator, terms)
