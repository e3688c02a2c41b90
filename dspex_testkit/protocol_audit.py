"""Judge what a client sends against the protocol, without the product's own reader.

A worker is lenient where the protocol lets it be; a test server should not be. The audit reads the same bytes with
the standard library alone and notes every violation by the name of its rule.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["ProtocolAudit", "Violation"]

_HEADER_BYTES = 4
_EXCERPT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that the client should not have sent."""

    #: Name of the rule, such as ``not-json``.
    rule: str
    #: What was wrong.
    detail: str
    #: The first bytes of the frame.
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail} (first bytes {self.data!r})"


class _BrokenRuleError(Exception):
    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


class ProtocolAudit:
    """The record of one client's bytes.

    Args:
        max_frame_bytes: Largest payload allowed, in bytes.
        version: The newest protocol version that the worker speaks.
    """

    def __init__(self, *, max_frame_bytes: int, version: int = 2) -> None:
        #: Everything that was wrong so far.
        self.violations: list[Violation] = []
        #: Frames read so far.
        self.frames = 0
        self._max_frame_bytes = max_frame_bytes
        self._worker_version = version
        self._version = 1
        self._buffer = bytearray()
        self._is_lost = False
        self._is_leaving = False

    def feed(self, data: bytes, *, outstanding: frozenset[int] = frozenset()) -> None:
        """Read bytes of the client.

        Args:
            data: The bytes, in any split.
            outstanding: Ids that the worker had not answered when they came.
        """
        self._buffer += data
        unanswered = set(outstanding)
        while not self._is_lost and len(self._buffer) >= _HEADER_BYTES:
            size = int.from_bytes(self._buffer[:_HEADER_BYTES], "big")
            if size > self._max_frame_bytes:
                self._is_lost = True  # where the next frame begins cannot be known
                self._note(
                    "frame-too-large", f"{size} bytes, allowed are {self._max_frame_bytes}", self._buffer
                )
            elif len(self._buffer) < _HEADER_BYTES + size:
                return
            else:
                payload = bytes(self._buffer[_HEADER_BYTES : _HEADER_BYTES + size])
                del self._buffer[: _HEADER_BYTES + size]
                self._judge(payload, unanswered)

    def feed_eof(self) -> None:
        """Note the end of the client's stream."""
        if self._buffer and not self._is_lost:
            self._note(
                "torn-frame", f"the stream ends after {len(self._buffer)} bytes of a frame", self._buffer
            )

    def _judge(self, payload: bytes, unanswered: set[int]) -> None:
        self.frames += 1
        try:
            request = _read_object(payload)
            request_id = _request_id(request)
            self._check_order(request, request_id, unanswered)
            _check_types(request)
            self._check_version(request)
        except _BrokenRuleError as error:
            self._note(error.rule, str(error), payload)

    def _check_order(self, request: dict[str, Any], request_id: int, unanswered: set[int]) -> None:
        if self.frames == 1:
            self._check_handshake(request, request_id)
        if request_id in unanswered:
            raise _BrokenRuleError("id-in-use", f"id {request_id} is not answered yet")
        unanswered.add(request_id)
        if self._is_leaving:
            raise _BrokenRuleError("after-shutdown", "a request follows shutdown")
        self._is_leaving = request.get("command") == "shutdown"

    def _check_handshake(self, request: dict[str, Any], request_id: int) -> None:
        args = request.get("args")
        if request_id != 0 or request.get("command") != "ping" or not isinstance(args, dict):
            raise _BrokenRuleError("no-handshake", "the first request is not the ping with id 0")
        if args.get("initialization") is not True or not isinstance(args.get("worker_id"), str):
            raise _BrokenRuleError(
                "no-handshake", "the first ping lacks initialization: true or the worker_id"
            )
        offered = args.get("protocol", 1)
        self._version = min(offered, self._worker_version) if isinstance(offered, int) else 1

    def _check_version(self, request: dict[str, Any]) -> None:
        newer = {"traceparent": str, "timeout_s": int | float}
        for name, kind in newer.items():
            if name in request and self._version < 2:
                raise _BrokenRuleError("too-new", f"{name} was sent to a version 1 worker")
            if name in request and not isinstance(request[name], kind):
                raise _BrokenRuleError("wrong-type", f"{name} is {request[name]!r}")

    def _note(self, rule: str, detail: str, data: bytes | bytearray) -> None:
        self.violations.append(Violation(rule, detail, bytes(data[:_EXCERPT_BYTES])))


def _read_object(payload: bytes) -> dict[str, Any]:
    if payload.startswith(b"\xef\xbb\xbf"):
        raise _BrokenRuleError("byte-order-mark", "the payload begins with a byte order mark")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _BrokenRuleError("not-utf-8", str(error)) from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _BrokenRuleError("not-json", str(error)) from error
    if not isinstance(value, dict):
        raise _BrokenRuleError("not-an-object", f"the payload is a JSON {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> None:
    raise _BrokenRuleError("not-json", f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise _BrokenRuleError("duplicate-key", f"an object names a key twice: {names}")
    return dict(pairs)


def _request_id(request: dict[str, Any]) -> int:
    request_id = request.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, int) or request_id < 0:
        raise _BrokenRuleError("bad-id", f"id is {request_id!r}, not an integer from 0 on")
    return request_id


def _check_types(request: dict[str, Any]) -> None:
    for name, kind in (("command", str), ("args", dict), ("timestamp", str)):
        if not isinstance(request.get(name), kind):
            raise _BrokenRuleError("wrong-type", f"{name} is {request.get(name)!r}")
    try:
        datetime.fromisoformat(request["timestamp"])
    except ValueError as error:
        raise _BrokenRuleError("bad-timestamp", str(error)) from error
