"""Messages: requests, answers and events as records, to and from the payload of one frame."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

from dspex_pool.errors import RemoteProtocolError
from dspex_pool.protocol.strict_json import MALFORMED, decode_json, encode_json, shorten

__all__ = [
    "EXCERPT_BYTES",
    "MAX_REASON_CHARS",
    "ErrorInfo",
    "Event",
    "Failure",
    "FromWorker",
    "Reply",
    "Request",
    "RequestId",
    "Success",
    "decode_from_worker",
    "decode_request",
    "encode_event",
    "encode_failure",
    "encode_request",
    "encode_result",
    "encode_success",
]

RequestId = Annotated[int, msgspec.Meta(ge=0)]

#: How much of an unreadable payload an error quotes, in bytes.
EXCERPT_BYTES: Final = 64
# The other side chooses part of the reason: a path of a thousand levels, or a text of megabytes.
MAX_REASON_CHARS: Final = 200

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_AT_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# Our encoder writes the id first, so even a request too deep to decode can be answered to its sender.
_LEADING_ID: Final = re.compile(rb'\s*\{\s*"id"\s*:\s*(0|[1-9][0-9]{0,17})\s*,')


class Request(msgspec.Struct, frozen=True):
    """A client asks a worker to run one command."""

    #: Number of the request, unique while it is outstanding.
    id: RequestId
    #: Name of the command.
    command: str
    #: Arguments of the command.
    args: dict[str, Any]
    #: When it was asked, ISO 8601.
    timestamp: str
    #: W3C trace context of the caller (version 2).
    traceparent: str | None = None
    #: Seconds that the caller will wait (version 2).
    timeout_s: float | None = None


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a program can do something with about a failure (version 2)."""

    #: Class name of the exception, or one of the names that the protocol gives.
    type: str
    #: The exception's own text.
    message: str
    #: Traceback in the worker.
    traceback: str | None = None
    #: Error code of DSPy or of the provider.
    code: str | None = None
    #: HTTP status of the provider.
    status: int | None = None
    #: Seconds after which the provider allows another try.
    retry_after_s: float | None = None
    #: Whether another try is promising.
    retryable: bool | None = None


class Success(msgspec.Struct, frozen=True):
    """A worker answers with a result."""

    #: Number of the request.
    id: RequestId
    #: Any JSON value.
    result: Any
    #: When it was answered: Unix seconds, or a string.
    timestamp: float | str
    #: Tokens and cost, as DSPy counts them (version 2).
    usage: dict[str, Any] | None = None
    #: Seconds that the command took in the worker (version 2).
    duration_s: float | None = None


class Failure(msgspec.Struct, frozen=True):
    """A worker answers that the request failed, or that it could not read one (then ``id`` is ``None``)."""

    #: Number of the request, or ``None`` where it had no usable one.
    id: RequestId | None
    #: What went wrong, for people.
    error: str
    #: When it was answered: Unix seconds, or a string.
    timestamp: float | str
    #: The same for programs (version 2).
    error_info: ErrorInfo | None = None


class Event(msgspec.Struct, frozen=True):
    """A worker tells something besides answers (version 2): ``log``, ``chunk`` or ``progress``."""

    #: Number of the request that it belongs to, or ``None``.
    id: RequestId | None
    #: Kind of the event.
    event: str
    #: What the kind defines.
    data: dict[str, Any]


Reply = Success | Failure
FromWorker = Success | Failure | Event

_request_decoder: Final = msgspec.json.Decoder(Request)


class _IdOnly(msgspec.Struct):
    id: RequestId


_id_decoder: Final = msgspec.json.Decoder(_IdOnly)


def encode_request(request: Request) -> bytes:
    """Encode a request. Optional fields that are ``None`` do not appear.

    Raises:
        LocalProtocolError: A value cannot be carried by JSON; the text names its place.
    """
    fields: dict[str, Any] = {
        "id": request.id,
        "command": request.command,
        "args": request.args,
        "timestamp": request.timestamp,
    }
    if request.traceparent is not None:
        fields["traceparent"] = request.traceparent
    if request.timeout_s is not None:
        fields["timeout_s"] = request.timeout_s
    return encode_json(fields)


