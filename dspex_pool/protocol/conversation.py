"""Who may say what, and when: ids, answers and protocol versions on both ends of one port.

Each end has a record of its own. The client's knows which ids are unanswered, and which of them nobody
waits for any more. The worker's knows which ids it still owes an answer, and what its client understands.
Neither is safe for use by two threads at once.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dspex_pool.errors import LocalFrameTooLargeError, LocalProtocolError, RemoteProtocolError
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.protocol.messages import (
    EXCERPT_BYTES,
    MAX_REASON_CHARS,
    ErrorInfo,
    Event,
    Failure,
    Reply,
    Request,
    Success,
    decode_from_worker,
    decode_request,
    encode_event,
    encode_failure,
    encode_request,
    encode_result,
)
from dspex_pool.protocol.strict_json import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "HANDSHAKE_COMMAND",
    "HANDSHAKE_ID",
    "PROTOCOL_VERSION",
    "ClientConversation",
    "WorkerConversation",
]

#: The newest version of the protocol that this package speaks.
PROTOCOL_VERSION: Final = 2
#: Id of the first request.
HANDSHAKE_ID: Final = 0
#: Command of the first request.
HANDSHAKE_COMMAND: Final = "ping"


#: A second of Unix time, and how a time stamp of it begins.
_last_second: tuple[int | None, str] = (None, "")


def _utc_now() -> str:
    global _last_second
    # Writing out a date takes twice as long as encoding a short request, so a second's is kept. One name for both
    # parts, because threads may come between.
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    known, begin = _last_second
    if second != known:
        begin = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        _last_second = (second, begin)
    return f"{begin}.{nanoseconds // 1000:06}+00:00"


def _offered_version(fields: object) -> int:
    """Return the version that a handshake's args or result name, as far as we speak it; 1 if none."""
    offered = fields.get("protocol") if isinstance(fields, dict) else None
    if isinstance(offered, bool) or not isinstance(offered, int):
        return 1
    return max(1, min(offered, PROTOCOL_VERSION))


def _asked_events(args: Mapping[str, Any]) -> frozenset[str]:
    asked = args.get("events")
    if _offered_version(args) < 2 or not isinstance(asked, list | tuple):
        return frozenset()
    return frozenset(kind for kind in asked if isinstance(kind, str))


