"""The mock server over real descriptors: in a thread, behind a port, and as a program."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError
from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import encode_frame
from dspex_pool.transport.port import ExitStatus
from dspex_testkit.bridge_mock_server import BridgeMockServer, ServerOptions, main
from dspex_testkit.pipe_port import PipePort, PipePortFactory
from dspex_testkit.server_faults import Fault
from dspex_testkit.server_loop import ServerLoop, ServerScript
from dspex_testkit.worker_model import Reactions
from tests.protocol.server_wire import CREATE, EXECUTE, HELLO, Wire, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# --- in a thread ------------------------------------------------------------------------------------


def test_server_answers_the_commands_of_the_bridge() -> None:
    """A program is created, executed and listed over pipes, and the client is found without fault."""
    with BridgeMockServer(canned={"question -> answer": {"answer": "because"}}) as server:
        wire = connect(server)
        assert wire.ask("create_program", CREATE)["status"] == "created"
        assert wire.ask("execute_program", EXECUTE)["outputs"] == {"answer": "because"}
        assert wire.ask("list_programs", {"session_id": "s"})["total_count"] == 1
        assert wire.ask("execute_program", {**EXECUTE, "program_id": "q"}) == "ProgramNotFound"
        assert server.received == [
            "ping",
            "create_program",
            "execute_program",
            "list_programs",
            "execute_program",
        ]
        server.assert_clean()


def test_server_leaves_when_it_is_told_to() -> None:
    """Shutdown is answered, then the stream ends."""
    with BridgeMockServer() as server:
        wire = connect(server)
        assert wire.ask("shutdown")["status"] == "shutting_down"
        with pytest.raises(PortClosedError):
            wire.next_frame()
        assert server.join(5)
        assert server.exit_status == ExitStatus(code=0)


@pytest.mark.parametrize(
    ("way", "status"),
    [("eof", ExitStatus(code=0)), ("terminate", ExitStatus(code=0)), ("kill", ExitStatus(signal=9))],
)
def test_server_ends_in_every_way_while_it_hangs(way: str, status: ExitStatus) -> None:
    """End of stdin, SIGTERM and SIGKILL end a hanging worker."""
    with BridgeMockServer(faults=(Fault("get_stats", "deaf"),)) as server:
        wire = connect(server)
        wire.say("get_stats")
        if way == "eof":
            os.close(wire.requests)
            server.requests = None
        else:
            getattr(server, way)()
        assert server.join(5)
        assert server.exit_status == status
        server.kill()


def test_interrupt_cancels_what_runs() -> None:
    """A hanging command answers ``Cancelled``, and the worker serves on."""
    with BridgeMockServer(faults=(Fault("get_stats", "hang"),)) as server:
        wire = connect(server)
        wire.say("get_stats")
        deadline = time.monotonic() + 5
        while "get_stats" not in server.received and time.monotonic() < deadline:
            time.sleep(0.001)
        server.interrupt()
        assert wire.hear() == "Cancelled"
        assert wire.ask("ping")["status"] == "ok"
        assert server.injected == [(1, "get_stats", "hang")]


class BlindPoll:
    """A poll that overlooks ``hidden``, as the system's does when the signal comes while it looks."""

    def __init__(self, hidden: int) -> None:
        self._poll = select.poll()
        self._hidden = hidden

    def register(self, number: int, events: int) -> None:
        self._poll.register(number, events)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        ready = self._poll.poll(timeout)
        return [found for found in ready if found[0] != self._hidden]


