"""Reading the args of a request: each value is checked, and an error names the argument."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "mapping",
    "names",
    "number",
    "optional_mapping",
    "optional_text",
    "positive_int",
    "refusal",
    "text",
]

Args = dict[str, Any]


def refusal(argument: str, problem: str) -> InvalidArgumentError:
    """Return the error that says what is wrong with an argument: ``argument problem``."""
    return InvalidArgumentError(f"{argument} {problem}", argument=argument)


def text(args: Mapping[str, Any], name: str) -> str:
    """Return a text that must be there.

    Raises:
        InvalidArgumentError: It is missing, empty, or no string.
    """
    value = optional_text(args, name)
    if value is None:
        raise refusal(name, "is required and must be a string")
    return value


def optional_text(args: Mapping[str, Any], name: str) -> str | None:
    """Return a text, or ``None`` where it is missing or null.

    Raises:
        InvalidArgumentError: It is empty, or no string.
    """
    value = args.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise refusal(name, f"must be a non-empty string, not {describe(value)}")
    return value


def mapping(args: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object that must be there.

    Raises:
        InvalidArgumentError: It is missing, or no object.
    """
    value = optional_mapping(args, name)
    if value is None:
        raise refusal(name, "is required and must be an object")
    return value


def optional_mapping(args: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return an object, or ``None`` where it is missing or null.

    Raises:
        InvalidArgumentError: It is no object.
    """
    value = args.get(name)
    if value is not None and not isinstance(value, dict):
        raise refusal(name, f"must be an object, not {describe(value)}")
    return value


def names(args: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list of texts, empty where it is missing or null.

    Raises:
        InvalidArgumentError: It is no list of non-empty strings.
    """
    value = args.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise refusal(name, f"must be a list of strings, not {describe(value)}")
    return tuple(value)


def number(args: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number of 0 or more, or ``None`` where it is missing or null.

    Raises:
        InvalidArgumentError: It is no number, negative, or not finite.
    """
    value = args.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise refusal(name, f"must be a number of 0 or more, not {describe(value)}")
    return value


def positive_int(args: Mapping[str, Any], name: str) -> int | None:
    """Return an integer of 1 or more, or ``None`` where it is missing or null.

    Raises:
        InvalidArgumentError: It is no integer, or less than 1.
    """
    value = args.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refusal(name, f"must be an integer of 1 or more, not {describe(value)}")
    return value


def describe(value: object) -> str:
    """Return a short text for a value that is not what it should be, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {value!r}" if len(value) <= 40 else f"a string of {len(value)} characters"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"of type {type(value).__name__}"
