"""E: what is no request, what nobody serves, and commands that fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dspex_testkit.conform import sentences as say
from dspex_testkit.conform.clause import Subject, hold
from dspex_testkit.conform.wire import is_same_id, request, show

if TYPE_CHECKING:
    from dspex_testkit.conform.wire import Message, Wire

__all__ = ["CLAUSES"]

refusals = Subject("E", "refusals")
CLAUSES = refusals.clauses

_UNKNOWN = "conform_unknown_command"
#: Deeper than any reader of JSON goes that calls itself for each level.
_DEEP = 50_000


def _refused(wire: Wire, payload: bytes) -> Message:
    """Hold that a payload is answered by a failure; return it."""
    wire.say(payload)
    answer = wire.answer()
    hold(answer.get("success") is False, f"{payload[:60]!r} is answered by {show(answer)}")
    return answer


def _refused_without_id(wire: Wire, payload: bytes) -> None:
    answer = _refused(wire, payload)
    hold(
        answer.get("id", "") is None,
        f"{payload[:60]!r} is answered under the id {answer.get('id', 'none')!r}",
    )


@refusals.clause(1, say.NULL_ID)
def _no_json(wire: Wire) -> None:
    """What is no JSON is answered by a failure whose id is null."""
    _refused_without_id(wire, b'{"id": ')


@refusals.clause(2, say.NULL_ID)
def _empty_payload(wire: Wire) -> None:
    """A frame without a payload is answered by such a failure."""
    _refused_without_id(wire, b"")


@refusals.clause(3, say.NULL_ID)
def _no_utf_8(wire: Wire) -> None:
    """What is no UTF-8 is answered by such a failure."""
    _refused_without_id(wire, b"\xff\xfe\xfd")


@refusals.clause(4, say.NULL_ID)
def _no_object(wire: Wire) -> None:
    """JSON that is no object, but a list, a text or null, is answered by such a failure."""
    for payload in (b"[1]", b'"ping"', b"null", b"7"):
        _refused_without_id(wire, payload)


@refusals.clause(5, say.NULL_ID)
def _endless_nesting(wire: Wire) -> None:
    """Lists in lists without end are answered by a failure, and the worker lives on."""
    _refused(wire, b'{"args": ' + b"[" * min(_DEEP, wire.profile.max_frame_bytes - 100))
    wire.lives()


@refusals.clause(6, say.NOT_A_NUMBER)
def _not_a_number(wire: Wire) -> None:
    """A request with NaN or Infinity in it is no JSON, and is answered by a failure."""
    for word in (b"NaN", b"Infinity", b"-Infinity"):
        _refused(wire, request("ping", {"x": 7_777_777}).replace(b"7777777", word))


@refusals.clause(7, say.REFUSED)
def _missing_command(wire: Wire) -> None:
    """A request without a command is answered by a failure."""
    _refused(wire, request("ping", command=...))


@refusals.clause(8, say.REFUSED)
def _command_of_another_type(wire: Wire) -> None:
    """A request whose command is no text is answered by a failure."""
    for command in (7, None, ["ping"]):
        _refused(wire, request("ping", command=command))


@refusals.clause(9, say.REFUSED)
def _missing_args(wire: Wire) -> None:
    """A request without args is answered by a failure."""
    _refused(wire, _without_args(2))


@refusals.clause(10, say.REFUSED)
def _args_of_another_type(wire: Wire) -> None:
    """A request whose args are no object is answered by a failure."""
    for args in (b"[]", b'"x"', b"null"):
        _refused(wire, request("ping").replace(b'"args": {}', b'"args": ' + args))


@refusals.clause(11, say.REFUSED)
def _missing_timestamp(wire: Wire) -> None:
    """A request without a timestamp is answered by a failure."""
    _refused(wire, request("ping", timestamp=...))


@refusals.clause(12, say.FAILURE)
def _refusal_has_the_id(wire: Wire) -> None:
    """A request with a usable id that is refused for something else is answered under its id."""
    payloads = {121: request("ping", id=121, command=7), 122: request("ping", id=122, command=...)}
    for number, payload in {**payloads, 123: _without_args(123)}.items():
        wire.say(payload)
        answer = wire.answer()
        # Whether it is refused at all is what other clauses ask.
        is_refused = answer.get("success") is False
        hold(
            not is_refused or is_same_id(answer.get("id"), number),
            f"{number} is refused under {answer.get('id')!r}",
        )


def _without_args(number: int) -> bytes:
    return request("ping", id=number).replace(b'"args": {}, ', b"")


@refusals.clause(13, say.UNKNOWN_FIELDS)
def _unknown_fields(wire: Wire) -> None:
    """Fields that a later version may bring are ignored."""
    answer = wire.ask("ping", from_the_future=[1, {"a": None}])
    hold(answer.get("success") is True, f"the answer is {show(answer)}")


@refusals.clause(14, say.TRACE, version=2)
def _trace_and_timeout(wire: Wire) -> None:
    """A request may tell its trace context and how long its caller waits."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = wire.ask("ping", traceparent=trace, timeout_s=2.5)
    hold(answer.get("success") is True, f"the answer is {show(answer)}")


