"""What the bridge answers: frames, messages, versions, and every way to fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.protocol import encode_frame
from tests.bridge_process import BridgeProcess, running_bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.protocol


@pytest.fixture(scope="module")
def shared() -> Iterator[BridgeProcess]:
    """A bridge that all tests of this module may use; none may break it."""
    with running_bridge() as bridge:
        yield bridge


@pytest.fixture
def bridge(shared: BridgeProcess) -> Iterator[BridgeProcess]:
    """The shared bridge, which still serves afterwards."""
    shared.events.clear()
    yield shared
    assert shared.ask("echo", still="here") == {"still": "here"}


def raw(payload: bytes) -> bytes:
    """Frame a payload that no encoder would make."""
    return encode_frame(payload)


# --- handshake and the commands of every worker ------------------------------------------------------------


def test_handshake_of_version_2_tells_versions_and_capabilities() -> None:
    """The first answer tells what the client must know of this worker."""
    with running_bridge(handshake=False) as bridge:
        told = bridge.handshake()
        assert told["status"] == "ok"
        assert told["mode"] == "pool-worker"
        assert told["worker_id"] == "w-1"
        assert told["protocol"] == 2
        assert told["pid"] == bridge.pid
        assert set(told["versions"]) == {"python", "dspy", "bridge"}
        assert {"cancel", "log", "echo"} <= set(told["capabilities"])
        assert told["uptime"] >= 0
        assert isinstance(told["timestamp"], float)
        assert isinstance(told["dspy_available"], bool)


def test_version_1_peer_sees_no_field_of_version_2() -> None:
    """An Elixir client that does not ask for version 2 gets the messages it knows."""
    with running_bridge(handshake=False) as bridge:
        ping = bridge.handshake(protocol=1)
        assert set(ping) == {"status", "timestamp", "uptime", "mode", "dspy_available", "worker_id"}
        bridge.send("usage", {"tokens": 1})
        assert set(bridge.answer()) == {"id", "success", "result", "timestamp"}
        bridge.send("raise_error")
        assert set(bridge.answer()) == {"id", "success", "error", "timestamp"}
        assert bridge.ask("emit", event="progress", data={}) == [False]


def test_version_2_answer_tells_usage_and_duration(bridge: BridgeProcess) -> None:
    """What a command tells besides its result travels beside it."""
    bridge.send("usage", {"tokens": 1})
    reply = bridge.answer()
    assert reply["usage"] == {"tokens": 1}
    assert 0 <= reply["duration_s"] < 5


def test_get_stats_counts_commands_and_errors(bridge: BridgeProcess) -> None:
    """Counters move by one for each command and each failure; what is no request is both."""
    before = bridge.ask("get_stats")
    bridge.refused("nan")
    bridge.send_bytes(raw(b"{}"))
    assert bridge.answer()["success"] is False
    after = bridge.ask("get_stats")
    assert after["command_count"] == before["command_count"] + 3
    assert after["error_count"] == before["error_count"] + 2
    assert after["uptime"] >= before["uptime"]
    assert after["memory_usage"]["rss"] > 1_000_000
    assert set(after) == {
        "programs_count", "command_count", "error_count", "uptime", "memory_usage", "dspy_available"
    }  # fmt: skip


def test_shutdown_is_answered_and_then_the_process_exits_with_0() -> None:
    """A polite end: the answer arrives, and the process goes (R43)."""
    with running_bridge() as bridge:
        told = bridge.ask("shutdown", worker_id="w-1")
        assert told == {
            "status": "shutting_down",
            "worker_id": "w-1",
            "mode": "pool-worker",
            "sessions_cleaned": 0,
        }
        assert bridge.receive() is None
        assert bridge.wait() == 0


# --- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "request_id"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b"\xef\xbb\xbf{}", None),
        (b"null", None),
        (b'{"command": "ping", "args": {}, "timestamp": ""}', None),
        (b'{"id": -1, "command": "ping", "args": {}, "timestamp": ""}', None),
        (b'{"id": "x", "command": "ping", "args": {}, "timestamp": ""}', None),
        (b'{"id": 12345, "args": {}, "timestamp": ""}', 12345),
        (b'{"id": 12345, "command": 7, "args": {}, "timestamp": ""}', 12345),
        (b'{"id": 12345, "command": "echo", "args": [], "timestamp": ""}', 12345),
        (b'{"id": 12345, "command": "echo", "timestamp": ""}', 12345),
        (b'{"id": 12345, "command": "echo", "args": ' + b"[" * 100_000, 12345),
    ],
)
def test_invalid_request_is_answered_and_survived(
    bridge: BridgeProcess, payload: bytes, request_id: int | None
) -> None:
    """Whatever is no request gets one failure, under its id if it has a usable one (R51)."""
    bridge.send_bytes(raw(payload))
    reply = bridge.answer()
    assert reply["success"] is False
    assert reply["id"] == request_id
    assert reply["error"].startswith("Invalid request: ")


def test_unknown_command_is_named(bridge: BridgeProcess) -> None:
    """The failure says which command nobody serves."""
    error = bridge.refused("no_such_command")
    assert error["error"] == "Unknown command: no_such_command"
    assert error["type"] == "UnknownCommand"


@pytest.mark.parametrize(
    ("command", "args", "place"),
    [
        ("nan", {}, "result.value is NaN"),
        ("unencodable", {"kind": "set"}, "result.value is of type set"),
        ("unencodable", {"kind": "object"}, "result.value is of type object"),
        ("unencodable", {"kind": "key"}, "a key of result.value is an integer"),
        ("unencodable", {"kind": "surrogate"}, "result.value has the lone surrogate"),
        ("unencodable", {"kind": "deep"}, "is nested too deeply"),
    ],
)
def test_result_that_json_cannot_carry_is_a_failure_that_names_the_place(
    bridge: BridgeProcess, command: str, args: dict[str, Any], place: str
) -> None:
    """Never "no answer", never a changed value: the failure says what is where (R51, R90)."""
    error = bridge.refused(command, **args)
    assert place in error["error"]
    assert error["type"] == "LocalProtocolError"


def test_answer_over_the_frame_limit_is_a_failure_with_both_sizes() -> None:
    """A result that is too long costs its command, not the worker."""
    with running_bridge("--max-frame-bytes", "4096") as bridge:
        error = bridge.refused("big", bytes=5000)
        assert "4096" in error["error"]
        assert error["type"] == "LocalFrameTooLargeError"
        assert len(bridge.ask("big", bytes=3000)["data"]) == 3000


def test_error_text_over_the_frame_limit_is_cut() -> None:
    """Even a failure that is too long arrives, shortened."""
    with running_bridge("--max-frame-bytes", "2048") as bridge:
        error = bridge.refused("raise_error", message="m" * 1500)
        assert error["error"] == "m" * 100
        assert error["type"] == "RuntimeError"


def test_exception_of_a_command_is_told_with_type_text_and_traceback(bridge: BridgeProcess) -> None:
    """The caller sees what was raised and where."""
    error = bridge.refused("raise_error", type="ValueError", message="no such thing")
    assert error["error"] == error["message"] == "no such thing"
    assert error["type"] == "ValueError"
    assert "in raise_error" in error["traceback"]


def test_facts_of_an_exception_travel(bridge: BridgeProcess) -> None:
    """Code, status and retry advice come from the exception or from the handler's knowledge of it."""
    error = bridge.refused(
        "raise_error",
        attributes={"code": "rate_limit", "status": 429, "retry_after": 2},
        facts={"retryable": True, "status": 503},
    )
    assert error["code"] == "rate_limit"
    assert error["status"] == 503
    assert error["retry_after_s"] == 2.0
    assert error["retryable"] is True


