"""The protocol on arbitrary splits of the bytes, on garbage, and with both ends joined."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspex_pool.errors import (
    LocalProtocolError,
    PortClosedError,
    RemoteFrameTooLargeError,
    RemoteProtocolError,
)
from dspex_pool.protocol import (
    ClientConversation,
    Event,
    Failure,
    FrameDecoder,
    Reply,
    Request,
    Success,
    WorkerConversation,
    decode_from_worker,
    decode_request,
    encode_event,
    encode_failure,
    encode_frame,
    encode_success,
)
from dspex_testkit import strategies

if TYPE_CHECKING:
    from collections.abc import Callable

# Small on purpose: these run with every save. The deadline is off because the machine may be busy.
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LIMIT = 4096
# One exchange of version 1, as an Elixir client and the original Python bridge write it.
V1_REQUESTS = [
    b'{"args":{"initialization":true,"worker_id":"worker_1"},"command":"ping","id":0,'
    b'"timestamp":"2026-01-02T03:04:05.000001Z"}',
    b'{"args":{"id":"qa","session_id":"s","signature":"question -> answer"},"command":"create_program","id":1,'
    b'"timestamp":"2026-01-02T03:04:06.000001Z"}',
    b'{"args":{"inputs":{"question":"O\xc3\xb9?"},"program_id":"nope","session_id":"s"},"command":'
    b'"execute_program","id":2,"timestamp":"2026-01-02T03:04:07.000001Z"}',
]
V1_ANSWERS = [
    b'{"id": 0, "success": true, "result": {"status": "ok", "mode": "pool-worker", "worker_id": "worker_1"}, '
    b'"timestamp": 1767323045.25}',
    b'{"id": 1, "success": true, "result": {"program_id": "qa", "status": "created"}, "timestamp": 1767323046.25}',
    b'{"id": 2, "success": false, "error": "Program not found: nope (O\\u00f9?)", "timestamp": 1767323047.25}',
]


def deliver(stream: bytes, cuts: list[int], decoder: FrameDecoder) -> list[bytes]:
    """Feed ``stream`` in pieces and take whatever is ready after each."""
    taken: list[bytes] = []
    deliver_into(taken, stream, cuts, decoder)
    return taken


def deliver_into(taken: list[bytes], stream: bytes, cuts: list[int], decoder: FrameDecoder) -> None:
    """Do as ``deliver``, keeping what was taken before an error."""
    for piece in strategies.pieces(stream, cuts):
        decoder.feed(piece)
        while (payload := decoder.next_frame()) is not None:
            taken.append(payload)


def frames_and_end(decoder: FrameDecoder) -> tuple[list[bytes], bool, int]:
    """End the stream, and return what is left of it and how it ended."""
    taken: list[bytes] = []
    decoder.feed_eof()
    try:
        while (payload := decoder.next_frame()) is not None:
            taken.append(payload)
    except PortClosedError as error:
        return taken, error.clean, error.missing
    raise AssertionError("the end was not told")


@quick
@given(drawn=strategies.streams(), cuts=strategies.cuts())
def test_decoder_gives_the_same_frames_for_any_split(
    drawn: tuple[list[bytes], bytes], cuts: list[int]
) -> None:
    """How the bytes arrive makes no difference."""
    payloads, stream = drawn
    decoder = FrameDecoder()
    assert deliver(stream, cuts, decoder) == payloads
    assert decoder.buffered == 0


def test_decoder_gives_the_same_frames_byte_by_byte() -> None:
    """The finest split of all, headers cut at every place."""
    payloads = [b"", b"a", b"x" * 300]
    stream = b"".join(map(encode_frame, payloads))
    assert deliver(stream, [1] * len(stream), FrameDecoder()) == payloads


@quick
@given(drawn=strategies.streams(), cuts=strategies.cuts(), data=st.data())
def test_decoder_gives_the_same_whether_bytes_are_fed_or_read_into_place(
    drawn: tuple[list[bytes], bytes], cuts: list[int], data: st.DataObject
) -> None:
    """Wherever a long frame is begun, and however its rest comes, frames and counts are those of feeding alone."""
    payloads, stream = drawn
    stream = stream[: data.draw(st.integers(0, len(stream)))]
    plain, decoder, taken = FrameDecoder(), FrameDecoder(), []
    for piece in strategies.pieces(stream, cuts):
        plain.feed(piece)
        begun = decoder.long_frame
        if begun is not None and data.draw(st.booleans()):
            count = min(len(begun.room), len(piece))
            begun.room[:count] = piece[:count]
            begun.filled(count)
            piece = piece[count:]
        decoder.feed(piece)
        if data.draw(st.booleans()):
            decoder.begin_long_frame(io.BytesIO)
        assert decoder.buffered == plain.buffered
        if data.draw(st.booleans()):
            while (payload := decoder.next_frame()) is not None:
                assert plain.next_frame() == payload
                taken.append(payload)
    assert frames_and_end(decoder) == frames_and_end(plain)
    assert taken == payloads[: len(taken)]


@quick
@given(drawn=strategies.streams(), cuts=strategies.cuts(), data=st.data())
def test_decoder_gives_the_same_whether_bytes_are_fed_or_taken(
    drawn: tuple[list[bytes], bytes], cuts: list[int], data: st.DataObject
) -> None:
    """A chunk that is a frame may be given at once or from the buffer: frames, counts and end are the same."""
    payloads, stream = drawn
    stream = stream[: data.draw(st.integers(0, len(stream)))]
    pieces = data.draw(st.sampled_from([strategies.pieces(stream, cuts), list(map(encode_frame, payloads))]))
    plain, decoder, taken = FrameDecoder(), FrameDecoder(), []
    for piece in pieces:
        plain.feed(piece)
        if (payload := decoder.take(piece)) is not None:
            assert plain.next_frame() == payload
            taken.append(payload)
        assert decoder.buffered == plain.buffered
        while data.draw(st.booleans()) and (payload := decoder.next_frame()) is not None:
            assert plain.next_frame() == payload
            taken.append(payload)
    assert frames_and_end(decoder) == frames_and_end(plain)
    assert taken == payloads[: len(taken)]


@quick
@given(payload=strategies.payloads(), data=st.data())
def test_truncated_stream_tells_how_many_bytes_miss(payload: bytes, data: st.DataObject) -> None:
    """Wherever a frame is cut, the error counts what was missing."""
    frame = encode_frame(payload)
    held = data.draw(st.integers(0, len(frame) - 1))
    decoder = FrameDecoder()
    decoder.feed(frame[:held])
    decoder.feed_eof()
    with pytest.raises(PortClosedError) as caught:
        decoder.next_frame()
    missing = 0 if held == 0 else 4 - held if held < 4 else len(frame) - held
    assert (caught.value.clean, caught.value.missing) == (held == 0, missing)


@quick
@given(stream=st.binary(max_size=80), cuts=strategies.cuts(), ends=st.booleans())
def test_decoder_gives_frames_or_the_documented_error_for_garbage(
    stream: bytes, cuts: list[int], ends: bool
) -> None:
    """Any bytes at all lead to frames, to ``None``, or to one of two errors, and stay bounded."""
    decoder = FrameDecoder(max_frame_bytes=LIMIT)
    try:
        deliver(stream, cuts, decoder)
        if ends:
            decoder.feed_eof()
            decoder.next_frame()
    except (RemoteFrameTooLargeError, PortClosedError):
        pass
    assert decoder.buffered <= len(stream)


@quick
@given(junk=st.binary(min_size=4, max_size=40).filter(lambda b: b[0] != 0), cuts=strategies.cuts())
def test_oversize_header_is_refused_at_the_same_place_for_any_split(junk: bytes, cuts: list[int]) -> None:
    """What was whole before the print is given; the size in the error is always the same."""
    decoder = FrameDecoder(max_frame_bytes=LIMIT)
    taken: list[bytes] = []
    with pytest.raises(RemoteFrameTooLargeError) as caught:
        deliver_into(taken, encode_frame(b"good") + junk, cuts, decoder)
    assert taken == [b"good"]
    assert caught.value.size == int.from_bytes(junk[:4], "big")


@quick
@given(payload=st.binary(max_size=80))
def test_messages_are_read_or_refused_with_the_documented_error(payload: bytes) -> None:
    """Random bytes give a message or ``RemoteProtocolError``, in both directions."""
    for decode in (decode_request, decode_from_worker):
        try:
            message = decode(payload)
        except RemoteProtocolError:
            continue
        assert isinstance(message, Request | Success | Failure | Event)


@quick
@given(
    payload=st.sampled_from(V1_REQUESTS + V1_ANSWERS),
    position=st.integers(0, 400),
    patch=st.binary(max_size=4)
    | st.sampled_from([b"NaN", b"null", b'"', b"[[", b"}", b"\\ud800", b"\xef\xbb\xbf"]),
    removed=st.integers(0, 6),
)
def test_damaged_messages_are_read_or_refused_with_the_documented_error(
    payload: bytes, position: int, patch: bytes, removed: int
) -> None:
    """Messages that are almost right get furthest into the decoder; nothing else comes out of it."""
    position %= len(payload)
    damaged = payload[:position] + patch + payload[position + removed :]
    worker, client = WorkerConversation(), ClientConversation(peer="worker")
    assert isinstance(worker.receive(damaged), Request | Failure)
    try:
        client.receive(damaged)
    except RemoteProtocolError:
        assert client.broken


@quick
@given(request=strategies.requests())
def test_requests_arrive_as_they_were_sent(request: Request) -> None:
    """Every JSON value survives the way to the worker."""
    assert decode_request(strategies.encoded(request)) == request


@quick
@given(message=strategies.replies() | strategies.events())
def test_results_arrive_as_they_were_sent(message: Success | Failure | Event) -> None:
    """Every JSON value survives the way to the client."""
    assert decode_from_worker(strategies.encoded(message)) == message


@quick
@given(error=st.text(st.characters(), max_size=20))
def test_failures_always_arrive(error: str) -> None:
    """No text of an exception, lone surrogates included, keeps a failure from being sent."""
    message = decode_from_worker(encode_failure(Failure(1, error, 1.5)))
    assert isinstance(message, Failure)
    assert message.error.encode("utf-8", "backslashreplace") == error.encode("utf-8", "backslashreplace")


# --- both ends joined --------------------------------------------------------------------------------


class Pair:
    """Both ends of one conversation, with all bytes going through frames in arbitrary splits."""

    def __init__(self, cuts: list[int], handshake: dict[str, Any] | None = None) -> None:
        self.client = ClientConversation(peer="worker w-1")
        self.worker = WorkerConversation()
        self._cuts = cuts
        self._to_worker = FrameDecoder(peer="client")
        self._to_client = FrameDecoder(peer="worker w-1")
        self.ask("ping", handshake)
        self.give(self.worker.succeed(0, {"protocol": self.worker.version}))

    def ask(self, command: str, args: dict[str, Any] | None = None) -> Request:
        """Send one request and return what the worker made of it."""
        _, payload = self.client.request(command, args or {}, timeout_s=1.0)
        (arrived,) = deliver(encode_frame(payload), self._cuts, self._to_worker)
        request = self.worker.receive(arrived)
        assert isinstance(request, Request)
        return request

    def give(self, *payloads: bytes) -> list[Reply | Event | None]:
        """Send the worker's payloads in one stream and return what the client made of them."""
        stream = b"".join(map(encode_frame, payloads))
        return [self.client.receive(payload) for payload in deliver(stream, self._cuts, self._to_client)]