def encode_success(success: Success) -> bytes:
    """Encode a success. Optional fields that are ``None`` do not appear.

    Raises:
        LocalProtocolError: A value cannot be carried by JSON; the text names its place.
    """
    return encode_result(success.id, success.result, success.timestamp, success.usage, success.duration_s)


def encode_result(
    request_id: int,
    result: Any,
    timestamp: float | str,
    usage: dict[str, Any] | None,
    duration_s: float | None,
) -> bytes:
    """Do as ``encode_success``, given the fields of a ``Success`` in its order."""
    fields = {"id": request_id, "success": True, "result": result, "timestamp": timestamp}
    if usage is not None:
        fields["usage"] = usage
    if duration_s is not None:
        fields["duration_s"] = duration_s
    return encode_json(fields)


def encode_failure(failure: Failure) -> bytes:
    r"""Encode a failure. Optional fields that are ``None`` do not appear.

    Its texts always arrive: a lone surrogate, as in the name of a file that is not UTF-8, is written out as
    ``\udc80``. A failure that cannot be sent would hide what failed.

    Raises:
        LocalProtocolError: ``timestamp`` or ``error_info.retry_after_s`` is NaN or infinite.
    """
    fields: dict[str, Any] = {
        "id": failure.id,
        "success": False,
        "error": _writable(failure.error),
        "timestamp": failure.timestamp,
    }
    if failure.error_info is not None:
        info: dict[str, Any] = msgspec.to_builtins(failure.error_info)
        fields["error_info"] = {name: _writable(value) for name, value in info.items()}
    return encode_json(fields)


def encode_event(event: Event) -> bytes:
    """Encode an event.

    Raises:
        LocalProtocolError: A value cannot be carried by JSON; the text names its place.
    """
    return encode_json({"id": event.id, "event": event.event, "data": event.data})


def decode_request(payload: bytes) -> Request:
    """Read a request. Unknown fields are ignored.

    Raises:
        RemoteProtocolError: ``payload`` is no request. ``request_id`` is its id if there is a usable one.
            The payload is not quoted: it may hold a key, and the text goes back to the client.
    """
    try:
        return _request_decoder.decode(payload)
    except MALFORMED as error:
        text = f"the client sent {len(payload)} bytes that are no request: {_reason(payload, error)}"
        raise RemoteProtocolError(text, request_id=_usable_id(payload)) from error


def decode_from_worker(payload: bytes, *, peer: str = "worker") -> FromWorker:
    """Read an answer or an event. Unknown fields are ignored.

    Args:
        payload: The payload of one frame.
        peer: Who sent it, for error messages.

    Raises:
        RemoteProtocolError: ``payload`` is no message that a worker may send.
    """
    try:
        fields = decode_json(payload)
        return msgspec.convert(fields, _kind_of(fields))
    except MALFORMED as error:
        excerpt = payload[:EXCERPT_BYTES]
        reason = f"{_reason(payload, error)}{_neighbourhood(payload, error)}"
        text = f"{peer} sent {len(payload)} bytes that are no message: {reason}; first bytes {excerpt!r}"
        raise RemoteProtocolError(text, data=excerpt) from error


def _kind_of(fields: Any) -> type[Success] | type[Failure] | type[Event]:
    if not isinstance(fields, dict):
        raise msgspec.ValidationError("Expected an object")
    success = fields.get("success")
    if success is True:
        return Success
    if success is False:
        return Failure
    if "success" not in fields and "event" in fields:
        return Event
    raise msgspec.ValidationError("Object is neither an answer (`success`: true or false) nor an event")


def _usable_id(payload: bytes) -> int | None:
    try:
        return _id_decoder.decode(payload).id
    except RecursionError:
        leading = _LEADING_ID.match(payload)
        return int(leading[1]) if leading else None
    except MALFORMED:
        return None


def _reason(payload: bytes, error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if payload.startswith(_BYTE_ORDER_MARK):
        return "starts with a byte order mark, which the protocol forbids"
    return shorten(str(error), MAX_REASON_CHARS)


def _neighbourhood(payload: bytes, error: BaseException) -> str:
    """Quote the bytes around the place that the codec names, which in a long message is what one looks for."""
    named = _AT_BYTE.search(str(error))
    if named is None or int(named[1]) < EXCERPT_BYTES // 2:
        return ""
    position = int(named[1])
    return f", near {payload[position - 16 : position + 16]!r}"


def _writable(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    return value