@pytest.mark.parametrize("kind", ["SystemExit", "GeneratorExit", "MemoryError", "RecursionError"])
def test_command_that_ends_itself_does_not_end_its_worker(bridge: BridgeProcess, kind: str) -> None:
    """Also what is no ``Exception`` is a failure of the command alone."""
    assert bridge.refused("raise_error", type=kind)["type"] == kind


def test_cancellation_inside_a_command_is_a_failure(bridge: BridgeProcess) -> None:
    """An event loop's cancellation that leaves the command does not leave the worker."""
    assert bridge.refused("cancel_itself")["type"] == "CancelledError"


def test_exception_without_a_text_is_told_all_the_same(bridge: BridgeProcess) -> None:
    """An exception whose text cannot be had is named by its class."""
    error = bridge.refused("raise_unprintable")
    assert error["type"] == "UnprintableError"
    assert "UnprintableError" in error["error"]


# --- the stream of requests --------------------------------------------------------------------------------


def test_requests_may_arrive_byte_by_byte_and_all_at_once(bridge: BridgeProcess) -> None:
    """Frames are cut by their headers, not by how the bytes arrive."""
    one = encode_frame(json.dumps({"id": 900, "command": "echo", "args": {"é": 1}, "timestamp": ""}).encode())
    for byte in one:
        bridge.send_bytes(bytes([byte]))
    assert bridge.answer()["result"] == {"é": 1}
    bridge.send_bytes(b"".join(one.replace(b"900", str(number).encode()) for number in range(901, 921)))
    assert [bridge.answer()["id"] for _ in range(20)] == list(range(901, 921))