def test_interrupt_means_nothing_to_a_later_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that came before a request was sent never hits that request.

    It did, once in hundreds of times: input and signal were there, but the system's poll told of the input only,
    because the byte for the signal is written when it returns.
    """
    (stdin, requests), (answers, stdout), (signals, interrupts) = os.pipe(), os.pipe(), os.pipe()
    wire = Wire(requests, answers)
    os.write(interrupts, bytes([signal.SIGINT]))
    wire.say("ping", HELLO)
    wire.say("get_stats")
    os.close(requests)
    options = ServerOptions(delays={"get_stats": 0.05}, reactions=Reactions(eof=0.2))
    polls = itertools.chain([BlindPoll(signals)], iter(select.poll, None))
    monkeypatch.setattr(
        "dspex_testkit.server_loop.select", SimpleNamespace(**{**vars(select), "poll": lambda: next(polls)})
    )
    try:
        ServerLoop(
            options,
            ServerScript(options).plan,
            stdin=stdin,
            stdout=stdout,
            signals=signals,
            say=lambda text: None,
        ).run()
        assert wire.hear()["status"] == "ok"
        assert wire.hear() != "Cancelled"
    finally:
        for descriptor in (stdin, answers, stdout, signals, interrupts):
            os.close(descriptor)


def test_violations_are_reported_with_their_rule() -> None:
    """A client that skips the handshake and writes nonsense is told on by name."""
    with BridgeMockServer() as server:
        assert server.requests is not None
        assert server.answers is not None
        wire = Wire(server.requests, server.answers)
        os.write(wire.requests, encode_frame(b"nonsense"))
        assert json.loads(wire.next_frame())["id"] is None
        assert [violation.rule for violation in server.violations] == ["not-json"]
        assert "protocol violation: not-json" in server.stderr
        with pytest.raises(AssertionError, match="not-json"):
            server.assert_clean()


def test_strict_server_ends_at_the_first_violation() -> None:
    """Where a violation must not be overlooked, it ends the worker with status 76."""
    with BridgeMockServer(is_strict=True) as server:
        assert server.requests is not None
        os.write(server.requests, b"GET / HTTP/1.1\r\n\r\n")
        assert server.join(5)
        assert server.exit_status == ExitStatus(code=76)


def test_server_ends_quietly_when_nobody_reads() -> None:
    """A client that closes its reading end does not hear a traceback."""
    with BridgeMockServer() as server:
        wire = connect(server)
        os.close(wire.answers)
        server.answers = None
        wire.say("ping")
        assert server.join(5)
        assert server.exit_status == ExitStatus(code=0)
        assert server.stderr == ""


def test_answer_longer_than_the_pipe_arrives() -> None:
    """An answer of two megabytes is written as fast as it is read, also after the worker's end."""
    with BridgeMockServer(faults=(Fault("execute_program", "duplicate"),)) as server:
        wire = connect(server)
        wire.ask("create_program", CREATE)
        long = {"question": "x" * 2_000_000}
        wire.say("execute_program", {**EXECUTE, "inputs": long})
        wire.decoder.feed(os.read(wire.answers, 1))
        server.terminate()
        assert len(wire.hear()["outputs"]["answer"]) > 2_000_000
        assert len(wire.next_frame()) > 2_000_000


# --- behind a port ----------------------------------------------------------------------------------


async def exchange(
    port: PipePort, conversation: ClientConversation, command: str, args: dict[str, Any]
) -> Any:
    await port.send(conversation.request(command, args)[1])
    return conversation.receive(await port.receive())


@pytest.mark.trio
async def test_port_to_the_server_carries_frames_and_its_end() -> None:
    """Frames both ways, stderr, the bytes that were sent, and the exit status."""
    factory = PipePortFactory(lambda worker_id, _: ServerOptions(worker_id=worker_id))
    port = await factory.open(worker_id="w-9", incarnation=1)
    conversation = ClientConversation(peer="worker w-9")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.attend)
        hello = await exchange(port, conversation, "ping", HELLO)
        assert hello.result["worker_id"] == "w-9"
        assert port.bytes_sent > 0
        assert not port.has_unread()
        goodbye = await exchange(port, conversation, "shutdown", {})
        assert goodbye.result["status"] == "shutting_down"
        with pytest.raises(PortClosedError):
            await port.receive()
    assert await port.attend() == ExitStatus(code=0)
    assert port.has_unread()
    assert port.stderr_tail == ""
    with pytest.raises(PortClosedError):
        await port.send(b"{}")


@pytest.mark.trio
async def test_port_lets_what_was_written_be_read_after_the_end() -> None:
    """The last answer is not lost when the process is reaped before it is read."""
    port = PipePort(BridgeMockServer(faults=(Fault("handshake", "garbage"),)))
    await port.send(ClientConversation(peer="worker").request("ping", HELLO)[1])
    while not port.has_unread():
        await trio.lowlevel.checkpoint()
    port.send_eof()
    assert await port.attend() == ExitStatus(code=0)
    with pytest.raises(RemoteFrameTooLargeError, match="Traceback"):
        await port.receive()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("way", "status"), [("terminate", ExitStatus(code=0)), ("kill", ExitStatus(signal=9))]
)
async def test_port_passes_signals_on(way: str, status: ExitStatus) -> None:
    """Signals reach the worker behind the port; after its end they do nothing."""
    port = PipePort(BridgeMockServer(reactions=Reactions(interrupt=None)))
    port.interrupt()
    getattr(port, way)()
    assert await port.attend() == status
    port.kill()