class ClientConversation:
    """The client's end of the conversation with one worker incarnation.

    After a ``RemoteProtocolError`` the conversation is broken: nothing that the worker says can be
    trusted any more, so every later call of ``receive`` and ``request`` is refused.

    Args:
        peer: Who is at the other end, for error messages, such as ``worker w-3``.
        now: Gives the time stamp of a request, ISO 8601.
    """

    __slots__ = (
        "_broken",
        "_events",
        "_next_id",
        "_now",
        "_offered",
        "_peer",
        "_version",
        "due",
    )

    def __init__(self, *, peer: str, now: Callable[[], str] = _utc_now) -> None:
        self._peer = peer
        self._now = now
        self._next_id = HANDSHAKE_ID
        #: Ids asked and not answered, and of each whether somebody waits for its answer. Not to be changed.
        self.due: dict[int, bool] = {}
        self._broken: str | None = None
        self._offered = 1
        self._version = 1
        self._events: frozenset[str] = frozenset()

    @property
    def version(self) -> int:
        """The version that both ends speak; 1 until the handshake is answered."""
        return self._version

    @property
    def broken(self) -> bool:
        """Whether the worker broke the protocol."""
        return self._broken is not None

    @property
    def outstanding(self) -> frozenset[int]:
        """Ids asked and not answered, abandoned ones included."""
        return frozenset(self.due)

    @property
    def awaiting_abandoned(self) -> frozenset[int]:
        """Ids whose late answer is still to come and will be dropped."""
        return frozenset(number for number, is_awaited in self.due.items() if not is_awaited)

    @property
    def is_owed(self) -> bool:
        """Whether a late answer is still to come and will be dropped."""
        return False in self.due.values()

    @property
    def is_clean(self) -> bool:
        """Whether the worker owes nothing and the protocol was kept: it may serve somebody else."""
        return not self.due and self._broken is None

    def request(
        self,
        command: str,
        args: dict[str, Any],
        *,
        timeout_s: float | None = None,
        traceparent: str | None = None,
    ) -> tuple[int, bytes]:
        """Ask for a command. The first request is the handshake and has id 0; ids strictly increase.

        Args:
            command: Name of the command.
            args: Its arguments. Those of the handshake say which version and events this end wants.
            timeout_s: Seconds that the caller will wait. Sent to workers of version 2 only.
            traceparent: W3C trace context. Sent to workers of version 2 only.

        Returns:
            The request's id, and the payload to send.

        Raises:
            LocalProtocolError: The args cannot be carried by JSON, or the conversation is broken. No id is
                used up.
        """
        if self._broken is not None:
            raise LocalProtocolError(f"{self._peer} cannot be asked any more: {self._broken}")
        if self._version == 1:
            timeout_s = traceparent = None
        request_id = self._next_id
        payload = encode_request(Request(request_id, command, args, self._now(), traceparent, timeout_s))
        if request_id == HANDSHAKE_ID:
            self._offered = _offered_version(args)
            self._events = _asked_events(args)
        self._next_id = request_id + 1
        self.due[request_id] = True
        return request_id, payload

    def retract(self, request_id: int) -> None:
        """Forget a request of which not a byte was written: no answer can come. Its id is not used again.

        Raises:
            LocalProtocolError: No answer to ``request_id`` is awaited.
        """
        self._require_awaited(request_id)
        del self.due[request_id]

    def abandon(self, request_id: int) -> None:
        """Note that the caller left. The answer will be dropped once, when it comes.

        Raises:
            LocalProtocolError: No answer to ``request_id`` is awaited.
        """
        self._require_awaited(request_id)
        self.due[request_id] = False

    def receive(self, payload: bytes) -> Reply | Event | None:
        """Read what the worker said.

        Returns:
            The answer to an awaited request; or an event, also one of an abandoned request; or ``None`` for
            the late answer to an abandoned request, which is thereby settled.

        Raises:
            RemoteProtocolError: Garbage, an answer to an id that is not outstanding, a failure without an id,
                or an event that was not asked for. The conversation is broken from then on.
        """
        if self._broken is not None:
            raise RemoteProtocolError(f"the conversation with {self._peer} is broken: {self._broken}")
        try:
            message = decode_from_worker(payload, peer=self._peer)
        except RemoteProtocolError as error:
            self._broken = error.message
            raise
        if isinstance(message, Event):
            return self._accept_event(message, payload)
        return self._accept_reply(message, payload)

    def _accept_reply(self, reply: Reply, payload: bytes) -> Reply | None:
        number = reply.id
        is_awaited = None if number is None else self.due.pop(number, None)
        if is_awaited:
            if number == HANDSHAKE_ID and isinstance(reply, Success):
                self._version = min(self._offered, _offered_version(reply.result))
            return reply
        if is_awaited is False:
            return None
        raise self._break(self._fault_of(reply), payload)

    def _fault_of(self, reply: Reply) -> str:
        if reply.id is None:
            return f"could not read a request: {reply.error}"
        if reply.id < self._next_id:
            return f"answered request {reply.id}, which is settled already"
        return f"answered request {reply.id}, which was never asked"

    def _accept_event(self, event: Event, payload: bytes) -> Event:
        if event.event not in self._events:
            raise self._break(f"sent an event {event.event!r}, which was not asked for", payload)
        if event.id is not None and event.id not in self.due:
            raise self._break(f"sent an event of request {event.id}, which is not outstanding", payload)
        return event

    def _require_awaited(self, request_id: int) -> None:
        if not self.due.get(request_id):
            raise LocalProtocolError(f"no answer to request {request_id} is awaited from {self._peer}")

    def _break(self, reason: str, payload: bytes) -> RemoteProtocolError:
        excerpt = payload[:EXCERPT_BYTES]
        self._broken = f"{self._peer} {shorten(reason, MAX_REASON_CHARS)}"
        return RemoteProtocolError(f"{self._broken}; first bytes {excerpt!r}", data=excerpt)