@quick
@given(
    cuts=strategies.cuts(),
    handshake=st.sampled_from([{}, {"protocol": 2, "events": ["log"]}]),
    results=st.lists(strategies.json_values(), max_size=4),
)
def test_joined_ends_agree_on_version_ids_and_results(
    cuts: list[int], handshake: dict[str, Any], results: list[Any]
) -> None:
    """Each request gets its own answer, both ends see the same version, and nothing is left over."""
    pair = Pair(cuts, handshake)
    assert pair.client.version == pair.worker.version == handshake.get("protocol", 1)
    requests = [pair.ask("run", {"n": n}) for n in range(len(results))]
    assert {request.timeout_s for request in requests} <= {1.0 if handshake else None}
    answers = pair.give(*[pair.worker.succeed(r.id, v) for r, v in zip(requests, results, strict=True)])
    assert [(a.id, a.result) for a in answers if isinstance(a, Success)] == [
        (request.id, result) for request, result in zip(requests, results, strict=True)
    ]
    assert pair.client.is_clean
    assert pair.worker.outstanding == frozenset()


@quick
@given(
    cuts=strategies.cuts(),
    steps=st.lists(st.sampled_from(["ask", "answer", "fail", "abandon", "event"]), max_size=20),
)
def test_joined_ends_keep_the_same_books_through_any_calls(cuts: list[int], steps: list[str]) -> None:
    """After every step what one end owes is what the other awaits; late answers are dropped once."""
    pair = Pair(cuts, {"protocol": 2, "events": ["log"]})
    for step in steps:
        owed = sorted(pair.worker.outstanding)
        awaited = sorted(pair.client.outstanding - pair.client.awaiting_abandoned)
        if step == "ask":
            pair.ask("run")
        elif step == "event":
            request_id = owed[0] if owed else None
            assert pair.give(pair.worker.event(request_id, "log", {})) == [Event(request_id, "log", {})]
        elif step == "abandon" and awaited:
            pair.client.abandon(awaited[-1])
        elif step in ("answer", "fail") and owed:
            late = owed[0] in pair.client.awaiting_abandoned
            answer = pair.worker.succeed(owed[0], 1) if step == "answer" else pair.worker.fail(owed[0], "no")
            (reply,) = pair.give(answer)
            assert (reply is None) == late
        assert pair.client.outstanding == pair.worker.outstanding
        assert pair.client.is_clean == (not pair.worker.outstanding)