@pytest.mark.trio
async def test_torn_frame_is_the_last_on_a_port() -> None:
    """A sender that is cancelled in a frame that the pipe cannot take leaves the port unusable."""
    gate = threading.Event()
    canned = {"question -> answer": lambda inputs: {"answer": str(gate.wait(10))}}
    port = PipePort(BridgeMockServer(canned=canned))
    conversation = ClientConversation(peer="worker")
    await exchange(port, conversation, "ping", HELLO)
    await exchange(port, conversation, "create_program", CREATE)
    await port.send(conversation.request("execute_program", EXECUTE)[1])
    with trio.move_on_after(0.05) as scope:
        await port.send(b"x" * 10_000_000)
    assert scope.cancelled_caught
    with pytest.raises(PortClosedError, match="half a frame"):
        await port.send(b"{}")
    gate.set()
    port.kill()
    await port.attend()


# --- as a program -----------------------------------------------------------------------------------


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server as a program with the arguments of the parametrization."""
    arguments = getattr(request, "param", ["--worker-id", "w-5", "--mode", "pool-worker"])
    command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload] # pipes by name
        yield process
        process.kill()


def wire_to(program: subprocess.Popen[bytes]) -> Wire:
    assert program.stdin is not None
    assert program.stdout is not None
    wire = Wire(program.stdin.fileno(), program.stdout.fileno())
    assert wire.ask("ping", HELLO)["status"] == "ok"
    return wire


@pytest.mark.budget(3)
def test_program_is_a_worker_command_like_any_other(program: subprocess.Popen[bytes]) -> None:
    """It serves on stdin and stdout, ignores SIGINT while idle, and leaves at the end of stdin."""
    wire = wire_to(program)
    assert wire.ask("create_program", CREATE)["program_id"] == "p"
    program.send_signal(signal.SIGINT)
    assert wire.ask("execute_program", EXECUTE)["outputs"]["answer"] == "answer: why?"
    output, errors = program.communicate(timeout=10)
    assert (output, errors, program.returncode) == (b"", b"", 0)


@pytest.mark.budget(3)
@pytest.mark.parametrize(
    ("program", "status"),
    [
        (["--fault", "get_stats:kill"], -signal.SIGKILL),
        (["--fault", "get_stats:die"], 1),
        (["--fault", "get_stats:deaf", "--react", "terminate=0.01"], 0),
    ],
    indirect=["program"],
)
def test_program_ends_as_its_faults_order(program: subprocess.Popen[bytes], status: int) -> None:
    """Exit statuses and deadly signals are real ones."""
    wire_to(program).say("get_stats")
    if status == 0:
        program.send_signal(signal.SIGTERM)
    program.communicate(timeout=10)
    assert program.returncode == status


@pytest.mark.budget(3)
def test_program_reports_what_happened(tmp_path: Path) -> None:
    """Violations, faults and commands are written as JSON; canned outputs are read from a file."""
    canned, report = tmp_path / "canned.json", tmp_path / "report.json"
    canned.write_text('{"question -> answer": {"answer": "from the file"}}', encoding="utf-8")
    command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server", "--canned", str(canned)]
    command += ["--report", str(report), "--delay", "ping=30", "--fault", "ping:fail", "--protocol", "1"]
    requests = ClientConversation(peer="worker")
    stream = b"".join(
        encode_frame(requests.request(name, args)[1])
        for name, args in (
            ("ping", HELLO),
            ("create_program", CREATE),
            ("execute_program", EXECUTE),
            ("ping", {}),
        )
    )
    ended = subprocess.run(
        command, input=stream + b"\0\0\0\x05x", capture_output=True, check=False, timeout=10
    )
    assert b"from the file" in ended.stdout
    assert b"a fault was ordered" not in ended.stdout  # the end of stdin came before the delay was over
    assert json.loads(report.read_text(encoding="utf-8")) == {
        "violations": [
            "torn-frame: the stream ends after 5 bytes of a frame (first bytes b'\\x00\\x00\\x00\\x05x')"
        ],
        "faults": [[3, "ping", "fail"]],
        "received": ["ping", "create_program", "execute_program", "ping"],
        "not_met": [],
        "not_expected": [],
    }
    assert b"protocol violation: torn-frame" in ended.stderr
    assert ended.returncode == 0


@pytest.mark.budget(3)
@pytest.mark.parametrize(
    ("arguments", "word"), [(["--fault", "x:explode"], b"explode"), (["--react", "laugh=1"], b"laugh")]
)
def test_program_refuses_unknown_faults_and_reactions(arguments: list[str], word: bytes) -> None:
    """Wrong options end with a usage error that names them."""
    command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server", *arguments]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=10)
    assert ended.returncode == 2
    assert word in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (["--canned", "none.json"], "", "--canned: none.json: No such file or directory"),
        (["--canned", "."], "", "--canned: .: Is a directory"),
        (["--canned", "{file}"], "", "--canned: {file}: it is no JSON"),
        (
            ["--canned", "{file}"],
            "[]",
            "--canned: {file}: it must hold an object of outputs by signature",
        ),
        (["--expect", "{file}"], "[" * 100_000, "--expect: {file}: it is no JSON"),
        (
            ["--expect", "{file}"],
            "[{}]",
            "--expect: {file}: it must hold a list of {{command, args, result}}",
        ),
        (
            ["--max-frame-bytes", "0"],
            "",
            "--max-frame-bytes: '0' is no number of bytes from 1 to 4294967295",
        ),
        (["--max-frame-bytes", "many"], "", "--max-frame-bytes: 'many' is no number of bytes from 1"),
        (["--expect", "{file}"], '[{"command": 5}]', "--expect: {file}: it must hold a list"),
        (
            ["--expect", "{file}"],
            '[{"command": "a"}, {"command": "b", "args": 5}]',
            "--expect: {file}: it must hold a list of {{command, args, result}}; number 2 has args that",
        ),
        (
            ["--expect", "{file}"],
            '[{"command": "a", "reslt": 5}]',
            "--expect: {file}: it must hold a list of {{command, args, result}}; number 1 has a 'reslt'",
        ),
        (
            ["--canned", "{file}"],
            '{"q -> a": 5}',
            "--canned: {file}: the outputs of 'q -> a' must be an object",
        ),
        (["--report", ""], "", "--report: it is an empty text"),
        (["--report", "."], "", "--report: cannot write .: Is a directory"),
        (
            ["--report", "/nowhere/r.json"],
            "",
            "--report: cannot write /nowhere/r.json: there is no folder /nowhere",
        ),
        (["--delay", "=1"], "", "--delay: '=1' is not COMMAND=SECONDS"),
        (
            ["--fault", "ping:die:2"],
            "",
            "--fault: 'ping:die:2' has the probability '2', but it must be from 0 to 1",
        ),
        (
            ["--fault", "ping:die:x"],
            "",
            "--fault: 'ping:die:x' has the probability 'x', but it must be from 0 to 1",
        ),
        (
            ["--react", "never"],
            "",
            "--react: 'never' is not HOW=SECONDS: no reaction to 'never', only to interrupt",
        ),
        (["--react", "eof=soon"], "", "--react: 'eof=soon' is no time: HOW=SECONDS, or HOW=never"),
        (["--react", "eof=nan"], "", "--react: 'eof=nan' is no time"),
        (["--react", "eof=-1"], "", "--react: 'eof=-1' is no time"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_program_names_what_it_cannot_read(
    arguments: list[str], text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback out of a worker, or was taken and went wrong later."""
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main([argument.format(file=file) for argument in arguments])
    assert f"error: argument {said.format(file=file)}" in capsys.readouterr().err


