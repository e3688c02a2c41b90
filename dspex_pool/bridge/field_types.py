"""Types of fields: read from text, and held against JSON values."""

from __future__ import annotations

import ast
import types
from typing import Any, Literal, Union, get_args, get_origin

from dspex_pool.bridge.arguments import describe
from dspex_pool.errors import InvalidArgumentError

__all__ = ["mismatch", "parse_type", "type_of_node"]

#: Names of types: Python's, and those that JSON schemas and the bridge's Elixir clients use.
_NAMES: dict[str, Any] = {
    "str": str, "string": str, "int": int, "integer": int, "float": float, "number": float, "bool": bool,
    "boolean": bool, "list": list, "List": list, "array": list, "dict": dict, "Dict": dict, "object": dict,
    "map": dict,
}  # fmt: skip
_KNOWN = "str, int, float, bool, list[…], dict[str, …], Literal[…], and any of them '| None'"


def parse_type(text: str, field: str) -> Any:
    """Return the annotation that ``text`` means, such as ``list[str]``.

    Args:
        text: The type.
        field: The field's name, for the error.

    Raises:
        InvalidArgumentError: The type is not one of the known ones.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unknown(text, field) from None
    return type_of_node(node, field)


def type_of_node(node: ast.expr, field: str) -> Any:
    """Return the annotation that a parsed expression means. Nothing is evaluated or imported.

    Raises:
        InvalidArgumentError: The type is not one of the known ones.
    """
    match node:
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return _literal(choices, node, field)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return type_of_node(inner, field) | None
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return type_of_node(left, field) | None
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=[ast.Name(id=key), value])):
            if _NAMES.get(name) is dict and _NAMES.get(key) is str:
                return dict[str, type_of_node(value, field)]  # type: ignore[misc] # made at run time
        case ast.Subscript(value=ast.Name(id=name), slice=item) if _NAMES.get(name) is list:
            return list[type_of_node(item, field)]  # type: ignore[misc] # made at run time
    raise _unknown(ast.unparse(node), field)


def mismatch(value: Any, annotation: Any) -> str | None:
    """Return why a JSON value is not of a type, as in ``is the number 3, not str``; ``None`` if it is.

    Nothing is converted: ``true`` is no int, ``"3"`` is no int; but an int serves as a float.
    """
    origin, parameters = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in parameters)
        return None if fits else f"is {describe(value)}, not one of {', '.join(map(repr, parameters))}"
    if origin in (Union, types.UnionType):
        return None if value is None else mismatch(value, parameters[0])
    kind = origin or annotation
    if not _is_of(value, kind):
        return f"is {describe(value)}, not {kind.__name__}"
    return _item_mismatch(value, parameters) if parameters else None


def _item_mismatch(value: Any, parameters: tuple[Any, ...]) -> str | None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if problem := mismatch(item, parameters[-1]):
            return f"has an item [{key!r}] that {problem}"
    return None


def _is_of(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _literal(choices: ast.expr, node: ast.expr, field: str) -> Any:
    try:
        values = ast.literal_eval(choices)
    except (ValueError, TypeError):  # such as a set of lists
        raise _unknown(ast.unparse(node), field) from None
    values = values if isinstance(values, tuple) else (values,)
    if not values or not all(isinstance(value, str | int) for value in values):
        raise _unknown(ast.unparse(node), field)
    return Literal[values]


def _unknown(text: str, field: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"signature has a field {field!r} of the unknown type {text!r}; known are {_KNOWN}",
        argument="signature",
    )
