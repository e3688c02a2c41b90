"""Recordings that are played again: a real worker's, and small ones that have moved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import PortClosedError
from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.messages import Success
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.recordings.compare import assert_unmoved
from dspex_testkit.recordings.entries import Entry, Redactor, header, read_recording
from dspex_testkit.recordings.recorder import Recorder
from dspex_testkit.recordings.replay import RecordingMovedError, ReplayPort, ReplayPortFactory
from tests.recorded import RECORDING, talk_to_echo

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.fast


def entry(what: Any, at: float = 0.0, **fields: Any) -> Entry:
    """Return one line."""
    return Entry(at=at, worker="w-0", incarnation=0, what=what, **fields)


def exchange(number: int, at: float = 0.0, **args: Any) -> list[Entry]:
    """Return the lines of a request for ``echo`` and of its answer a second later."""
    request = {"id": number, "command": "echo", "args": args, "timestamp": 1.0}
    answer = {"id": number, "success": True, "result": args, "timestamp": 2.0}
    return [entry("sent", at, payload=request), entry("received", at + 1, payload=answer)]


class Client:
    """The product's side of a conversation."""

    def __init__(self, port: ReplayPort) -> None:
        self.port = port
        self.conversation = ClientConversation(peer="worker w-0")

    async def say(self, **args: Any) -> None:
        """Send a request."""
        _, payload = self.conversation.request("echo", args)
        await self.port.send(payload)

    async def hear(self) -> Any:
        """Return the result of the next answer."""
        message = self.conversation.receive(await self.port.receive())
        assert isinstance(message, Success)
        return message.result


@pytest.mark.trio
async def test_recorded_workers_play_again(autojump_clock: MockClock) -> None:
    """A pool that does today what it did then hears the same from no process at all."""
    ports = ReplayPortFactory(RECORDING)
    assert await talk_to_echo(ports) == [{"n": 1}, "as asked", {"n": 2}, "killed by signal 9", {"n": 3}]
    ports.assert_replayed()


@pytest.mark.trio
async def test_other_request_is_shown_beside_the_recorded_one() -> None:
    """At once where it is sent, and once more at the end with what never came."""
    client = Client(ReplayPort([*exchange(1, x="old"), *exchange(2, x="next")]))
    with pytest.raises(RecordingMovedError, match=r'(?s)expected: .*"x": "old".*came: .*"x": "new"'):
        await client.say(x="new")
    with pytest.raises(RecordingMovedError, match=r'(?s)"new".*never came: .*"old".*never came: .*"next"'):
        client.port.assert_replayed()


@pytest.mark.trio
async def test_request_beyond_the_recording_is_refused() -> None:
    """It is shown too."""
    port = ReplayPort([])
    with pytest.raises(RecordingMovedError, match="expected: nothing more"):
        await Client(port).say(x=1)
    with pytest.raises(RecordingMovedError, match="nothing more"):
        port.assert_replayed()


@pytest.mark.trio
async def test_answers_keep_their_recorded_wait(autojump_clock: MockClock) -> None:
    """In the time of the run, times the pace; by default there is none."""
    for pace, seconds in ((0.0, 0.0), (1.0, 1.0), (3.0, 3.0)):
        client = Client(ReplayPort(exchange(1, at=100.0, x=1), pace=pace))
        began = trio.current_time()
        await client.say(x=1)
        assert await client.hear() == {"x": 1}
        assert trio.current_time() - began == seconds


@pytest.mark.trio
async def test_answers_follow_requests_however_both_are_interleaved() -> None:
    """Who sends earlier or later than then, and under other numbers, gets the answers all the same."""
    first, first_answer, second, second_answer = [*exchange(8, x=1), *exchange(9, x=2)]
    for order in ([first, second, first_answer, second_answer], [first, first_answer, second, second_answer]):
        together = Client(ReplayPort(order))
        await together.say(x=1)
        await together.say(x=2)
        assert [await together.hear(), await together.hear()] == [{"x": 1}, {"x": 2}]
        apart = Client(ReplayPort(order))
        for number in (1, 2):
            await apart.say(x=number)
            assert await apart.hear() == {"x": number}
        apart.port.assert_replayed()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("signal", "status"),
    [("send_eof", ExitStatus(code=0)), ("terminate", ExitStatus(signal=15)), ("kill", ExitStatus(signal=9))],
)
async def test_worker_ends_when_it_must_although_it_did_not_then(signal: str, status: ExitStatus) -> None:
    """A recording that goes on is no reason to hang; what was not asked is told."""
    port = ReplayPort(exchange(1, x=1))
    getattr(port, signal)()
    assert await port.attend() == status
    with pytest.raises(PortClosedError):
        await port.receive()
    with pytest.raises(RecordingMovedError, match="never came"):
        port.assert_replayed()


def ping(number: int, *, success: bool) -> list[Entry]:
    """Return the lines of a health check and of its answer."""
    request = {"id": number, "command": "ping", "args": {"worker_id": "w-0"}, "timestamp": 1.0}
    return [entry("sent", payload=request), entry("received", payload={"id": number, "success": success})]