@pytest.mark.budget(3)
def test_program_names_the_report_that_it_cannot_write() -> None:
    """It was a traceback; the status tells a test that there is no report."""
    command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server", "--report", "/dev/full"]
    ended = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=10)
    assert ended.stderr == b"bridge_mock_server: cannot write /dev/full: No space left on device\n"
    assert ended.returncode == 1


@pytest.mark.budget(3)
@pytest.mark.parametrize("closed", ["<&-", ">&- </dev/null"])
def test_program_needs_its_stdin_and_stdout(closed: str) -> None:
    """Where they are closed, its own pipe took their numbers: it waited for ever, or ended in a traceback."""
    command = f"exec {sys.executable} -m dspex_testkit.bridge_mock_server {closed}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, check=False, timeout=10)
    assert ended.stderr.startswith(
        b"bridge_mock_server: stdin and stdout carry the protocol, but are not open"
    )
    assert ended.returncode == 2


@pytest.mark.budget(3)
def test_program_that_cannot_answer_says_so(tmp_path: Path) -> None:
    """A full disk behind its stdout was a traceback, and the report of what had come was lost."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server", "--report", str(report)]
    hello = encode_frame(ClientConversation(peer="worker").request("ping", HELLO)[1])
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - of subprocess
        ended = subprocess.run(
            command, input=hello, stdout=full, stderr=subprocess.PIPE, check=False, timeout=10
        )
    assert ended.stderr == b"nothing can be answered any more: No space left on device\n"
    assert ended.returncode == 1
    assert json.loads(report.read_text(encoding="utf-8"))["received"] == ["ping"]
