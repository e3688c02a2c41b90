"""Messages: the golden bytes of version 1, what version 2 adds, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from dspex_pool.errors import LocalProtocolError, RemoteProtocolError
from dspex_pool.protocol import (
    ErrorInfo,
    Event,
    Failure,
    FromWorker,
    Request,
    Success,
    decode_from_worker,
    decode_request,
    encode_event,
    encode_failure,
    encode_request,
    encode_success,
)
from tests.cases import case

WHEN = "2026-01-02T03:04:05Z"
DEEP = b"[" * 100_000


def refused_request(payload: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_request(payload)
    return caught.value


def refused_answer(payload: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_from_worker(payload, peer="worker w-3")
    return caught.value


# --- requests ----------------------------------------------------------------------------------------


def test_encode_request_writes_the_four_fields_of_version_1() -> None:
    """The golden request: these bytes and no others."""
    assert encode_request(Request(7, "get_stats", {}, WHEN)) == (
        b'{"id":7,"command":"get_stats","args":{},"timestamp":"2026-01-02T03:04:05Z"}'
    )


def test_encode_request_appends_the_fields_of_version_2_when_they_are_given() -> None:
    """The trace context and the time limit travel beside the args, not in them."""
    payload = encode_request(Request(7, "get_stats", {}, WHEN, "00-a-b-01", 1.5))
    assert payload.endswith(b'"timestamp":"2026-01-02T03:04:05Z","traceparent":"00-a-b-01","timeout_s":1.5}')


def test_encode_request_names_the_place_of_nan() -> None:
    """NaN never leaves as null."""
    with pytest.raises(LocalProtocolError, match=r"args\.inputs\.x is NaN"):
        encode_request(Request(7, "execute_program", {"inputs": {"x": math.nan}}, WHEN))


def test_encode_request_names_a_command_that_is_not_unicode() -> None:
    """Every string of the message is covered, not only the args."""
    with pytest.raises(LocalProtocolError, match="command has the lone surrogate"):
        encode_request(Request(7, "\ud800", {}, WHEN))


def test_decode_request_reads_what_an_elixir_client_writes() -> None:
    """Keys in any order, and no field of version 2."""
    payload = (
        b'{"args":{"initialization":true,"worker_id":"worker_1"},"command":"ping","id":0,'
        b'"timestamp":"2026-01-02T03:04:05.678901Z"}'
    )
    assert decode_request(payload) == Request(
        0, "ping", {"initialization": True, "worker_id": "worker_1"}, "2026-01-02T03:04:05.678901Z"
    )


def test_decode_request_reads_what_encode_request_wrote() -> None:
    """Both directions agree on all six fields."""
    request = Request(2**40, "é", {"n": None, "deep": [[{}]]}, WHEN, "00-a-b-01", 1.5)
    assert decode_request(encode_request(request)) == request


def test_decode_request_ignores_unknown_fields() -> None:
    """A newer client can be served."""
    payload = b'{"id":1,"command":"ping","args":{},"timestamp":"t","priority":{"high":[1]}}'
    assert decode_request(payload) == Request(1, "ping", {}, "t")


def test_decode_request_refuses_a_missing_field_by_name() -> None:
    """All four fields of version 1 are required."""
    for missing in ["id", "command", "args", "timestamp"]:
        with case(missing):
            fields = {"id": 1, "command": "ping", "args": {}, "timestamp": WHEN}
            del fields[missing]
            assert missing in str(refused_request(json.dumps(fields).encode()))


def test_decode_request_names_the_field_of_a_wrong_type_and_keeps_the_id() -> None:
    """The answer can go to the request it belongs to."""
    cases: list[tuple[str, Any]] = [
        ("command", 3),
        ("args", []),
        ("args", None),
        ("timestamp", 12.5),
        ("timeout_s", "soon"),
        ("traceparent", 1),
    ]
    for field, value in cases:
        with case(field, value):
            fields = {"id": 5, "command": "ping", "args": {}, "timestamp": WHEN, field: value}
            error = refused_request(json.dumps(fields).encode())
            assert f"$.{field}" in str(error)
            assert error.request_id == 5


def test_decode_request_finds_no_usable_id_where_it_is_no_natural_number() -> None:
    """Such a request can only be answered without an id."""
    for bad_id in ["-1", "null", "true", '"7"', "1.5", "1.0", "[]", "1e400"]:
        with case(bad_id):
            error = refused_request(b'{"id":%s,"command":"ping","args":{},"timestamp":"t"}' % bad_id.encode())
            assert error.request_id is None


def test_decode_request_finds_no_id_in_what_is_no_json_object() -> None:
    """An id in broken JSON is not trusted."""
    cases: list[bytes] = [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b'{"id":1',
        b'{"id":1,"command":"ping","args":{"x":NaN},"timestamp":"t"}',
        b'{"id":1,"command":"ping","args":{"x":"\\ud800"},"timestamp":"t"}',
        b'{"id":1,"command":"ping","args":{},"timestamp":"t"}{}',
    ]
    for payload in cases:
        with case(payload):
            assert refused_request(payload).request_id is None


def test_decode_request_names_a_byte_order_mark() -> None:
    """The most confusing of the invisible faults is told by name."""
    assert "byte order mark" in str(
        refused_request(b"\xef\xbb\xbf" + encode_request(Request(1, "ping", {}, WHEN)))
    )


def test_decode_request_refuses_text_that_is_not_utf_8_and_keeps_the_id() -> None:
    """Latin-1 is refused, to the sender."""
    error = refused_request(b'{"id":3,"command":"\xe9","args":{},"timestamp":"t"}')
    assert "utf-8" in str(error).lower()
    assert error.request_id == 3


@pytest.mark.parametrize(
    ("head", "request_id"),
    [(b'{"id":4,"command":"x","args":', 4), (b'{"command":"x","id":4,"args":', None), (b"", None)],
)
def test_decode_request_refuses_deep_nesting_to_the_id_in_front(head: bytes, request_id: int | None) -> None:
    """Nesting too deep to skip costs one request and no RecursionError."""
    error = refused_request(head + b'{"x":' + DEEP)
    assert "nested too deeply" in str(error)
    assert error.request_id == request_id


def test_decode_request_does_not_quote_the_payload() -> None:
    """A key in a request is not sent back in the failure."""
    error = refused_request(b'{"id":1,"args":{"api_key":"sk-secret"},"command":1,"timestamp":"t"}')
    assert "sk-secret" not in f"{error} {error.facts()}"


# --- answers -----------------------------------------------------------------------------------------


def test_encode_success_writes_the_four_fields_of_version_1() -> None:
    """The golden success: these bytes and no others."""
    assert encode_success(Success(7, {"status": "ok"}, 1767323045.5)) == (
        b'{"id":7,"success":true,"result":{"status":"ok"},"timestamp":1767323045.5}'
    )


def test_encode_success_appends_the_fields_of_version_2_when_they_are_given() -> None:
    """Usage and duration stand beside the result."""
    payload = encode_success(Success(7, None, 1.0, {"tokens": 3}, 0.25))
    assert payload == (
        b'{"id":7,"success":true,"result":null,"timestamp":1.0,"usage":{"tokens":3},"duration_s":0.25}'
    )


def test_encode_failure_writes_the_four_fields_of_version_1() -> None:
    """The golden failure: these bytes and no others."""
    assert encode_failure(Failure(7, "Unknown command: X", 1767323045.5)) == (
        b'{"id":7,"success":false,"error":"Unknown command: X","timestamp":1767323045.5}'
    )


def test_encode_failure_writes_a_missing_id_as_null() -> None:
    """A request without usable id is answered with ``"id": null``."""
    assert encode_failure(Failure(None, "Invalid request", 1.0)).startswith(b'{"id":null,"success":false,')


def test_encode_failure_leaves_out_what_it_does_not_know() -> None:
    """``error_info`` holds only known facts."""
    payload = encode_failure(Failure(7, "no", 1.0, ErrorInfo("RateLimitError", "slow down", status=429)))
    assert json.loads(payload)["error_info"] == {
        "type": "RateLimitError",
        "message": "slow down",
        "status": 429,
    }


def test_encode_failure_writes_lone_surrogates_out() -> None:
    """A failure about a file name that is not UTF-8 arrives all the same."""
    payload = encode_failure(
        Failure(7, "no file é\udc80", 1.0, ErrorInfo("OSError", "\udc80", traceback="\udcff"))
    )
    assert json.loads(payload) == {
        "id": 7,
        "success": False,
        "error": "no file é\\udc80",
        "timestamp": 1.0,
        "error_info": {"type": "OSError", "message": "\\udc80", "traceback": "\\udcff"},
    }


def test_encode_failure_refuses_nan_in_its_numbers() -> None:
    """Numbers for programs are not repaired."""
    with pytest.raises(LocalProtocolError, match=r"error_info\.retry_after_s is NaN"):
        encode_failure(Failure(7, "no", 1.0, ErrorInfo("E", "m", retry_after_s=math.nan)))


def test_encode_event_writes_three_fields() -> None:
    """The golden event: these bytes and no others."""
    assert (
        encode_event(Event(None, "log", {"text": "hi"})) == b'{"id":null,"event":"log","data":{"text":"hi"}}'
    )


def test_decode_from_worker_tells_the_kinds_of_message_apart() -> None:
    """Version 1 answers, with the spaces of Python's ``json``, and version 2 events."""
    cases: dict[str, tuple[bytes, FromWorker]] = {
        "success": (
            b'{"id": 7, "success": true, "result": {"status": "ok"}, "timestamp": 1767323045.678}',
            Success(7, {"status": "ok"}, 1767323045.678),
        ),
        "failure": (
            b'{"timestamp": "2026-01-02", "success": false, "error": "Unknown command: X", "id": 7}',
            Failure(7, "Unknown command: X", "2026-01-02"),
        ),
        "failure without id": (
            b'{"id":null,"success":false,"error":"bad","timestamp":1}',
            Failure(None, "bad", 1.0),
        ),
        "null result": (b'{"id":0,"success":true,"result":null,"timestamp":1}', Success(0, None, 1.0)),
        "event": (b'{"id":0,"event":"chunk","data":{"text":"a"}}', Event(0, "chunk", {"text": "a"})),
    }
    for name, (payload, message) in cases.items():
        assert decode_from_worker(payload) == message, name