@pytest.mark.trio
async def test_health_checks_are_answered_whenever_they_come() -> None:
    """How many there were, and when, is no part of the conversation."""
    port = ReplayPort([*ping(1, success=True), *exchange(2, x=1), *ping(3, success=True)])
    for lines in (exchange(1, x=1), ping(2, success=True), ping(3, success=True), ping(4, success=True)):
        await port.send(lines[0].frame())
        answer = json.loads(await port.receive())
        assert (answer["id"], answer["success"]) == (lines[0].request_id, True)
    port.assert_replayed()


@pytest.mark.trio
async def test_health_check_that_failed_fails_again() -> None:
    """The pool ended the worker because of it: that is a part of the conversation."""
    port = ReplayPort([*ping(1, success=True), *ping(2, success=False)])
    with pytest.raises(RecordingMovedError, match=r"never came: .*ping"):
        port.assert_replayed()
    await port.send(ping(8, success=True)[0].frame())
    assert json.loads(await port.receive()) == {"id": 8, "success": False}
    port.assert_replayed()


def test_secrets_are_taken_out_wherever_they_are_repeated() -> None:
    """By the names of their fields, and from then on by their values."""
    redactor = Redactor(frozenset({"pin"}))
    asked = {"args": {"api_key": "sk-4711-0815", "pin": 1234, "api_key_env": "KEY", "note": "total_tokens"}}
    assert redactor.redact(asked) == {
        "args": {"api_key": "[redacted]", "pin": "[redacted]", "api_key_env": "KEY", "note": "total_tokens"}
    }
    assert redactor.redact(["wrong key sk-4711-0815!"]) == ["wrong key [redacted]!"]


def test_secrets_are_known_by_any_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, prefixes, and the variables of the environment by whose names secrets travel."""
    monkeypatch.setenv("LM_KEY", "sk-from-the-environment")
    redactor = Redactor()
    asked = {
        "X-Api-Key": "sk-header",
        "openai_api_key": "sk-prefix",
        "Authorization": "Bearer sk-bearer",
        "api_key_env": "LM_KEY",
        "password": ["sk-nested"],
        "max_tokens": 9,
    }
    kept = {"api_key_env": "LM_KEY", "max_tokens": 9}
    assert redactor.redact(asked) == dict.fromkeys(asked, "[redacted]") | kept
    for key in ("sk-header", "sk-prefix", "sk-bearer", "sk-from-the-environment", "sk-nested"):
        assert redactor.redact(f"wrong key {key}!") == "wrong key [redacted]!"


def test_secrets_are_taken_out_of_what_is_no_json() -> None:
    """A frame of garbage is kept as base64, which hides nothing; JSON too deep to walk through is kept so too."""
    redactor = Redactor()
    redactor.redact({"api_key": "sk-4711-0815"})
    _, raw = redactor.redact_frame(b"Traceback: sk-4711-0815")
    line = entry("sent", raw=raw)
    assert line.shown() == "no JSON: b'Traceback: [redacted]'"
    deep = b"[" * 3000 + b"]" * 3000
    value, raw = redactor.redact_frame(deep)
    assert value is None
    assert entry("sent", raw=raw).frame() == deep


def test_recording_names_its_bad_line(tmp_path: Path) -> None:
    """A file of something else is refused too; a last line that was cut is not there."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(ValueError, match="is no recording"):
        read_recording(path)
    path.write_bytes(header() + entry("opened").line() + b"{}\n")
    with pytest.raises(ValueError, match=r"recording\.jsonl:3 is no line"):
        read_recording(path)
    path.write_bytes(header() + entry("opened").line() + b'{"at": 1.0, "wor')
    assert [one.what for one in read_recording(path)] == ["opened"]


def test_recording_whose_last_line_has_no_end_is_whole(tmp_path: Path) -> None:
    """An editor may leave the end of the line out; what happened last was taken for cut, and left out."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(header() + entry("opened").line() + entry("eof").line().rstrip())
    assert [one.what for one in read_recording(path)] == ["opened", "eof"]
    path.write_bytes(header() + entry("opened").line() + b"{}")
    with pytest.raises(ValueError, match=r"recording\.jsonl:3 is no line"):
        read_recording(path)


def test_recording_may_be_named_by_a_text(tmp_path: Path) -> None:
    """It was an ``AttributeError`` about texts."""
    path = str(tmp_path / "recording.jsonl")
    Recorder(path).close()
    assert_unmoved(path, path)
    ReplayPortFactory(path).assert_replayed()


@pytest.mark.trio
async def test_workers_that_were_not_recorded_are_told_once(tmp_path: Path) -> None:
    """A pool tries again and again, and each try was a line of the failure."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(header())
    ports = ReplayPortFactory(path)
    for incarnation in range(1, 6):
        with pytest.raises(RecordingMovedError, match=f"not recorded: incarnation {incarnation} of w-1"):
            await ports.open(worker_id="w-1", incarnation=incarnation)
    with pytest.raises(RecordingMovedError) as caught:
        ports.assert_replayed()
    assert str(caught.value) == "not recorded: incarnation 1 of w-1, and 4 after it"
