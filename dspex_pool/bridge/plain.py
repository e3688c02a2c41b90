"""What programs return, as JSON has it: in the way in which pydantic, and so DSPy, writes it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from dspex_pool.errors import LocalProtocolError
from dspex_pool.protocol.strict_json import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["plain", "shown_steps"]

# What JSON carries as it is.
_KINDS = (bool, float, int, str)
# What makes that of a class derived from it.
_BARE: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: records as objects, sets as lists, members of an enum as their values.

    What else JSON cannot carry stays, for the encoder to name its place.
    """
    if value is None or type(value) in _KINDS:
        return value
    if isinstance(value, dict):
        named = {_plain_key(key): plain(item) for key, item in value.items()}
        return named if len(named) == len(value) else value  # with keys that would be one
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    return _plain_scalar(value)


def shown_steps(trajectory: Any) -> Any:
    """Return the steps of an agent, whose tools may return any object: what JSON cannot carry is shown as its text.

    That is what DSPy shows the model of it.
    """
    if not isinstance(trajectory, dict):
        return plain(trajectory)
    return {name: _shown(value) for name, value in trajectory.items()}


def _shown(value: Any) -> Any:
    shown = plain(value)
    try:
        encode_json({"shown": shown})
    except LocalProtocolError:
        return str(value)
    return shown


def _plain_key(key: Any) -> Any:
    named = plain(key)
    if type(named) in (int, float):
        return str(named)
    return named if isinstance(named, str) else key


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | timedelta):
        return msgspec.to_builtins(value)
    for kind, bare in _BARE.items():
        if isinstance(value, kind):
            return bare(value)
    return _plain_record(value)


def _plain_record(value: Any) -> Any:
    if hasattr(type(value), "toDict"):  # DSPy's examples and predictions
        return plain(dict(value.items()))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    dump = getattr(value, "model_dump", None)  # pydantic's records, DSPy's own types among them
    return dump(mode="json") if callable(dump) else value
