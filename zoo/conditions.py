"""A small language of conditions over columns, such as `params < 1e6 and family == "squeezenet"`.

Python's own parser reads it, and only the handful of constructs named in ALLOWED is walked; nothing is executed.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from zoo.errors import ZooError, unknown

Condition = Callable[[Any], bool]
Kind = type[str] | type[float] | type[bool]

ALLOWED = "comparisons (< <= > >= == !=) of columns with numbers or quoted text, joined by and, or, not"
MOST_CHARACTERS = 1000

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def parse_where(text: str, columns: Mapping[str, Kind]) -> Condition:
    """Turn a condition into a function of any object that has the columns as attributes.

    columns: name -> str, float (for every number) or bool. A comparison with a value that is None is false, so its
    negation is true; a bool column may stand alone. The whole text is checked here, before any row is looked at.
    Raises UnknownNameError for a column that does not exist, ZooError for anything that is not in the language.
    """
    if len(text) > MOST_CHARACTERS:
        raise ZooError(f"a condition of {len(text)} characters was given; it may have {MOST_CHARACTERS}.")
    try:
        with warnings.catch_warnings():  # a stray backslash or `is` would warn on the user's behalf
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval")
        return _condition(tree.body, columns, text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _refusal(text) from None


def _refusal(text: str, why: str = "it cannot be read") -> ZooError:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return ZooError(f"the condition {shown!r} is not understood: {why}. Allowed are {ALLOWED}.")


def _condition(node: ast.expr, columns: Mapping[str, Kind], text: str) -> Condition:
    if isinstance(node, ast.BoolOp):
        parts = [_condition(value, columns, text) for value in node.values]
        decide = all if isinstance(node.op, ast.And) else any
        return lambda row: decide(part(row) for part in parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _condition(node.operand, columns, text)
        return lambda row: not inner(row)
    if isinstance(node, ast.Compare):
        return _comparison(node, columns, text)
    kind, value = _operand(node, columns, text)
    if kind is not bool:
        raise _refusal(text, f"{ast.unparse(node)!r} alone is neither true nor false")
    return lambda row: bool(value(row))


def _comparison(node: ast.Compare, columns: Mapping[str, Kind], text: str) -> Condition:
    """A comparison or a chain of them, such as `1e5 < params <= 1e6`."""
    operands = [_operand(operand, columns, text) for operand in (node.left, *node.comparators)]
    links: list[tuple[Callable[[Any, Any], bool], Callable[[Any], Any], Callable[[Any], Any]]] = []
    for symbol, (left_kind, left), (right_kind, right) in zip(node.ops, operands, operands[1:], strict=False):
        if type(symbol) not in _COMPARE:
            raise _refusal(text, f"`{type(symbol).__name__}` is not one of the comparisons")
        if left_kind is not right_kind:
            raise _refusal(text, f"{ast.unparse(node)!r} compares {_plain(left_kind)} with {_plain(right_kind)}")
        links.append((_COMPARE[type(symbol)], left, right))

    def holds(row: Any) -> bool:
        for compare, left, right in links:
            a, b = left(row), right(row)
            if a is None or b is None or not compare(a, b):
                return False
        return True

    return holds


def _operand(node: ast.expr, columns: Mapping[str, Kind], text: str) -> tuple[Kind, Callable[[Any], Any]]:
    """The kind of a column or constant, and how to get its value from a row."""
    if isinstance(node, ast.Name):
        if node.id not in columns:
            raise unknown("column", node.id, columns)
        return columns[node.id], operator.attrgetter(node.id)
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and _is_number(node.operand):
        sign, node = -1, node.operand
    if isinstance(node, ast.Constant):
        constant = node.value
        if isinstance(constant, bool | str):
            return type(constant), lambda _row: constant
        if isinstance(constant, int | float):
            return float, lambda _row: sign * constant
    raise _refusal(text, f"{ast.unparse(node)!r} is neither a column, a number nor quoted text")


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _plain(kind: Kind) -> str:
    return {str: "text", float: "a number", bool: "true or false"}[kind]