@pytest.mark.parametrize(
    "message",
    [
        Success(1, [{"é": 1.5}], 2.0, {"tokens": 1}, 0.5),
        Failure(1, "no", 2.0, ErrorInfo("E", "m", "tb", "c", 429, 1.5, True)),
        Event(1, "progress", {"done": 0.5}),
    ],
    ids=["success", "failure", "event"],
)
def test_decode_from_worker_reads_what_was_encoded(message: FromWorker) -> None:
    """Both directions agree on every field."""
    match message:
        case Success():
            payload = encode_success(message)
        case Failure():
            payload = encode_failure(message)
        case Event():
            payload = encode_event(message)
    assert decode_from_worker(payload) == message


def test_decode_from_worker_ignores_fields_of_other_kinds() -> None:
    """A bridge that answers success with ``"error": null`` is understood."""
    payload = (
        b'{"id":1,"success":true,"result":1,"timestamp":1,"error":null,"error_info":3,"event":[],"new":{}}'
    )
    assert decode_from_worker(payload) == Success(1, 1, 1.0)


def test_decode_from_worker_refuses_what_is_no_message() -> None:
    """The error names the worker and shows what it sent."""
    cases: list[bytes] = [
        b"{}",
        b"[]",
        b"null",
        b'"text"',
        b'{"id":1,"result":1,"timestamp":1}',
        b'{"id":1,"success":1,"result":1,"timestamp":1}',
        b'{"id":1,"success":null,"event":"log","data":{}}',
        b'{"id":null,"success":true,"result":1,"timestamp":1}',
        b'{"id":-1,"success":true,"result":1,"timestamp":1}',
        b'{"id":1,"success":true,"timestamp":1}',
        b'{"id":1,"success":true,"result":1}',
        b'{"id":1,"success":true,"result":1,"timestamp":null}',
        b'{"success":false,"error":"no","timestamp":1}',
        b'{"id":1,"success":false,"error":{"code":1},"timestamp":1}',
        b'{"id":1,"success":false,"error":"no","timestamp":1,"error_info":{"type":"E"}}',
        b'{"id":1,"event":"log"}',
        b'{"id":1,"event":"log","data":"text"}',
    ]
    for payload in cases:
        with case(payload):
            error = refused_answer(payload)
            assert "worker w-3 sent" in str(error)
            assert error.data == payload[:64]


