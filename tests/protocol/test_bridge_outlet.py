"""What the bridge says and when it is interrupted, without a process: outlet, logs, interrupts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from dspex_pool.bridge.handler import Answer
from dspex_pool.bridge.interrupts import CommandCancelledError, Interrupts
from dspex_pool.bridge.logs import MAX_RECORD_CHARS, RequestLog, RequestScope
from dspex_pool.bridge.outlet import Outlet
from dspex_pool.bridge.secrets import Secrets
from dspex_pool.protocol import ClientConversation, FrameDecoder, Success
from dspex_pool.protocol.framing import LONG_BYTES, encode_frame
from dspex_pool.protocol.messages import ErrorInfo, encode_result
from tests.partial_writes import take_at_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType


class EndedError(Exception):
    """The process would have ended."""


class FakeProcess:
    """A process that tells of its end instead of ending."""

    def end(self, status: int, last_words: str = "") -> NoReturn:
        """Raise."""
        raise EndedError(status)


class Ends:
    """An outlet, and the client's end of its pipe."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.outlet = Outlet(self.write_fd, FakeProcess(), Interrupts(), max_frame_bytes=100_000)  # type: ignore[arg-type] # it only ends
        self._decoder = FrameDecoder()

    def ask(self, request_id: int, command: str, args: dict[str, Any]) -> None:
        """Let the outlet receive a request."""
        fields = {"id": request_id, "command": command, "args": args, "timestamp": ""}
        assert self.outlet.receive(json.dumps(fields).encode()) is not None

    def said(self) -> list[dict[str, Any]]:
        """Return what was said since the last time."""
        os.set_blocking(self.read_fd, False)
        with contextlib.suppress(BlockingIOError):
            self._decoder.feed(os.read(self.read_fd, 1 << 20))
        return list(map(json.loads, iter(self._decoder.next_frame, None)))


@pytest.fixture
def ends() -> Iterator[Ends]:
    """An outlet whose client has asked for progress."""
    ends = Ends()
    ends.ask(0, "ping", {"protocol": 2, "events": ["progress"]})
    yield ends
    for fd in (ends.read_fd, ends.write_fd):
        with contextlib.suppress(OSError):
            os.close(fd)


# --- outlet ------------------------------------------------------------------------------------------------


def test_event_is_said_only_while_its_request_runs(ends: Ends) -> None:
    """After the answer an event of the request would break the protocol."""
    assert ends.outlet.event("progress", {"n": 1})
    ends.outlet.succeed(0, Answer({}), duration_s=0.0)
    assert not ends.outlet.event("progress", {"n": 2})
    assert [message.get("event", "answer") for message in ends.said()] == ["progress", "answer"]
    assert ends.outlet.version == 2


def test_answer_is_any_value_or_one_with_its_usage(ends: Ends) -> None:
    """A command need not wrap what it returns; only what is told besides needs that."""
    ends.outlet.succeed(0, ["plain"], duration_s=0.0)
    ends.ask(1, "echo", {})
    ends.outlet.succeed(1, Answer("wrapped", usage={"tokens": 3}), duration_s=0.0)
    assert [(said["result"], said.get("usage")) for said in ends.said()] == [
        (["plain"], None),
        ("wrapped", {"tokens": 3}),
    ]


def test_failure_that_does_not_fit_is_cut(ends: Ends) -> None:
    """What has gone wrong is told within any limit, in characters of which it is known how long they are."""
    ends.outlet.fail(0, "é" * 200_000, ErrorInfo(type="E" * 200, message="é" * 200_000))
    (said,) = ends.said()
    assert (said["error"], said["error_info"]["type"]) == ("?" * 100, "E" * 100)