@refusals.clause(15, say.UNKNOWN_COMMAND)
def _unknown_command(wire: Wire) -> None:
    """A command that nobody serves is answered by a failure."""
    answer = wire.ask(_UNKNOWN)
    hold(answer.get("success") is False, f"the answer is {show(answer)}")


@refusals.clause(16, say.UNKNOWN_COMMAND)
def _unknown_command_is_named(wire: Wire) -> None:
    """The failure names the command."""
    answer = wire.ask(_UNKNOWN)
    # An error without a text is the matter of another clause.
    error = answer.get("error") or _UNKNOWN
    hold(_UNKNOWN in str(error), f"the error is {error!r}")


@refusals.clause(17, say.UNKNOWN_COMMAND)
def _lives_after_unknown_command(wire: Wire) -> None:
    """After an unknown command the worker lives on."""
    wire.ask(_UNKNOWN)
    wire.lives()


@refusals.clause(18, say.NULL_ID)
def _lives_after_refusals(wire: Wire) -> None:
    """After many invalid requests the worker lives on, and has answered each once."""
    for number in range(20):
        wire.say(b"{no json %d" % number)
        wire.answer()
    wire.lives()


@refusals.clause(19, say.LIVES_ON, needs=("failing",))
def _failing_command(wire: Wire) -> None:
    """A command that fails is answered by a failure, under its id, and the worker lives on."""
    number = wire.begin("failing")
    answer = wire.answer()
    hold(
        answer.get("success") is False and is_same_id(answer.get("id"), number),
        f"the answer is {show(answer)}",
    )
    wire.lives()


@refusals.clause(20, say.ERROR_INFO, version=2)
def _error_info(wire: Wire) -> None:
    """What a failure tells to programs, if it does, has a type and a message, and fields of the right types."""
    info = wire.fails().get("error_info")
    if info is not None:
        _check_info(info)


def _check_info(info: Any) -> None:
    hold(isinstance(info, dict), f"error_info is {info!r}")
    for name in ("type", "message"):
        hold(isinstance(info.get(name), str), f"error_info.{name} is {info.get(name)!r}")
    optional: dict[str, Any] = {"traceback": str, "code": str, "status": int, "retryable": bool}
    for name, kind in (optional | {"retry_after_s": int | float}).items():
        value = info.get(name)
        hold(value is None or isinstance(value, kind), f"error_info.{name} is {value!r}")


@refusals.clause(21, say.NOT_A_NUMBER, needs=("nan",))
def _result_that_is_no_json(wire: Wire) -> None:
    """A result with NaN in it is answered by a failure, or by a value that JSON has."""
    answer = wire.ask_role("nan")
    hold(_is_finite(answer), f"the answer is {show(answer)}")
    wire.lives()


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
