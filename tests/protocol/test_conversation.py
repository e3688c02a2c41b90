"""Conversations: who may say what, ids, late and double answers, and what each version may see."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import pytest

from dspex_pool.errors import LocalFrameTooLargeError, LocalProtocolError, RemoteProtocolError
from dspex_pool.protocol import (
    ClientConversation,
    ErrorInfo,
    Event,
    Failure,
    Request,
    Success,
    WorkerConversation,
    encode_event,
    encode_failure,
    encode_success,
)
from tests.cases import case

WHEN = "2026-01-02T03:04:05+00:00"
HANDSHAKE_1: dict[str, Any] = {"initialization": True, "worker_id": "w-1"}
HANDSHAKE_2: dict[str, Any] = {**HANDSHAKE_1, "protocol": 2, "events": ["log", "chunk"]}


def new_client() -> ClientConversation:
    return ClientConversation(peer="worker w-1", now=lambda: WHEN)


def new_worker(**options: Any) -> WorkerConversation:
    return WorkerConversation(now=lambda: 12.5, **options)


def client_after(args: dict[str, Any], result: dict[str, Any]) -> ClientConversation:
    """Return a client whose handshake with ``args`` was answered with ``result``."""
    client = new_client()
    client.request("ping", args)
    client.receive(encode_success(Success(0, result, 1.0)))
    return client


def worker_after(args: dict[str, Any]) -> WorkerConversation:
    """Return a worker that has answered a ping with ``args`` and owes an answer to request 1."""
    worker = new_worker()
    worker.receive(request_bytes(0, "ping", args))
    worker.succeed(0, {"status": "ok"})
    worker.receive(request_bytes(1))
    return worker


def request_bytes(request_id: int, command: str = "run", args: dict[str, Any] | None = None) -> bytes:
    return json.dumps({"id": request_id, "command": command, "args": args or {}, "timestamp": WHEN}).encode()


def success_bytes(request_id: int) -> bytes:
    return encode_success(Success(request_id, "done", 1.0))


def breach(client: ClientConversation, payload: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        client.receive(payload)
    assert client.broken
    assert not client.is_clean
    return str(caught.value)


# --- the client asks ---------------------------------------------------------------------------------


def test_client_asks_the_handshake_as_request_0() -> None:
    """The golden handshake of version 1: these bytes and no others."""
    assert new_client().request("ping", HANDSHAKE_1) == (
        0,
        b'{"id":0,"command":"ping","args":{"initialization":true,"worker_id":"w-1"},'
        b'"timestamp":"2026-01-02T03:04:05+00:00"}',
    )


def test_client_counts_its_ids_upwards() -> None:
    """No id is used twice, whatever became of the earlier ones."""
    client = new_client()
    ids = [client.request("ping", {})[0] for _ in range(3)]
    client.retract(2)
    client.receive(success_bytes(1))
    assert [*ids, client.request("ping", {})[0]] == [0, 1, 2, 3]


def test_client_stamps_requests_with_the_time_in_utc_by_default() -> None:
    """The time stamp is ISO 8601 with its zone."""
    payload = ClientConversation(peer="w").request("ping", {})[1]
    stamp = datetime.datetime.fromisoformat(json.loads(payload)["timestamp"])
    assert stamp.utcoffset() == datetime.timedelta(0)


@pytest.mark.parametrize("after", [0.0, 0.25, 0.999999, 1.0, 61.5])
def test_time_stamps_go_on_within_a_second_and_beyond_it(
    after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of one second is not said of another."""
    begin = datetime.datetime(2026, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    conversation = ClientConversation(peer="worker w-1")
    for seconds in (0.0, after):
        now = begin.timestamp() + seconds
        monkeypatch.setattr("time.time_ns", lambda now=now: round(now * 1e9))
        stamp = json.loads(conversation.request("run", {})[1])["timestamp"]
        assert datetime.datetime.fromisoformat(stamp) - begin == pytest.approx(
            datetime.timedelta(seconds=seconds), abs=datetime.timedelta(microseconds=2)
        )


@pytest.mark.parametrize(
    ("now_ns", "stamp"),
    [
        (0, "1970-01-01T00:00:00.000000+00:00"),
        (500_000_000, "1970-01-01T00:00:00.500000+00:00"),
        (-500_000_000, "1969-12-31T23:59:59.500000+00:00"),
    ],
)
def test_time_stamp_is_whole_on_a_machine_whose_clock_was_never_set(
    now_ns: int, stamp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first second of 1970, where frozen clocks stand, the stamp had no date, or no request could be made."""
    monkeypatch.setattr("time.time_ns", lambda: now_ns)
    payload = ClientConversation(peer="worker w-1").request("run", {})[1]
    assert json.loads(payload)["timestamp"] == stamp


def test_client_uses_up_no_id_for_args_that_cannot_be_sent() -> None:
    """A caller's NaN leaves the conversation as it was."""
    client = new_client()
    with pytest.raises(LocalProtocolError, match=r"args\.x is NaN"):
        client.request("ping", {"x": math.nan})
    assert client.is_clean
    assert client.request("ping", {})[0] == 0


def test_client_is_not_clean_while_an_answer_is_outstanding() -> None:
    """What the worker owes is visible."""
    client = new_client()
    assert client.is_clean
    client.request("ping", {})
    assert (client.is_clean, client.outstanding, client.awaiting_abandoned) == (
        False,
        frozenset({0}),
        frozenset(),
    )


def test_client_is_clean_again_after_the_answer() -> None:
    """An answered request leaves nothing behind."""
    client = new_client()
    client.request("ping", {})
    assert client.receive(success_bytes(0)) == Success(0, "done", 1.0)
    assert (client.is_clean, client.outstanding) == (True, frozenset())


def test_client_is_clean_after_a_failure() -> None:
    """A failure is an answer like any other; the worker is well."""
    client = new_client()
    client.request("ping", {})
    failure = Failure(0, "Unknown command: X", 1.0)
    assert client.receive(encode_failure(failure)) == failure
    assert client.is_clean


def test_client_matches_answers_in_any_order() -> None:
    """The id decides, not the order."""
    client = new_client()
    for _ in range(3):
        client.request("ping", {})
    replies = [client.receive(success_bytes(i)) for i in (2, 0, 1)]
    assert [reply.id for reply in replies if reply] == [2, 0, 1]
    assert client.is_clean


# --- the client leaves -------------------------------------------------------------------------------


def test_client_drops_the_late_answer_to_an_abandoned_request_once() -> None:
    """Late is ``None`` and settles the id; a second time is a breach."""
    client = new_client()
    client.request("ping", {})
    client.abandon(0)
    assert (client.is_clean, client.outstanding, client.awaiting_abandoned) == (
        False,
        frozenset({0}),
        frozenset({0}),
    )
    assert client.receive(success_bytes(0)) is None
    assert client.is_clean
    assert "request 0, which is settled already" in breach(client, success_bytes(0))


def test_client_drops_a_late_failure_as_well() -> None:
    """``Cancelled`` is the usual late answer."""
    client = new_client()
    client.request("ping", {})
    client.abandon(0)
    assert client.receive(encode_failure(Failure(0, "Cancelled", 1.0))) is None
    assert client.is_clean


def test_client_forgets_a_retracted_request() -> None:
    """Nothing was written, so no answer is owed and none is accepted."""
    client = new_client()
    client.request("ping", {})
    client.retract(0)
    assert client.is_clean
    assert "request 0" in breach(client, success_bytes(0))


@pytest.mark.parametrize("leave", ["abandon", "retract"])
def test_client_cannot_leave_a_request_that_is_not_awaited(leave: str) -> None:
    """Answered, left and unknown requests are refused alike; nothing changes."""
    client = new_client()
    for _ in range(2):
        client.request("ping", {})
    client.receive(success_bytes(0))
    client.abandon(1)
    for request_id in (0, 1, 99):
        with pytest.raises(LocalProtocolError, match=f"no answer to request {request_id} is awaited"):
            getattr(client, leave)(request_id)
    assert client.awaiting_abandoned == {1}


# --- the worker breaks the protocol ------------------------------------------------------------------


def test_client_breaks_on_a_second_answer() -> None:
    """One request, one answer."""
    client = new_client()
    client.request("ping", {})
    client.receive(success_bytes(0))
    assert "worker w-1 answered request 0, which is settled already" in breach(client, success_bytes(0))


def test_client_breaks_on_an_answer_to_an_unknown_id() -> None:
    """A worker that invents ids cannot be trusted with the next one."""
    for number in (0, 7):
        refused = breach(new_client(), success_bytes(number))
        assert f"worker w-1 answered request {number}, which was never asked" in refused


def test_client_breaks_on_a_failure_without_id_and_tells_its_text() -> None:
    """The worker could not read what we wrote: nobody knows whose answer is missing."""
    client = new_client()
    client.request("ping", {})
    text = breach(client, encode_failure(Failure(None, "Invalid request: odd", 1.0)))
    assert "worker w-1 could not read a request: Invalid request: odd" in text


def test_client_breaks_on_garbage() -> None:
    """The error is the decoder's."""
    assert "no message" in breach(new_client(), b"Loading model...")


def test_client_breaks_on_an_event_that_was_not_asked_for() -> None:
    """A client of version 1 never sees an event."""
    client = client_after(HANDSHAKE_1, {"status": "ok"})
    assert "an event 'log', which was not asked for" in breach(client, encode_event(Event(None, "log", {})))


def test_client_breaks_on_an_event_of_a_request_that_is_not_outstanding() -> None:
    """Stale events are as wrong as stale answers."""
    client = client_after(HANDSHAKE_2, {"protocol": 2})
    assert "an event of request 0, which is not outstanding" in breach(
        client, encode_event(Event(0, "log", {}))
    )


@pytest.mark.parametrize(
    "payload",
    [
        encode_failure(Failure(None, "x" * 100_000, 1.0)),
        encode_event(Event(None, "x" * 100_000, {})),
        success_bytes(10**4000),
    ],
    ids=["failure", "event", "id"],
)
def test_client_keeps_its_error_short_whatever_the_worker_wrote(payload: bytes) -> None:
    """A megabyte from the worker does not become a megabyte of log."""
    assert len(breach(new_client(), payload)) < 500


def test_broken_client_refuses_everything_and_repeats_the_reason() -> None:
    """Nothing that such a worker says is believed, not even a right answer."""
    client = new_client()
    client.request("ping", {})
    breach(client, success_bytes(7))
    with pytest.raises(RemoteProtocolError, match=r"is broken: worker w-1 answered request 7"):
        client.receive(success_bytes(0))
    with pytest.raises(LocalProtocolError, match=r"cannot be asked any more: worker w-1 answered request 7"):
        client.request("ping", {})
    assert client.outstanding == {0}


# --- versions and events, client ---------------------------------------------------------------------


def test_client_speaks_the_lower_version_of_both_ends() -> None:
    """Anything but a plain offer of 2 by both is version 1."""
    cases: list[tuple[dict[str, Any], Any, int]] = [
        (HANDSHAKE_1, {"status": "ok"}, 1),
        (HANDSHAKE_2, {"status": "ok"}, 1),
        (HANDSHAKE_1, {"protocol": 2}, 1),
        (HANDSHAKE_2, {"protocol": 2}, 2),
        (HANDSHAKE_2, {"protocol": 3}, 2),
        (HANDSHAKE_2, {"protocol": 0}, 1),
        (HANDSHAKE_2, {"protocol": True}, 1),
        (HANDSHAKE_2, {"protocol": "2"}, 1),
        (HANDSHAKE_2, "pong", 1),
    ]
    for args, result, version in cases:
        assert client_after(args, result).version == version, (args, result)


def test_client_sends_no_version_2_field_to_a_version_1_worker() -> None:
    """The time limit and the trace context stay here, before and after the handshake."""
    client = new_client()
    early = client.request("ping", HANDSHAKE_2, timeout_s=1.0, traceparent="00-a-b-01")[1]
    client.receive(encode_success(Success(0, {"status": "ok"}, 1.0)))
    late = client.request("run", {}, timeout_s=1.0, traceparent="00-a-b-01")[1]
    assert [list(json.loads(payload)) for payload in (early, late)] == [
        ["id", "command", "args", "timestamp"]
    ] * 2


def test_client_sends_version_2_fields_to_a_version_2_worker() -> None:
    """After the handshake both fields travel."""
    client = client_after(HANDSHAKE_2, {"protocol": 2})
    fields = json.loads(client.request("run", {}, timeout_s=1.0, traceparent="00-a-b-01")[1])
    assert (fields["timeout_s"], fields["traceparent"]) == (1.0, "00-a-b-01")


def test_client_stays_at_version_1_when_the_handshake_fails() -> None:
    """A failure promises nothing."""
    client = new_client()
    client.request("ping", HANDSHAKE_2)
    client.receive(encode_failure(Failure(0, "no", 1.0)))
    assert client.version == 1


@pytest.mark.parametrize("request_id", [None, 1, 2], ids=["none", "awaited", "abandoned"])
def test_client_hands_on_events_and_settles_nothing_by_them(request_id: int | None) -> None:
    """Events of no request, of an awaited one and of an abandoned one are given as they are."""
    client = client_after(HANDSHAKE_2, {"protocol": 2})
    client.request("run", {})
    client.request("run", {})
    client.abandon(2)
    event = Event(request_id, "chunk", {"text": "a"})
    assert client.receive(encode_event(event)) == event
    assert client.outstanding == {1, 2}


def test_client_accepts_events_before_the_handshake_is_answered() -> None:
    """What a worker logs while it imports is not lost."""
    client = new_client()
    client.request("ping", HANDSHAKE_2)
    assert client.receive(encode_event(Event(0, "log", {}))) == Event(0, "log", {})


# --- the worker answers ------------------------------------------------------------------------------


def test_worker_owes_an_answer_to_each_request() -> None:
    """A request is outstanding until it is answered, by success or failure."""
    worker = new_worker()
    assert worker.receive(request_bytes(4)) == Request(4, "run", {}, WHEN)
    worker.receive(request_bytes(5))
    assert worker.outstanding == {4, 5}
    worker.succeed(4, 1)
    worker.fail(5, "no")
    assert worker.outstanding == frozenset()


def test_worker_answers_with_the_bytes_of_version_1() -> None:
    """The golden answers: these bytes and no others, whatever a version 2 client would have got."""
    worker = worker_after(HANDSHAKE_1)
    worker.receive(request_bytes(2))
    assert worker.succeed(1, {"status": "ok"}, usage={"tokens": 3}, duration_s=0.5) == (
        b'{"id":1,"success":true,"result":{"status":"ok"},"timestamp":12.5}'
    )
    assert worker.fail(2, "Unknown command: X", ErrorInfo("UnknownCommand", "X")) == (
        b'{"id":2,"success":false,"error":"Unknown command: X","timestamp":12.5}'
    )


def test_worker_answers_a_version_2_client_with_all_it_knows() -> None:
    """Usage, duration and error facts travel once the client asked for version 2."""
    worker = worker_after(HANDSHAKE_2)
    worker.receive(request_bytes(2))
    worker.receive(request_bytes(3))
    success = json.loads(worker.succeed(1, None, usage={"tokens": 3}, duration_s=0.5))
    failure = json.loads(worker.fail(2, "no", ErrorInfo("UnknownCommand", "X")))
    assert (success["usage"], success["duration_s"]) == ({"tokens": 3}, 0.5)
    assert failure["error_info"] == {"type": "UnknownCommand", "message": "X"}
    assert {"usage": {}, "duration_s": 0.0}.items() <= json.loads(
        worker.succeed(3, None, usage={}, duration_s=0.0)
    ).items()


def test_worker_stamps_answers_with_unix_seconds_by_default() -> None:
    """The time stamp is a number, as version 1 has it."""
    worker = WorkerConversation()
    worker.receive(request_bytes(1))
    assert json.loads(worker.succeed(1, None))["timestamp"] > 1.7e9


@pytest.mark.parametrize("request_id", [1, 99], ids=["answered", "never received"])
def test_worker_refuses_an_answer_that_nobody_awaits(request_id: int) -> None:
    """A handler cannot answer twice, nor out of the blue."""
    worker = worker_after(HANDSHAKE_2)
    worker.succeed(1, None)
    with pytest.raises(LocalProtocolError, match=f"request {request_id} is not outstanding"):
        worker.succeed(request_id, None)
    with pytest.raises(LocalProtocolError, match=f"request {request_id} is not outstanding"):
        worker.fail(request_id, "no")


def test_worker_can_fail_a_request_whose_result_cannot_be_sent() -> None:
    """A result with a set in it becomes a failure with the same id."""
    worker = worker_after(HANDSHAKE_2)
    with pytest.raises(LocalProtocolError, match=r"result\.tags is of type set"):
        worker.succeed(1, {"tags": {"a"}})
    assert json.loads(worker.fail(1, "the result cannot be sent"))["id"] == 1


def test_worker_can_fail_a_request_whose_result_does_not_fit_a_frame() -> None:
    """Both sizes are known, and the request is still open for a failure."""
    worker = new_worker(max_frame_bytes=200)
    worker.receive(request_bytes(1))
    with pytest.raises(LocalFrameTooLargeError, match="may hold 200 bytes") as caught:
        worker.succeed(1, "x" * 300)
    assert (caught.value.size, caught.value.limit) == (352, 200)
    assert worker.fail(1, f"{caught.value.size} bytes, limit {caught.value.limit}")


@pytest.mark.parametrize("kind", ["event", "answer", "failure"])
def test_worker_sends_what_just_fits_a_frame(kind: str) -> None:
    """Whatever has as many bytes as are allowed."""
    worker = new_worker(max_frame_bytes=150)
    worker.receive(request_bytes(0, "ping", HANDSHAKE_2))

    def say(text: str) -> bytes:
        if kind == "event":
            return worker.event(0, "log", {"text": text})
        return worker.succeed(0, text) if kind == "answer" else worker.fail(0, text)

    with pytest.raises(LocalFrameTooLargeError) as caught:
        say("x" * 150)
    assert caught.value.size is not None
    assert len(say("x" * (300 - caught.value.size))) == 150


def test_worker_accepts_an_id_again_after_its_answer() -> None:
    """Ids are unique while outstanding, no longer."""
    worker = worker_after(HANDSHAKE_1)
    worker.succeed(1, None)
    assert isinstance(worker.receive(request_bytes(1)), Request)


def test_worker_refuses_an_id_that_is_outstanding_without_naming_it_as_the_answers() -> None:
    """The failure has no id, or it would settle the first request of that id."""
    worker = worker_after(HANDSHAKE_1)
    failure = worker.receive(request_bytes(1))
    assert failure == Failure(None, "Invalid request: id 1 is still being answered", 12.5)
    assert worker.outstanding == {1}


def test_worker_answers_an_invalid_request_to_its_id() -> None:
    """The failure says what is wrong, and nothing is owed for it."""
    worker = new_worker()
    failure = worker.receive(b'{"id":3,"command":"run","timestamp":"t"}')
    assert isinstance(failure, Failure)
    assert (failure.id, "Invalid request" in failure.error, "args" in failure.error) == (3, True, True)
    assert worker.outstanding == frozenset()


def test_worker_answers_an_invalid_request_of_an_outstanding_id_without_id() -> None:
    """The first request of that id keeps its answer."""
    failure = worker_after(HANDSHAKE_1).receive(b'{"id":1,"command":"run"}')
    assert isinstance(failure, Failure)
    assert failure.id is None


def test_worker_answers_garbage_without_id() -> None:
    """What has no usable id is answered with ``"id": null``, and the worker lives on."""
    for payload in [b"garbage", b"[]", b'{"id":-1}', b"\xff", b"[" * 100_000]:
        with case(payload):
            worker = new_worker()
            failure = worker.receive(payload)
            assert isinstance(failure, Failure)
            assert encode_failure(failure).startswith(b'{"id":null,"success":false,"error":"Invalid request')
            assert isinstance(worker.receive(request_bytes(0)), Request)


def test_worker_can_fail_without_an_id() -> None:
    """For callers that find a request unusable by themselves."""
    assert new_worker().fail(None, "no").startswith(b'{"id":null,')


# --- versions and events, worker ---------------------------------------------------------------------


def test_worker_speaks_the_version_of_the_first_ping() -> None:
    """Anything but a plain number from 2 upwards is version 1."""
    cases: list[tuple[dict[str, Any], int]] = [
        (HANDSHAKE_1, 1),
        (HANDSHAKE_2, 2),
        ({"protocol": 9}, 2),
        ({"protocol": True}, 1),
        ({"protocol": -5}, 1),
        ({"protocol": [2]}, 1),
    ]
    for args, version in cases:
        assert worker_after(args).version == version, args


def test_worker_negotiates_with_the_first_ping_only() -> None:
    """A later ping, such as a health check, changes nothing."""
    worker = worker_after(HANDSHAKE_2)
    worker.receive(request_bytes(2, "ping"))
    assert worker.version == 2
    assert worker.wants_event("log")


def test_worker_negotiates_also_when_another_command_came_first() -> None:
    """A client of the standalone bridge may ping late."""
    worker = new_worker()
    worker.receive(request_bytes(0, "get_stats"))
    worker.receive(request_bytes(1, "ping", HANDSHAKE_2))
    assert worker.version == 2


def test_worker_sends_events_that_the_client_asked_for() -> None:
    """Events belong to an outstanding request or to none."""
    worker = worker_after(HANDSHAKE_2)
    assert worker.event(1, "chunk", {"text": "a"}) == b'{"id":1,"event":"chunk","data":{"text":"a"}}'
    assert worker.event(None, "log", {}) == b'{"id":null,"event":"log","data":{}}'


def test_worker_refuses_events_that_the_client_did_not_ask_for() -> None:
    """A version 1 client never gets an event, a version 2 client only the kinds it named."""
    cases: list[dict[str, Any]] = [
        {},
        HANDSHAKE_1,
        {"events": ["progress"]},
        {"protocol": 2},
        {"protocol": 2, "events": "progress"},
        {"protocol": 2, "events": ["log", 3, None]},
    ]
    for args in cases:
        with case(args):
            worker = worker_after(args)
            assert not worker.wants_event("progress")
            with pytest.raises(LocalProtocolError, match="did not ask for events of kind 'progress'"):
                worker.event(1, "progress", {})


def test_worker_refuses_an_event_of_an_answered_request() -> None:
    """Nothing follows an answer."""
    worker = worker_after(HANDSHAKE_2)
    worker.succeed(1, None)
    with pytest.raises(LocalProtocolError, match="request 1 is not outstanding"):
        worker.event(1, "log", {})


def test_worker_refuses_an_event_that_does_not_fit_a_frame() -> None:
    """Events are under the same limit as answers."""
    worker = new_worker(max_frame_bytes=100)
    worker.receive(request_bytes(0, "ping", HANDSHAKE_2))
    with pytest.raises(LocalFrameTooLargeError):
        worker.event(None, "log", {"text": "x" * 200})