class WorkerConversation:
    """The worker's end of the conversation with its client.

    Args:
        max_frame_bytes: Largest answer allowed, in bytes. Checked here, so that an answer which is too
            long can still be replaced by a failure.
        now: Gives the time stamp of an answer, in Unix seconds.
    """

    __slots__ = ("_events", "_max_frame_bytes", "_negotiated", "_now", "_owed", "_version")

    def __init__(
        self, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES, now: Callable[[], float] = time.time
    ) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._now = now
        self._owed: set[int] = set()
        self._version = 1
        self._events: frozenset[str] = frozenset()
        self._negotiated = False

    @property
    def version(self) -> int:
        """The version that both ends speak; 1 until the client's first ping asked for more."""
        return self._version

    @property
    def outstanding(self) -> frozenset[int]:
        """Ids received and not answered."""
        return frozenset(self._owed)

    def wants_event(self, kind: str) -> bool:
        """Tell whether the client asked for events of this kind."""
        return kind in self._events

    def receive(self, payload: bytes) -> Request | Failure:
        """Read what the client said.

        Returns:
            A request, to be answered once; or the failure to send (by ``encode_failure``) because
            ``payload`` is no valid request. Its ``id`` is ``None`` where the request had no usable one.
        """
        try:
            request = decode_request(payload)
        except RemoteProtocolError as error:
            usable = error.request_id if error.request_id not in self._owed else None
            return Failure(usable, f"Invalid request: {error.message}", self._now())
        if request.id in self._owed:
            # Answering under the id would settle the first request of that id with the wrong answer.
            return Failure(None, f"Invalid request: id {request.id} is still being answered", self._now())
        if request.command == HANDSHAKE_COMMAND and not self._negotiated:
            self._negotiated = True
            self._version, self._events = _offered_version(request.args), _asked_events(request.args)
        self._owed.add(request.id)
        return request

    def succeed(
        self,
        request_id: int,
        result: Any,
        *,
        usage: dict[str, Any] | None = None,
        duration_s: float | None = None,
    ) -> bytes:
        """Answer a request with a result, and return the payload to send.

        Args:
            request_id: Id of the request.
            result: Any JSON value.
            usage: Tokens and cost. Sent to clients of version 2 only.
            duration_s: Seconds that the command took. Sent to clients of version 2 only.

        Raises:
            LocalProtocolError: The request is not outstanding, or ``result`` cannot be carried by JSON. An
                outstanding request stays outstanding, so that it can be failed.
            LocalFrameTooLargeError: The answer does not fit a frame; the same holds.
        """
        if request_id not in self._owed:
            raise _not_owed(request_id)
        if self._version == 1:
            usage = duration_s = None
        payload = encode_result(request_id, result, self._now(), usage, duration_s)
        if len(payload) > self._max_frame_bytes:
            raise _too_large(payload, self._max_frame_bytes)
        self._owed.remove(request_id)
        return payload

    def fail(self, request_id: int | None, error: str, info: ErrorInfo | None = None) -> bytes:
        """Answer a request with a failure, and return the payload to send.

        Args:
            request_id: Id of the request, or ``None`` for a request without a usable one.
            error: What went wrong, for people.
            info: The same for programs. Sent to clients of version 2 only.

        Raises:
            LocalProtocolError: The request is not outstanding, or a number in ``info`` is not finite.
            LocalFrameTooLargeError: The texts do not fit a frame.
        """
        if request_id is not None and request_id not in self._owed:
            raise _not_owed(request_id)
        if self._version == 1:
            info = None
        payload = self._fit(encode_failure(Failure(request_id, error, self._now(), info)))
        if request_id is not None:
            self._owed.remove(request_id)
        return payload

    def event(self, request_id: int | None, event: str, data: dict[str, Any]) -> bytes:
        """Return the payload that tells the client of an event.

        Args:
            request_id: Id of the outstanding request that it belongs to, or ``None``.
            event: Kind of the event: ``log``, ``chunk`` or ``progress``.
            data: What the kind defines.

        Raises:
            LocalProtocolError: The client did not ask for this kind (see ``wants_event``), the request is not
                outstanding, or ``data`` cannot be carried by JSON.
            LocalFrameTooLargeError: The event does not fit a frame.
        """
        if event not in self._events:
            raise LocalProtocolError(f"the client did not ask for events of kind {event!r}")
        if request_id is not None and request_id not in self._owed:
            raise _not_owed(request_id)
        return self._fit(encode_event(Event(request_id, event, data)))

    def _fit(self, payload: bytes) -> bytes:
        if len(payload) > self._max_frame_bytes:
            raise _too_large(payload, self._max_frame_bytes)
        return payload


def _not_owed(request_id: int) -> LocalProtocolError:
    return LocalProtocolError(f"request {request_id} is not outstanding: never received, or answered already")


def _too_large(payload: bytes, limit: int) -> LocalFrameTooLargeError:
    text = f"the answer is {len(payload)} bytes long, but a frame may hold {limit} bytes"
    return LocalFrameTooLargeError(text, size=len(payload), limit=limit)
