"""Frames and messages as both ends of the protocol may send them, and streams in any split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from dspex_pool.protocol.framing import encode_frame
from dspex_pool.protocol.messages import (
    ErrorInfo,
    Event,
    Failure,
    Reply,
    Request,
    Success,
    encode_event,
    encode_failure,
    encode_request,
    encode_success,
)
from dspex_testkit.strategies.values import json_objects, json_values, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "cuts",
    "encoded",
    "error_infos",
    "events",
    "failures",
    "frames",
    "payloads",
    "pieces",
    "replies",
    "requests",
    "streams",
    "successes",
]

#: Ids of requests: small ones, so that they meet again, and the edges of what other languages count with.
_IDS = st.integers(0, 9) | st.sampled_from([2**31, 2**53, 2**63 - 1]) | st.integers(0)
_TIMES = st.floats(0, 2e9) | st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000001+02:00", ""])
_DURATIONS = st.floats(0, 1e6)
#: Types that the protocol gives a meaning, and others.
_ERROR_TYPES = (
    st.sampled_from(
        [
            "InvalidArgument",
            "InvalidRequest",
            "UnknownCommand",
            "ProgramNotFound",
            "ProgramExists",
            "Cancelled",
            "ValueError",
        ]
    )
    | texts()
)


def payloads(*, max_size: int = 60) -> st.SearchStrategy[bytes]:
    """Draw payloads of frames: any bytes, the empty payload included. Framing does not look into them."""
    return st.binary(max_size=max_size)


def frames(payload: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[bytes]:
    """Draw whole frames, header included, by default of any payload."""
    return (payload if payload is not None else payloads()).map(encode_frame)


def streams(*, max_frames: int = 6) -> st.SearchStrategy[tuple[list[bytes], bytes]]:
    """Draw some payloads together with the stream that they make."""
    drawn = st.lists(payloads(), max_size=max_frames)
    return drawn.map(lambda each: (each, b"".join(map(encode_frame, each))))


def cuts(*, max_length: int = 300) -> st.SearchStrategy[list[int]]:
    """Draw lengths, in bytes, of the ``pieces`` in which a stream arrives; 0 is a read that brings nothing."""
    return st.lists(st.integers(0, max_length), max_size=8)


def pieces(stream: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    """Yield ``stream`` in pieces of ``lengths`` bytes, then the rest."""
    for length in lengths:
        yield stream[:length]
        stream = stream[length:]
    yield stream


def requests() -> st.SearchStrategy[Request]:
    """Draw requests of both versions of the protocol."""
    return st.builds(
        Request,
        id=_IDS,
        command=st.sampled_from(["ping", "execute_program", "shutdown"]) | texts(),
        args=json_objects(),
        timestamp=st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000001+02:00", ""]),
        traceparent=st.none() | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        timeout_s=st.none() | _DURATIONS,
    )


def successes() -> st.SearchStrategy[Success]:
    """Draw successes, with any result."""
    return st.builds(
        Success,
        id=_IDS,
        result=json_values(),
        timestamp=_TIMES,
        usage=st.none() | json_objects(),
        duration_s=st.none() | _DURATIONS,
    )


def error_infos() -> st.SearchStrategy[ErrorInfo]:
    """Draw what a failure tells to programs, from the least to everything."""
    return st.builds(
        ErrorInfo,
        type=_ERROR_TYPES,
        message=texts(),
        traceback=st.none() | st.just('Traceback (most recent call last):\n  File "program.py", line 1'),
        code=st.none() | st.sampled_from(["rate_limited", "timeout", ""]),
        status=st.none() | st.sampled_from([400, 429, 500, 503]),
        retry_after_s=st.none() | st.floats(0, 3600),
        retryable=st.none() | st.booleans(),
    )


def failures() -> st.SearchStrategy[Failure]:
    """Draw failures, also of requests that could not be read, which have no id."""
    return st.builds(
        Failure,
        id=st.none() | _IDS,
        error=texts(),
        timestamp=_TIMES,
        error_info=st.none() | error_infos(),
    )


def replies() -> st.SearchStrategy[Reply]:
    """Draw answers: successes and failures."""
    return successes() | failures()


def events() -> st.SearchStrategy[Event]:
    """Draw events, of a request or of none."""
    kinds = st.sampled_from(["log", "chunk", "progress"])
    return st.builds(Event, id=st.none() | _IDS, event=kinds | texts(), data=json_objects())


def encoded(message: Request | Success | Failure | Event) -> bytes:
    """Return the payload of a message of any kind."""
    payload: bytes = _ENCODERS[type(message)](message)
    return payload


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    Request: encode_request,
    Success: encode_success,
    Failure: encode_failure,
    Event: encode_event,
}