def test_decode_from_worker_gives_the_reason_for_what_it_cannot_read() -> None:
    """Whatever the bytes are, the error is the documented one."""
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "truncated"),
        "print": (b"Loading model...\n", "Loading model"),
        "byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
        "not utf-8": (b'{"id":1,"success":true,"result":"\xff","timestamp":1}', "utf-8"),
        "lone surrogate": (b'{"id":1,"success":true,"result":"\\ud800","timestamp":1}', "no message"),
        "deep": (b'{"id":1,"success":true,"timestamp":1,"result":' + DEEP, "nested too deeply"),
        "huge number": (
            b'{"id":1,"success":true,"timestamp":1' + b"0" * 400 + b',"result":1}',
            "out of range",
        ),
    }
    for name, (payload, reason) in cases.items():
        with case(name):
            assert reason in str(refused_answer(payload)).replace("UTF-8", "utf-8")


def test_decode_from_worker_quotes_the_bytes_around_a_fault_far_inside() -> None:
    """NaN in the middle of a long answer is shown, not only the answer's beginning."""
    payload = b'{"id":1,"success":true,"result":{"text":"%s","score":NaN},"timestamp":1}' % (b"x" * 1000)
    assert '"score":NaN}' in str(refused_answer(payload))


@pytest.mark.parametrize("payload", [b"x" * 1_000_000, b"[" * 500 + b"1e999"], ids=["long", "deep"])
def test_decode_from_worker_quotes_a_bounded_excerpt(payload: bytes) -> None:
    """Neither a megabyte of garbage nor a fault 500 levels down makes a long error."""
    assert len(str(refused_answer(payload))) < 500