def test_more_requests_than_the_line_holds_are_all_answered_in_order(bridge: BridgeProcess) -> None:
    """A long line waits in the pipe; nothing is lost or overtaken."""
    ids = [bridge.send("sleep", {"seconds": 0.05})]
    ids += [bridge.send("echo", {"text": "x" * 200}) for _ in range(200)]
    assert [bridge.answer()["id"] for _ in ids] == ids


def test_id_may_be_used_again_once_it_is_answered(bridge: BridgeProcess) -> None:
    """Ids are unique among outstanding requests, not for ever."""
    for number in (1, 2):
        bridge.send("echo", {"n": number}, id=700)
        reply = bridge.answer()
        assert (reply["id"], reply["result"]) == (700, {"n": number})


def test_large_frames_pass_in_both_directions(bridge: BridgeProcess) -> None:
    """Frames larger than any pipe's buffer travel whole."""
    text = "ß" * 500_000
    assert bridge.ask("echo", text=text) == {"text": text}


def test_unknown_fields_of_a_request_are_ignored(bridge: BridgeProcess) -> None:
    """A later version of the protocol may add fields."""
    bridge.send("echo", {"n": 1}, from_the_future=[1, 2], traceparent="00-ab-cd-01", timeout_s=3.5)
    assert bridge.answer()["result"] == {"n": 1}


# --- events and logs ---------------------------------------------------------------------------------------


def test_event_of_a_command_comes_before_its_answer(bridge: BridgeProcess) -> None:
    """Events carry the id of the request and its data."""
    request_id = bridge.send("emit", {"event": "progress", "data": {"done": 0.5}, "count": 2})
    assert bridge.answer()["result"] == [True, True]
    assert bridge.events == [{"id": request_id, "event": "progress", "data": {"done": 0.5}}] * 2


def test_event_that_was_not_asked_for_is_not_sent(bridge: BridgeProcess) -> None:
    """A kind that the client does not know stays inside."""
    assert bridge.ask("emit", event="chunk", data={}) == [False]
    assert bridge.events == []


def test_log_record_is_an_event_with_worker_session_and_request(bridge: BridgeProcess) -> None:
    """Whoever reads the client's log sees which request of which session it belongs to."""
    request_id = bridge.send("log", {"message": "halfway", "level": "WARNING", "session_id": "s-1"})
    bridge.answer()
    (event,) = bridge.events
    data = event["data"]
    assert event["id"] == request_id
    assert isinstance(data.pop("time"), float)
    assert data == {
        "level": "WARNING",
        "logger": "echo",
        "message": "halfway",
        "worker_id": "w-1",
        "session_id": "s-1",
        "request_id": request_id,
    }


def test_log_record_of_another_thread_belongs_to_the_running_request(bridge: BridgeProcess) -> None:
    """Libraries log from threads of their own."""
    bridge.ask("log", message="from aside", thread=True)
    assert [event["data"]["message"] for event in bridge.events] == ["from aside"]


def test_log_record_that_cannot_be_formatted_is_told_and_survived(bridge: BridgeProcess) -> None:
    """A mistake in somebody's logging call costs nothing but its text."""
    bridge.ask("log", message="%d apples", arguments=["no number"])
    assert "%d apples" in bridge.events[0]["data"]["message"]


def test_log_of_a_request_is_bounded_and_says_so(bridge: BridgeProcess) -> None:
    """A command that logs without end does not flood the client (R50, R117)."""
    bridge.ask("log", message="x" * 9_000, count=1_050)
    assert len(bridge.events) == 1_001
    assert len(bridge.events[0]["data"]["message"]) < 8_100
    assert "50 more log records" in bridge.events[-1]["data"]["message"]


def test_log_goes_to_stderr_where_the_client_did_not_ask_for_it() -> None:
    """Without events nothing is lost: stderr has it."""
    with running_bridge(handshake=False) as bridge:
        bridge.handshake(protocol=1)
        bridge.ask("log", message="to whom it may concern")
        assert bridge.events == []
        assert "INFO echo: to whom it may concern" in bridge.stderr()


def test_secret_is_masked_in_failures_and_logs(bridge: BridgeProcess) -> None:
    """A key that a provider repeats in its error does not get out (R49, R91)."""
    secret = "sk-0123456789"
    bridge.ask("add_secret", value=secret)
    error = bridge.refused("raise_error", message=f"bad key {secret}!")
    bridge.ask("log", message=f"using {secret}")
    assert error["error"] == "bad key [secret]!"
    assert secret not in json.dumps([error, bridge.events])