@quick
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["ask", "retract", "abandon", "succeed", "fail", "tell"]), st.integers(0, 3)
        ),
        max_size=16,
    )
)
def test_client_settles_each_request_once_whatever_the_worker_says(steps: list[tuple[str, int]]) -> None:
    """An answer is given, dropped or refused by what became of its request, and never twice."""
    client = ClientConversation(peer="worker w-1")
    awaited: set[int] = set()
    abandoned: set[int] = set()
    for step, number in steps:
        if step == "ask":
            awaited.add(client.request("run", {"protocol": 2, "events": ["log"]})[0])
        elif step in ("retract", "abandon"):
            leave = client.retract if step == "retract" else client.abandon
            if number in awaited:
                leave(number)
                awaited.remove(number)
                abandoned |= {number} if step == "abandon" else set()
            else:
                with pytest.raises(LocalProtocolError):
                    leave(number)
        elif number not in awaited | abandoned:
            with pytest.raises(RemoteProtocolError):
                client.receive(_SAYINGS[step](number))
            assert client.broken
            return
        else:
            said = client.receive(_SAYINGS[step](number))
            assert (said is None) == (step != "tell" and number in abandoned)
            if step != "tell":
                awaited.discard(number)
                abandoned.discard(number)
        assert (set(client.outstanding), set(client.awaiting_abandoned)) == (awaited | abandoned, abandoned)
        assert (client.is_owed, client.is_clean) == (bool(abandoned), not awaited | abandoned)


