"""Recording changes nothing: the contract of all ports while it is recorded, and again from what was recorded."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import WorkerStartError
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.bridge_mock_server import BridgeMockServer
from dspex_testkit.contracts.port import PortContract
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.pipe_port import PipePort
from dspex_testkit.recordings.compare import assert_unmoved, compare
from dspex_testkit.recordings.entries import read_recording
from dspex_testkit.recordings.recorder import Recorder, RecordingPort, RecordingPortFactory
from dspex_testkit.recordings.replay import RecordingMovedError, ReplayPort, ReplayPortFactory
from tests.protocol.test_port_contract import ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.transport.port import Port, PortFactory
    from dspex_testkit.server_faults import Fault

pytestmark = pytest.mark.protocol

PROMISES = sorted(name for name in vars(PortContract) if name.startswith("test_"))


class Recorded(PortContract):
    """The contract on the mock server, recorded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a port to a server in a thread, and record it."""
        server = BridgeMockServer(faults=faults, max_frame_bytes=max_frame_bytes)
        with Recorder(self.path) as recorder:
            async with ended(RecordingPort(PipePort(server), recorder)) as port:
                yield port


class Replayed(PortContract):
    """The contract on a recording of itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open the recorded port."""
        port = ReplayPort(read_recording(self.path), max_frame_bytes=max_frame_bytes)
        async with ended(port):
            yield port
        port.assert_replayed()


@pytest.mark.trio
@pytest.mark.budget(2)
@pytest.mark.parametrize("promise", PROMISES)
async def test_contract_holds_while_it_is_recorded_and_from_the_recording(
    promise: str, tmp_path: Path
) -> None:
    """Nobody can tell a recorded port from the port itself, nor its recording from either."""
    path = tmp_path / "recording.jsonl"
    await getattr(Recorded(path), promise)()
    await getattr(Replayed(path), promise)()


# --- what is written ---------------------------------------------------------------------------------------


def asked(command: str, **args: Any) -> tuple[str, dict[str, Any]]:
    """Return a request."""
    return command, args


async def recorded(path: Path, *requests: tuple[str, dict[str, Any]], answers: dict[str, Any]) -> Path:
    """Record a conversation with a worker that gives these answers."""

    def behaviour(port: MockPort) -> None:
        for command, answer in answers.items():
            port.answer(command, answer)

    with Recorder(path) as recorder:
        port = await RecordingPortFactory(MockPortFactory(behaviour), recorder).open(
            worker_id="w-1", incarnation=1
        )
        for number, (command, args) in enumerate(requests, start=1):
            request = {"id": number, "command": command, "args": args, "timestamp": str(number)}
            await port.send(json.dumps(request).encode())
            await port.receive()
        port.kill()
        await port.attend()
    return path


@pytest.mark.trio
async def test_recording_holds_no_secret_and_replays_with_another(tmp_path: Path) -> None:
    """Not in the request, nor where an answer repeats it; a test with another key gets the same answers."""
    key = "sk-4711-do-not-tell"
    answers = {"configure_lm": {"note": f"{key} is wrong"}}
    path = await recorded(tmp_path / "a", asked("configure_lm", model="m", api_key=key), answers=answers)
    assert key not in path.read_text()
    port = await ReplayPortFactory(path).open(worker_id="w-1", incarnation=1)
    other = {
        "id": 1,
        "command": "configure_lm",
        "args": {"model": "m", "api_key": "sk-other"},
        "timestamp": "9",
    }
    await port.send(json.dumps(other).encode())
    assert json.loads(await port.receive())["result"] == {"note": "[redacted] is wrong"}


@pytest.mark.trio
async def test_comparison_says_where_reality_has_moved(tmp_path: Path) -> None:
    """Answers by their place, requests that came and went; times and numbers of requests are nothing."""
    first, second, third = asked("echo", id=1), asked("echo", id=2), asked("ask")
    old_answers = {
        "echo": lambda args: args,
        "ask": {"outputs": {"answer": "Rome"}, "uptime": 1, "tags": ["a", "b"]},
    }
    new_answers = {
        "echo": lambda args: args,
        "ask": {"outputs": {"answer": "Paris"}, "uptime": 2, "tags": ["a", True]},
    }
    old = await recorded(tmp_path / "old", first, second, third, answers=old_answers)
    new = await recorded(tmp_path / "new", second, third, first, answers=new_answers)
    assert compare(old, old) == []
    found = [(one.where, one.old, one.new) for one in compare(old, new)]
    worker = "w-1 (incarnation 1)"
    request = '{"id": %d, "command": "echo", "args": {"id": 1}, "timestamp": "%d"}'
    assert found == [
        (f"{worker}, requests", request % (1, 1), "no request"),
        (f"{worker}, ask, answer.result.outputs.answer", '"Rome"', '"Paris"'),
        (f"{worker}, ask, answer.result.tags[1]", '"b"', "true"),
        (f"{worker}, requests", "no request", request % (3, 3)),
    ]
    with pytest.raises(RecordingMovedError, match=r'moved in 4 places(?s:.*)was: "Rome"\n  is:  "Paris"'):
        assert_unmoved(old, new)


@pytest.mark.trio
async def test_replayed_workers_are_those_that_were_recorded(tmp_path: Path) -> None:
    """One that was not is refused; one that is not opened is told."""
    path = await recorded(tmp_path / "a", answers={})
    ports = ReplayPortFactory(path)
    with pytest.raises(RecordingMovedError, match="not recorded: incarnation 2 of w-1"):
        await ports.open(worker_id="w-1", incarnation=2)
    with pytest.raises(
        RecordingMovedError, match=r"(?s)incarnation 2 of w-1.*never opened: incarnation 1 of w-1"
    ):
        ports.assert_replayed()


@pytest.mark.trio
async def test_two_pools_in_turn_are_one_recording(tmp_path: Path) -> None:
    """Their workers have the same names; each is played, and compared, for itself."""
    workers = MockPortFactory(lambda port: port.answer("echo", lambda args: args))
    paths = tmp_path / "old", tmp_path / "new"
    for path, numbers in zip(paths, ((1, 2), (1, 3)), strict=True):
        with Recorder(path) as recorder:
            ports = RecordingPortFactory(workers, recorder)
            assert [await echoed(ports, n) for n in numbers] == list(numbers)
    played = ReplayPortFactory(paths[0])
    assert [await echoed(played, n) for n in (1, 2)] == [1, 2]
    played.assert_replayed()
    with pytest.raises(RecordingMovedError, match="not recorded"):
        await played.open(worker_id="w-1", incarnation=1)
    assert {one.where for one in compare(*paths)} == {"w-1 (incarnation 1, opened again 1), requests"}


async def echoed(ports: PortFactory, n: int) -> int:
    """Ask a worker of its own for the number, and end it."""
    port = await ports.open(worker_id="w-1", incarnation=1)
    request = {"id": 1, "command": "echo", "args": {"n": n}, "timestamp": "1"}
    await port.send(json.dumps(request).encode())
    answer = json.loads(await port.receive())
    port.kill()
    await port.attend()
    return int(answer["result"]["n"])


@pytest.mark.trio
async def test_request_that_a_dead_worker_never_read_is_unread_again(tmp_path: Path) -> None:
    """So the pool says again that the request may be repeated, although its stamps are longer today."""

    async def die(ports: PortFactory, stamp: str) -> int | None:
        port = await ports.open(worker_id="w-1", incarnation=1)
        await port.send(json.dumps({"id": 1, "command": "echo", "args": {}, "timestamp": stamp}).encode())
        port.kill()
        await port.attend()
        return (port.bytes_unread or 0) - port.bytes_sent

    path = tmp_path / "recording"
    with Recorder(path) as recorder:
        workers = RecordingPortFactory(MockPortFactory(lambda port: port.stop_reading()), recorder)
        assert await die(workers, "short") == 0
    assert await die(ReplayPortFactory(path), "longer than it was") == 0


@pytest.mark.trio
async def test_torn_frame_is_torn_again(tmp_path: Path) -> None:
    """A worker that took a part of a frame takes as much again, and no more, until its caller gives up."""
    path = tmp_path / "recording"
    request = json.dumps({"id": 1, "command": "echo", "args": {"text": "x" * 10_000}}).encode()

    async def tear(port: Port) -> int:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.send, request)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        port.kill()
        await port.attend()
        return port.bytes_sent

    with Recorder(path) as recorder:
        inner = MockPort()
        inner.accept_only(1000)
        assert await tear(RecordingPort(inner, recorder)) == 1000
    port = ReplayPort(read_recording(path))
    assert await tear(port) == 1000
    port.assert_replayed()


@pytest.mark.trio
async def test_failed_start_is_played_once(tmp_path: Path) -> None:
    """Who tries again gets the worker that was got then; a comparison tells a start that failed."""
    path, other = tmp_path / "recording", tmp_path / "other"
    inner = FailingOnce()
    with Recorder(path) as recorder:
        ports = RecordingPortFactory(inner, recorder)
        with pytest.raises(WorkerStartError, match="no room"):
            await ports.open(worker_id="w-1", incarnation=1)
        assert await echoed(ports, 1) == 1
    played = ReplayPortFactory(path)
    with pytest.raises(WorkerStartError, match="no room"):
        await played.open(worker_id="w-1", incarnation=1)
    assert await echoed(played, 1) == 1
    played.assert_replayed()
    with Recorder(other) as recorder:
        await echoed(RecordingPortFactory(inner, recorder), 1)
    found = {one.where: (one.old, one.new) for one in compare(path, other)}
    assert found["w-1 (incarnation 1), start"] == ('"no room"', '"started"')


class FailingOnce:
    """Starts workers that echo, but for the first."""

    def __init__(self) -> None:
        self._workers = MockPortFactory(lambda port: port.answer("echo", lambda args: args))
        self._has_failed = False

    async def open(self, *, worker_id: str, incarnation: int) -> Port:
        """Start a worker, or fail."""
        if not self._has_failed:
            self._has_failed = True
            raise WorkerStartError("no room", worker_id=worker_id)
        return await self._workers.open(worker_id=worker_id, incarnation=incarnation)


@pytest.mark.trio
async def test_worker_outlives_its_recorder_and_is_ended_all_the_same(tmp_path: Path) -> None:
    """Of what happens after the recorder is closed nothing is written, and everything passes on."""
    inner = MockPort()
    with Recorder(tmp_path / "recording") as recorder:
        port = RecordingPort(inner, recorder)
    port.kill()
    assert await port.attend() == ExitStatus(signal=9)


@pytest.mark.trio
async def test_full_disk_leaves_no_worker_behind() -> None:
    """It is an error, but signals get through all the same, and a worker without an owner is ended."""
    inner = MockPortFactory()
    with contextlib.closing(FullRecorder()) as full:
        with pytest.raises(OSError, match="No space"):
            await RecordingPortFactory(inner, full).open(worker_id="w-1", incarnation=1)
        assert inner.ports[0].exit_status == ExitStatus(signal=9)
        full.is_full = False
        port = await RecordingPortFactory(inner, full).open(worker_id="w-1", incarnation=2)
        full.is_full = True
        with pytest.raises(OSError, match="No space"):
            port.kill()
        assert await inner.ports[1].attend() == ExitStatus(signal=9)


class FullRecorder(Recorder):
    """A recorder on a disk that is full, on and off."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))
        self.is_full = True

    def write(self, key: tuple[str, int], what: Any, **fields: Any) -> None:
        """Fail while the disk is full."""
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(key, what, **fields)


def test_recording_that_cannot_be_written_is_named() -> None:
    """On a full disk the error said that no space was left, but not where, and the file stayed open."""
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        Recorder(Path("/dev/full"))