def test_pipe_that_takes_nothing_and_then_loses_its_reader_ends_the_process(ends: Ends) -> None:
    """Also in the middle of a frame nobody is left to be told of it."""
    os.set_blocking(ends.write_fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(ends.write_fd, b"x" * 4096)
    threading.Timer(0.05, os.close, (ends.read_fd,)).start()
    with pytest.raises(EndedError) as caught:
        ends.outlet.succeed(0, Answer({}), duration_s=0.0)
    assert caught.value.args == (0,)


def test_event_that_json_cannot_carry_is_not_said(ends: Ends) -> None:
    """It costs nothing else."""
    assert not ends.outlet.event("progress", {"n": float("nan")})
    assert not ends.outlet.event("progress", {"text": "x" * 200_000})
    assert ends.said() == []


def test_event_from_within_a_frame_is_not_said(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer that logs may run at any moment; it neither tears the frame nor waits for itself."""
    told = []
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        told.append(ends.outlet.event("progress", {"from": "a finalizer"}))
        return real_write(fd, data)

    monkeypatch.setattr("dspex_pool.bridge.outlet.os.write", write)
    assert ends.outlet.event("progress", {"n": 1})
    assert told == [False]
    assert len(ends.said()) == 1


def test_event_from_within_the_making_of_an_answer_is_not_said(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long answer makes the garbage collector run before its first byte is written.

    A finalizer that logged then waited for the lock that its own thread held: the worker hung for ever.
    """
    told = []

    def encode(*args: Any) -> bytes:
        told.append(ends.outlet.event("progress", {"from": "a finalizer"}))
        return encode_result(*args)

    monkeypatch.setattr("dspex_pool.protocol.conversation.encode_result", encode)
    answer = threading.Thread(
        target=ends.outlet.succeed, args=(0, Answer({})), kwargs={"duration_s": 0.0}, daemon=True
    )
    answer.start()
    answer.join(10.0)
    assert told == [False]
    assert [message["id"] for message in ends.said()] == [0]


def test_frames_of_two_threads_are_not_mixed(ends: Ends) -> None:
    """Also when the pipe is full and takes them in pieces."""
    os.set_blocking(ends.write_fd, False)
    data = {"text": "x" * 60_000}
    threads = [threading.Thread(target=ends.outlet.event, args=("progress", data)) for _ in range(4)]
    for thread in threads:
        thread.start()
    messages: list[dict[str, Any]] = []
    while len(messages) < 4:
        messages += ends.said()
    for thread in threads:
        thread.join()
    assert [message["data"] for message in messages] == [data] * 4


def test_failure_waits_for_the_frame_of_another_thread(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may fail while a thread of its own is in the middle of a frame."""
    failure = threading.Thread(target=ends.outlet.fail, args=(0, "no", ErrorInfo(type="E", message="no")))
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real_write)
        written = os.write(fd, data[:5])
        failure.start()
        failure.join(0.05)
        return written

    monkeypatch.setattr(os, "write", write)
    assert ends.outlet.event("progress", {"n": 1})
    failure.join()
    event, answer = ends.said()
    assert (event["data"], answer["error"]) == ({"n": 1}, "no")


def test_event_is_not_torn_by_a_signal(
    ends: Ends, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command is stopped when the frame is whole."""
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        written = real_write(fd, data[:-3])
        signal.raise_signal(signal.SIGINT)
        return written

    monkeypatch.setattr(ends.outlet, "_interrupts", interrupts)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(CommandCancelledError):
            interrupts.run(lambda args: ends.outlet.event("progress", args), {"n": 1})
    assert [message["data"] for message in ends.said()] == [{"n": 1}]


def ids_taken(messages: Iterable[dict[str, Any]]) -> list[int]:
    """Let a client that asks anew after each answer hear all this; return what was answered."""
    client = ClientConversation(peer="worker w-1")
    client.request("ping", {"protocol": 2, "events": ["progress"]})
    answered = []
    for message in messages:
        if isinstance(client.receive(json.dumps(message).encode()), Success):
            answered.append(message["id"])
            client.request("echo", {})
    return answered


@pytest.mark.hangs_after(10)
def test_events_of_a_thread_that_outlives_its_command_belong_to_a_request_that_runs(ends: Ends) -> None:
    """It may speak at any moment, also while a request is read or answered: the client takes all that it hears."""
    last, messages = 100, list[dict[str, Any]]()

    def talk() -> None:
        while messages[-1:] != [bye]:
            ends.outlet.event("progress", {"n": 1})

    def hear() -> None:
        while messages[-1:] != [bye]:
            messages.extend(ends.said())

    bye: dict[str, Any] = {"id": None, "event": "progress", "data": {}}

    threads = [threading.Thread(target=each) for each in (talk, hear)]
    for thread in threads:
        thread.start()
    for number in range(1, last + 1):
        ends.outlet.succeed(number - 1, {"protocol": 2}, duration_s=0.0)
        assert ends.outlet.receive(b"no request") is None
        ends.ask(number, "echo", {})
        while number % 10 == 0 and not any(said["id"] == number and "event" in said for said in messages):
            time.sleep(0.001)
    ends.outlet.succeed(last, {}, duration_s=0.0)
    os.write(ends.write_fd, encode_frame(json.dumps(bye).encode()))
    for thread in threads:
        thread.join()
    assert ids_taken(message for message in messages if message["id"] is not None) == list(range(last + 1))


def test_long_frame_goes_on_behind_any_byte(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the pipe stops to take more, the next write goes on there."""
    text = "x" * (LONG_BYTES + 10)
    ends.outlet.succeed(0, Answer({}), duration_s=0.0)
    ends.said()
    for number, first in enumerate([0, 1, 3, 4, 5, LONG_BYTES], 1):
        take_at_first(monkeypatch, first)
        ends.ask(number, "echo", {})
        thread = threading.Thread(
            target=ends.outlet.succeed, args=(number, Answer(text)), kwargs={"duration_s": 0.0}
        )
        thread.start()
        messages: list[dict[str, Any]] = []
        while not messages:
            messages = ends.said()
        thread.join()
        assert [(message["id"], message["result"]) for message in messages] == [(number, text)]


@pytest.mark.parametrize("lacking", [1, 4, 5])
def test_short_frame_of_which_the_last_bytes_were_not_taken_is_finished(
    ends: Ends, lacking: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal or a full pipe may cut a write anywhere."""
    real_write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real_write(fd, data[:-lacking]))
        ends.outlet.succeed(0, "whole", duration_s=0.0)
    assert [message["result"] for message in ends.said()] == ["whole"]


def test_nobody_who_reads_ends_the_process(ends: Ends) -> None:
    """Quietly, with status 0."""
    os.close(ends.read_fd)
    with pytest.raises(EndedError) as caught:
        ends.outlet.succeed(0, Answer({}), duration_s=0.0)
    assert caught.value.args == (0,)


# --- logs --------------------------------------------------------------------------------------------------


def make_log(
    told: list[dict[str, Any]], *, heard: bool = True, secrets: Secrets | None = None
) -> tuple[RequestLog, RequestScope]:
    """Return a log whose events end up in ``told``."""

    def emit(kind: str, data: dict[str, Any]) -> bool:
        told.append(data)
        return heard

    scope = RequestScope()
    return RequestLog(emit, scope, secrets or Secrets(), "w-1"), scope


def record(text: str) -> logging.LogRecord:
    """Return a log record."""
    return logging.LogRecord("name", logging.INFO, __file__, 1, text, None, None)


def test_record_outside_of_a_request_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for events then."""
    told: list[dict[str, Any]] = []
    log, _ = make_log(told)
    assert log.handle(record("idle"))
    assert told == []
    assert capsys.readouterr().err == "INFO name: idle\n"


def test_record_that_nobody_asked_for_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A session that is no text is not told."""
    told: list[dict[str, Any]] = []
    log, scope = make_log(told, heard=False)
    scope.enter(7, session_id=["odd"])
    log.handle(record("busy"))
    assert told[0]["session_id"] is None
    assert told[0]["request_id"] == 7
    assert capsys.readouterr().err == "INFO name: busy\n"


def test_record_that_a_filter_drops_goes_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Filters work as with every handler."""
    log, _ = make_log([])
    log.addFilter(lambda _: False)
    assert not log.handle(record("secret"))
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters replace records since Python 3.12")
def test_record_that_a_filter_replaces_is_told_as_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    """A filter that takes secrets out of a copy had no effect."""
    log, _ = make_log([])
    log.addFilter(lambda _: record("without the secret"))  # type: ignore[arg-type, return-value] # typeshed's is 3.11
    assert log.handle(record("secret"))
    assert capsys.readouterr().err == "INFO name: without the secret\n"


def test_record_that_cannot_be_formatted_is_masked_and_cut_too() -> None:
    """Its raw text may hold a key, as it did when it was told as it is, and be of any length."""
    told: list[dict[str, Any]] = []
    secrets = Secrets()
    secrets.add("sk-12345678")
    log, scope = make_log(told, secrets=secrets)
    scope.enter(7, session_id=None)
    unfit = record("%d sk-12345678 " + "x" * 10_000)
    unfit.args = ("no number",)
    log.handle(unfit)
    assert told[0]["message"].startswith("'%d [secret] xxx")
    assert len(told[0]["message"]) < MAX_RECORD_CHARS + 100


class Unspeakable:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError


def test_record_of_an_object_that_raises_fails_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told by its class; the error of its text reached the code that logged."""
    log, _ = make_log([])
    odd = record("")
    odd.msg = Unspeakable()
    log.handle(odd)
    assert "Unspeakable" in capsys.readouterr().err


def test_stderr_that_takes_nothing_fails_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, or closed: the error reached the code that logged."""
    log, _ = make_log([])
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123 # a device
        monkeypatch.setattr("sys.stderr", full)
        log.handle(record("lost"))
        with contextlib.suppress(OSError):
            full.close()
    log.handle(record("lost, too"))


# --- interrupts --------------------------------------------------------------------------------------------


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """Interrupts that have taken over SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    interrupts.install()
    yield interrupts
    signal.signal(signal.SIGINT, before)


def test_signal_raises_in_the_running_command_alone(interrupts: Interrupts) -> None:
    """Before and after it, the signal means nothing."""
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(CommandCancelledError):
        interrupts.run(lambda _: signal.raise_signal(signal.SIGINT), {})
    signal.raise_signal(signal.SIGINT)
    assert interrupts.run(lambda args: args["n"], {"n": 1}) == 1


def test_signal_waits_for_the_end_of_the_outermost_shield(interrupts: Interrupts) -> None:
    """Shields nest; one signal raises once."""
    steps = []

    def command(_: dict[str, Any]) -> None:
        with interrupts.shield():
            with interrupts.shield():
                signal.raise_signal(signal.SIGINT)
                steps.append("inner")
            steps.append("outer")
        steps.append("never")

    with pytest.raises(CommandCancelledError):
        interrupts.run(command, {})
    assert steps == ["inner", "outer"]
    with interrupts.shield():
        steps.append("later")


def test_signal_in_the_end_of_a_shield_leaves_nothing_for_the_next_one(interrupts: Interrupts) -> None:
    """The second of two signals raised at once there, and the first stayed kept back: it struck a later command."""

    def strike(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is Interrupts.__exit__.__code__ and not interrupts._shields:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return strike

    def command(_: dict[str, Any]) -> None:
        with interrupts.shield():
            signal.raise_signal(signal.SIGINT)
            sys.settrace(strike)

    tracer = sys.gettrace()
    try:
        with pytest.raises(CommandCancelledError):
            interrupts.run(command, {})
    finally:
        sys.settrace(tracer)
    try:
        with interrupts.shield():
            pass
    except CommandCancelledError:
        pytest.fail("the first signal is still kept back")


def test_shield_of_another_thread_does_not_hold_back_the_main_one(interrupts: Interrupts) -> None:
    """The signal is the main thread's business."""
    held: list[object] = []
    thread = threading.Thread(target=lambda: held.append(interrupts.shield()))
    thread.start()
    thread.join()
    assert held[0] is not interrupts
    assert interrupts.shield() is interrupts
