"""Exceptions of commands, translated into the failures that travel."""

from __future__ import annotations

import math
import traceback
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.interrupts import CommandCancelledError
from dspex_pool.errors import (
    DspexPoolError,
    InvalidArgumentError,
    ProgramExistsError,
    ProgramNotFoundError,
)
from dspex_pool.protocol.messages import ErrorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CANCELLED", "UNKNOWN_COMMAND", "describe"]

#: Type of a failure after SIGINT.
CANCELLED = "Cancelled"
#: Type of a failure for a command that nobody serves.
UNKNOWN_COMMAND = "UnknownCommand"

_WIRE_TYPES: tuple[tuple[type[BaseException], str], ...] = (
    (KeyboardInterrupt, CANCELLED),
    (InvalidArgumentError, "InvalidArgument"),
    (ProgramNotFoundError, "ProgramNotFound"),
    (ProgramExistsError, "ProgramExists"),
)
# Enough for the frames that matter; the end of a traceback is the part that tells.
_MAX_TRACEBACK_CHARS = 16_000
_MAX_MESSAGE_CHARS = 16_000


def describe(
    error: BaseException,
    *,
    mask: Callable[[str], str] = str,
    facts: Callable[[BaseException], Mapping[str, Any]] | None = None,
) -> tuple[str, ErrorInfo]:
    """Translate an exception into a failure's text and its facts.

    Args:
        error: What the command raised.
        mask: Removes secrets from a text.
        facts: The handler's own knowledge: any of ``code``, ``status``, ``retry_after``, ``retryable``. What
            it does not know is read from the exception's attributes of these names.

    Returns:
        The text for people, and the record for programs.
    """
    wire_type = _wire_type(error)
    message = mask(_message(error))[:_MAX_MESSAGE_CHARS]
    known = _checked(lambda name: _attribute(error, name))
    if facts is not None:
        told = _ask(facts, error)
        known |= {name: value for name, value in _checked(told.get).items() if value is not None}
    # A mistake of the caller, found before anything ran, is told completely by its message.
    trace = None if isinstance(error, DspexPoolError) else mask(_traceback(error))[-_MAX_TRACEBACK_CHARS:]
    return message, ErrorInfo(type=wire_type, message=message, traceback=trace, **known)


def _wire_type(error: BaseException) -> str:
    # Code that was interrupted may pass on an exception of its own instead.
    if any(isinstance(link, CommandCancelledError) for link in _chain(error)):
        return CANCELLED
    return next((name for kind, name in _WIRE_TYPES if isinstance(error, kind)), type(error).__name__)


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is known for known in links):
        links.append(link)
        # Not by its truth, which an exception may define for itself.
        context = None if link.__suppress_context__ else link.__context__
        link = context if link.__cause__ is None else link.__cause__
    return links


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "The command was cancelled."
    try:
        return str(error) or type(error).__name__
    except BaseException:  # also SystemExit: a program may end itself, not its worker
        return f"{type(error).__name__}, whose text cannot be had"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # as above
        return f"the traceback of {type(error).__name__} cannot be formatted"


def _checked(get: Callable[[str], object]) -> dict[str, Any]:
    """Return the facts that ``get`` knows, as far as they have the types that travel.

    Texts and integers of somebody's own class become plain ones: the codec refuses any other.
    """
    code, status = get("code"), get("status")
    retry_after, retryable = get("retry_after"), get("retryable")
    return {
        "code": str.__str__(code) if isinstance(code, str) else None,
        "status": int.__int__(status) if isinstance(status, int) and not isinstance(status, bool) else None,
        "retry_after_s": _duration(retry_after),
        "retryable": retryable if isinstance(retryable, bool) else None,
    }


def _attribute(error: BaseException, name: str) -> object:
    try:
        return getattr(error, name, None)
    except BaseException:  # a property of somebody's class
        return None


def _duration(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        duration = float(value)
    except OverflowError:  # an integer may be longer than any float
        return None
    return duration if math.isfinite(duration) and duration >= 0 else None


def _ask(facts: Callable[[BaseException], Mapping[str, Any]], error: BaseException) -> dict[str, Any]:
    try:
        return dict(facts(error))
    except BaseException:  # a handler's mistake must not hide the error itself
        return {}