_SAYINGS: dict[str, Callable[[int], bytes]] = {
    "succeed": lambda number: encode_success(Success(number, {}, 1.5)),
    "fail": lambda number: encode_failure(Failure(number, "no", 1.5)),
    "tell": lambda number: encode_event(Event(number, "log", {})),
}


@quick
@given(cuts=strategies.cuts())
def test_worker_serves_a_real_version_1_client(cuts: list[int]) -> None:
    """An Elixir client's bytes are read in any split and answered in its version, field by field."""
    worker = WorkerConversation(now=lambda: 1767323045.25)
    stream = b"".join(map(encode_frame, V1_REQUESTS))
    requests = [worker.receive(payload) for payload in deliver(stream, cuts, FrameDecoder())]
    assert [r.command for r in requests if isinstance(r, Request)] == [
        "ping",
        "create_program",
        "execute_program",
    ]
    assert encode_frame(worker.succeed(0, {"status": "ok"}, usage={}, duration_s=1.0)) == (
        b'\x00\x00\x00\x4a{"id":0,"success":true,"result":{"status":"ok"},"timestamp":1767323045.25}'
    )


@quick
@given(cuts=strategies.cuts())
def test_client_drives_a_real_version_1_bridge(cuts: list[int]) -> None:
    """The original bridge's bytes, with spaces and escapes, are matched to our requests in any split."""
    client = ClientConversation(peer="bridge")
    client.request(
        "ping", {"initialization": True, "worker_id": "worker_1", "protocol": 2, "events": ["log"]}
    )
    client.request("create_program", {"id": "qa"}, timeout_s=1.0)
    client.request("execute_program", {"program_id": "nope"})
    stream = b"".join(map(encode_frame, V1_ANSWERS))
    replies = [client.receive(payload) for payload in deliver(stream, cuts, FrameDecoder())]
    assert replies[0] is not None
    assert [type(reply) for reply in replies] == [Success, Success, Failure]
    assert replies[2] == Failure(2, "Program not found: nope (Où?)", 1767323047.25)
    assert client.version == 1
    assert client.is_clean
