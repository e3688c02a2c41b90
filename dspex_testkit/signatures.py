"""Canned values for the fields of a signature, as the bridge understands it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from dspex_pool.bridge.signatures import FieldSpec

__all__ = ["canned_value"]

_BY_TYPE: dict[Any, Any] = {int: 0, float: 0.0, bool: False, list: [], dict: {}}


def canned_value(field: FieldSpec, seed: str) -> Any:
    """Return a value of the field's type; texts show the field and ``seed``."""
    kind = field.annotation
    parameters = get_args(kind)
    if get_origin(kind) is Literal:
        return parameters[0]
    if type(None) in parameters:
        kind = parameters[0]
        if get_origin(kind) is Literal:
            return get_args(kind)[0]
    empty = _BY_TYPE.get(get_origin(kind) or kind, f"{field.name}: {seed}")
    # A caller may fill what he was given.
    return empty.copy() if isinstance(empty, list | dict) else empty
