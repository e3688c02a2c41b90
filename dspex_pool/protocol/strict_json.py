"""JSON that arrives as it was sent: encoding refuses whatever would be changed or lost on the way.

The codec alone would turn NaN into null, sets into arrays and the key 1 into "1" without a word. Walking
over each value in Python to prevent that costs more than the whole message, so the payload is decoded
again and compared, all in C; only if that fails is the value searched for the culprit. (10,000 floats in
100 arrays, CPython 3.11: the codec alone 0.28 ms, with the comparison 0.73 ms, the walk 5.3 ms.)

Decoding costs by the byte, though, and walking by the value: a long payload of few values is proven by a walk
that gives up as soon as it has seen too many.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from dspex_pool.errors import LocalProtocolError

__all__ = ["MALFORMED", "decode_json", "encode_json", "shorten"]

#: What decoding raises for bytes that cannot be read. ``RecursionError`` is nesting too deep to decode.
MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_encode: Final = msgspec.json.Encoder().encode
decode_json: Final = msgspec.json.Decoder().decode

# Deeper than the interpreter's default recursion limit lets the codec go.
_MAX_DEPTH: Final = 1000
_MAX_PLACE_CHARS: Final = 80
# A value takes a walk as long as decoding and comparing takes for some hundred bytes of text.
_BYTES_A_VALUE: Final = 512
# Below, too few values may be looked at to find any message plain.
_LONG_BYTES: Final = 32 * _BYTES_A_VALUE
# Far from where the codec runs out of stack: it needs more of it to decode than to encode.
_MAX_PLAIN_DEPTH: Final = 64
_LEAST_INT: Final = -(2**63)
_INT_END: Final = 2**64
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def encode_json(fields: dict[str, Any]) -> bytes:
    """Encode one message as JSON in UTF-8.

    Args:
        fields: The message's fields. Tuples travel as arrays.

    Raises:
        LocalProtocolError: A value would not arrive as it is: NaN, an infinity, a lone surrogate, a key that
            is no string, a type that JSON does not have, or nesting too deep. The text names the place,
            as in ``args.inputs.x is NaN``.
    """
    reason = "the message cannot be carried by JSON"
    try:
        payload = _encode(fields)
        if len(payload) > _LONG_BYTES and _is_plain(fields, len(payload) // _BYTES_A_VALUE):
            return payload
        if decode_json(payload) == fields:
            return payload
    except (TypeError, *MALFORMED) as error:
        payload = None
        reason = f"the message cannot be carried by JSON: {error}"
    objection = _find_objection(fields)
    if objection is None and payload is not None:
        return payload
    raise LocalProtocolError(f"{objection or reason}; nothing was sent")


def _is_plain(fields: dict[str, Any], most_values: int) -> bool:
    """Tell whether what was encoded arrives as it is, because each value is of a kind that always does.

    Lone surrogates are no matter of this: the codec itself refuses them.

    Args:
        fields: What the codec has taken.
        most_values: After so many values the walk is given up, and nothing is told.
    """
    level: list[Any] = [fields]
    for _ in range(_MAX_PLAIN_DEPTH):
        below: list[Any] = []
        for container in level:
            most_values -= len(container)
            if most_values < 0 or not _adds_plain(container, below):
                return False
        if not below:
            return True
        level = below
    return False


def _adds_plain(container: Any, below: list[Any]) -> bool:
    """Look at what a container holds, and add the containers in it to those that are to be looked at."""
    values = container
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
        values = container.values()
    for value in values:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue
        if kind is dict or kind is list or kind is tuple:
            below.append(value)
        elif kind is int:
            if not _LEAST_INT <= value < _INT_END:
                return False
        elif kind is not float or not math.isfinite(value):
            return False
    return True


def _find_objection(fields: dict[str, Any]) -> str | None:
    """Return what is wrong with the first value that JSON would change, with its place, or ``None``."""
    pending: list[tuple[str, Any, int]] = [("", fields, 0)]
    while pending:
        place, value, depth = pending.pop()
        if depth > _MAX_DEPTH:
            return f"{_shorten(place)} is nested too deeply, or holds itself"
        if isinstance(value, dict):
            objection = _object_to_keys(place, value)
            pending.extend(reversed([(_join(place, key), item, depth + 1) for key, item in value.items()]))
        elif isinstance(value, list | tuple):
            objection = None
            pending.extend(reversed([(f"{place}[{i}]", item, depth + 1) for i, item in enumerate(value)]))
        else:
            objection = _object_to_scalar(place, value)
        if objection is not None:
            return objection
    return None


def _object_to_keys(place: str, value: dict[Any, Any]) -> str | None:
    for key in value:
        where = f"a key of {_shorten(place) or 'the message'}"
        if not isinstance(key, str):
            return f"{where} is {_describe(key)}, but keys are strings in JSON"
        objection = _object_to_scalar(where, key)
        if objection is not None:
            return objection
    return None


def _object_to_scalar(place: str, value: Any) -> str | None:
    place = _shorten(place)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place} is {'NaN' if math.isnan(value) else 'infinite'}, which JSON cannot carry"
    if isinstance(value, str):
        surrogate = _LONE_SURROGATE.search(value)
        if surrogate is not None:
            found = f"the lone surrogate U+{ord(surrogate[0]):04X} at character {surrogate.start()}"
            return f"{place} has {found}, which UTF-8 cannot carry"
    try:
        if decode_json(_encode(value)) == value:
            return None
    except (TypeError, *MALFORMED):
        pass
    return f"{place} is {_describe(value)}, which JSON cannot carry"


def _describe(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"an integer of {value.bit_length()} bits"
    return f"of type {type(value).__name__}"


def _join(place: str, key: object) -> str:
    if isinstance(key, str) and key.isidentifier():
        return f"{place}.{key}" if place else key
    return f"{place}[{key!r}]"


def _shorten(place: str) -> str:
    # A place is for finding, not for quoting: keys may be as long as values.
    return shorten(place, _MAX_PLACE_CHARS)


def shorten(text: str, max_chars: int) -> str:
    """Return ``text``, or its first ``max_chars`` characters and an ellipsis."""
    return text if len(text) <= max_chars else text[:max_chars] + "…"
