"""Every knob of the mock server acts, and none can be added without a test that it does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.errors import DspexPoolError, PortClosedError
from dspex_pool.protocol.messages import Failure, Success
from dspex_testkit import bridge_mock_server
from dspex_testkit.bridge_mock_server import BridgeMockServer, ServerOptions
from dspex_testkit.plan import Plan
from dspex_testkit.script import ScriptNotDrainedError
from dspex_testkit.server_faults import FAULT_KINDS, Fault
from dspex_testkit.worker_model import Reactions
from tests.cases import case
from tests.protocol.server_wire import CREATE, EXECUTE, HELLO, Wire, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.protocol

#: Seconds within which a server that says nothing is taken to be silent.
SILENCE = 0.06


def answered(wire: Wire) -> list[str]:
    """Return what the server says until it is silent: ``answer``, types of failures, errors of the client."""
    while select.select([wire.answers], [], [], SILENCE)[0]:
        data = os.read(wire.answers, 1 << 16)
        wire.decoder.feed(data) if data else wire.decoder.feed_eof()
        if not data:
            break
    said: list[str] = []
    try:
        while (payload := wire.decoder.next_frame()) is not None:
            message = wire.conversation.receive(payload)
            said.append("answer" if isinstance(message, Success) else type_of(message))
    except DspexPoolError as error:
        said.append(type(error).__name__)
    return said


def type_of(message: object) -> str:
    """Return the type of a failure."""
    assert isinstance(message, Failure)
    assert message.error_info is not None
    return message.error_info.type


# --- the settings -------------------------------------------------------------------------------------------


def mode(value: str) -> Any:
    """Whether a command without a session is refused."""
    with BridgeMockServer(mode=value) as server:
        return connect(server).ask("list_programs") == "InvalidArgument"


def worker_id(value: str) -> Any:
    """The name in the handshake."""
    with BridgeMockServer(worker_id=value) as server:
        return connect(server).ask("ping")["worker_id"]


def version(value: int) -> Any:
    """Whether the handshake speaks of version 2."""
    with BridgeMockServer(version=value) as server:
        return "protocol" in connect(server).ask("ping", {"protocol": 2})


def canned(value: Any) -> Any:
    """What a program answers."""
    with BridgeMockServer(canned=value) as server:
        wire = connect(server)
        wire.ask("create_program", CREATE)
        return wire.ask("execute_program", EXECUTE)["outputs"]["answer"]


def commands(value: Any) -> Any:
    """Whether a further command is served."""
    with BridgeMockServer(commands=value) as server:
        return connect(server).ask("greet")


def delays(value: Any) -> Any:
    """Whether an answer takes long."""
    with BridgeMockServer(delays=value) as server:
        wire = connect(server)
        began = time.monotonic()
        wire.ask("get_stats")
        return time.monotonic() - began >= 0.05


def faults(value: Any) -> Any:
    """Whether something goes wrong, and is noted."""
    with BridgeMockServer(faults=value) as server:
        return connect(server).ask("get_stats") == "InjectedError", len(server.injected)


def seed(value: int) -> Any:
    """Which of sixteen commands are hit by a fault of probability a half."""
    with BridgeMockServer(seed=value, faults=(Fault("get_stats", "fail", 0.5),)) as server:
        wire = connect(server)
        return [wire.ask("get_stats") == "InjectedError" for _ in range(16)]


def reactions(value: Reactions) -> Any:
    """Whether the end of stdin ends the worker."""
    with BridgeMockServer(reactions=value) as server:
        os.close(connect(server).requests)
        server.requests = None
        return server.join(SILENCE)


def max_frame_bytes(value: int) -> Any:
    """Whether a long command is refused."""
    with BridgeMockServer(max_frame_bytes=value) as server:
        wire = connect(server)
        wire.say("get_stats", {"pad": "x" * 2000})
        return answered(wire)


def is_strict(value: bool) -> Any:
    """Whether a violation ends the worker."""
    with BridgeMockServer(is_strict=value) as server:
        wire = connect(server)
        os.write(wire.requests, b"\0\0\0\2[]")
        server.join(SILENCE)
        return server.exit_status, len(server.violations)


def wire(value: str) -> Any:
    """Of what kind the descriptors are; the bridge is served on them, and the end of one direction is seen."""
    with BridgeMockServer(wire=value) as server:
        client = connect(server)
        assert client.ask("create_program", CREATE)["status"] == "created"
        is_socket = stat.S_ISSOCK(os.fstat(client.requests).st_mode)
        os.close(client.requests)
        server.requests = None
        assert server.join(5)
        return is_socket


def is_scripted_only(value: bool) -> Any:
    """Whether a command of the bridge that nobody expected is refused."""
    with BridgeMockServer(is_scripted_only=value) as server:
        return connect(server).ask("get_stats") == "UnexpectedRequest"


#: For each setting: what shows that it acts, and two values that must show differently.
SETTINGS: dict[Callable[[Any], Any], tuple[Any, Any]] = {
    mode: ("standalone", "pool-worker"),
    worker_id: ("w-1", "w-2"),
    version: (1, 2),
    canned: ({}, {"question -> answer": {"answer": "because"}}),
    commands: ({}, {"greet": lambda args: "hello"}),
    delays: ({}, {"get_stats": 0.05}),
    faults: ((), (Fault("get_stats", "fail"),)),
    seed: (1, 2),
    reactions: (Reactions(), Reactions(eof=None)),
    max_frame_bytes: (1000, 10_000),
    is_strict: (False, True),
    wire: ("pipes", "sockets"),
    is_scripted_only: (False, True),
}


@pytest.mark.parametrize("knob", SETTINGS, ids=lambda knob: knob.__name__)
def test_setting_acts(knob: Callable[[Any], Any]) -> None:
    """Another value shows, and the same value shows the same."""
    one, other = SETTINGS[knob]
    assert knob(one) == knob(one) != knob(other)


# --- reactions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["interrupt", "eof", "terminate", "kill"])
def test_reaction_acts(how: str) -> None:
    """A worker that takes long to react has not reacted soon."""
    seen = []
    for seconds in (0.0, 5.0):
        slow = Reactions(**{how: seconds})
        with BridgeMockServer(reactions=slow, faults=(Fault("get_stats", "hang"),)) as server:
            client = connect(server)
            client.say("get_stats")
            while "get_stats" not in server.received:
                time.sleep(0.001)
            if how == "eof":
                os.close(client.requests)
                server.requests = None
            else:
                getattr(server, how)()
            seen.append(bool(select.select([client.answers], [], [], SILENCE)[0]))
            # What takes five seconds to be killed must not hold the test up.
            slow.kill = 0.0
    assert seen == [True, False]


# --- faults -------------------------------------------------------------------------------------------------

#: What is heard of each fault, then after an interrupt and a ping; and how the worker has ended.
SHOWS: dict[str, tuple[list[str], list[str], Any]] = {
    "fail": (["InjectedError"], ["answer"], None),
    "hang": ([], ["Cancelled", "answer"], None),
    "deaf": ([], [], None),
    "silent": ([], ["answer"], None),
    "die": (["PortClosedError"], [], 1),
    "kill": (["PortClosedError"], [], -9),
    "garbage": (["RemoteFrameTooLargeError"], [], None),
    "oversize": (["RemoteFrameTooLargeError"], [], None),
    "partial": ([], [], None),
    "cut": (["PortClosedError"], [], 1),
    "duplicate": (["answer", "RemoteProtocolError"], [], None),
    "wrong-id": (["RemoteProtocolError"], [], None),
}


@pytest.mark.parametrize("kind", SHOWS)
def test_fault_acts(kind: str) -> None:
    """Each kind shows in its own way, once for the command that it is meant for, and is noted."""
    first, second, ended = SHOWS[kind]
    with BridgeMockServer(faults=(Fault("get_stats", kind),)) as server:
        client = connect(server)
        client.say("get_stats")
        assert answered(client) == first
        assert server.injected == [(1, "get_stats", kind)]
        if ended is not None:
            server.join(5)
            assert server.exit_status is not None
            assert ended in (server.exit_status.code, -(server.exit_status.signal or 0))
        elif not first or first == ["InjectedError"]:
            server.interrupt()
            time.sleep(0.01)
            client.say("ping")
            assert answered(client) == second


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_probability_acts(share: float) -> None:
    """A fault hits the share of commands that it is to hit, the same ones by the same seed."""
    with BridgeMockServer(seed=3, faults=(Fault("get_stats", "fail", share),)) as server:
        client = connect(server)
        hits = sum(client.ask("get_stats") == "InjectedError" for _ in range(200))
    assert hits == len(server.injected)
    assert abs(hits / 200 - share) < 0.1


# --- the script ---------------------------------------------------------------------------------------------


def test_expectations_are_met_in_order_and_must_be_drained() -> None:
    """What is expected comes first and once; what never came is told."""
    with BridgeMockServer() as server:
        server.expect("get_stats").reply({"mine": 1})
        server.expect("execute_program", {"program_id": "p"}).fail("no", type="Refused")
        client = connect(server)
        assert client.ask("get_stats") == {"mine": 1}
        assert "command_count" in client.ask("get_stats")
        with pytest.raises(ScriptNotDrainedError, match="never came: execute_program"):
            server.assert_drained()
        assert client.ask("execute_program", EXECUTE) == "Refused"
        server.assert_drained()


def test_unexpected_command_is_told_with_what_was_expected() -> None:
    """The refusal, and the drain check, show what came beside what was expected."""
    with BridgeMockServer(is_scripted_only=True) as server:
        server.expect("echo", {"a": 1}).reply("one")
        server.answer("tell", Plan().reply("told"))
        client = connect(server)
        assert client.ask("tell") == "told"
        assert client.ask("echo", {"a": 2}) == "UnexpectedRequest"
        with pytest.raises(ScriptNotDrainedError, match=r"(?s)echo with at least .*came, not expected"):
            server.assert_drained()


# --- the program --------------------------------------------------------------------------------------------

#: For each flag: its words, and the setting that it changes; ``None`` where it is none of the server's settings.
FLAGS: dict[str, tuple[list[str], str | None]] = {
    "--mode": (["--mode", "pool-worker"], "mode"),
    "--worker-id": (["--worker-id", "w-9"], "worker_id"),
    "--protocol": (["--protocol", "1"], "version"),
    "--max-frame-bytes": (["--max-frame-bytes", "999"], "max_frame_bytes"),
    "--canned": (["--canned", "FILE"], "canned"),
    "--delay": (["--delay", "ping=0.5"], "delays"),
    "--react": (["--react", "eof=never"], "reactions"),
    "--fault": (["--fault", "ping:die:0.5"], "faults"),
    "--seed": (["--seed", "7"], "seed"),
    "--strict": (["--strict"], "is_strict"),
    "--only-expected": (["--only-expected"], "is_scripted_only"),
    "--report": (["--report", "FILE"], None),
    "--expect": (["--expect", "FILE"], None),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_changes_its_setting_and_no_other(flag: str, tmp_path: Path) -> None:
    """What the command line says reaches the settings, each of which acts."""
    content = [{"command": "ping"}] if flag == "--expect" else {"a -> b": {"b": "x"}}
    (tmp_path / "file.json").write_text(json.dumps(content))
    words, setting = FLAGS[flag]
    plain = bridge_mock_server._parse([])
    order = bridge_mock_server._parse(
        [str(tmp_path / "file.json") if word == "FILE" else word for word in words]
    )
    changed = [
        field.name
        for field in dataclasses.fields(ServerOptions)
        if getattr(order.options, field.name) != getattr(plain.options, field.name)
    ]
    assert changed == ([setting] if setting else [])
    if setting is None:
        assert (order.report, order.expectations) != (plain.report, plain.expectations)


def test_program_reports_what_was_expected_and_never_came(tmp_path: Path) -> None:
    """A script on the command line is answered in order; the report names what is left, and what was refused."""

    script, report = tmp_path / "script.json", tmp_path / "report.json"
    script.write_text(json.dumps([{"command": "ask", "result": 42}, {"command": "more", "args": {"n": 1}}]))
    words = ["--expect", str(script), "--only-expected", "--report", str(report)]
    with program(words) as client:
        client.ask("ping", HELLO)
        assert client.ask("ask") == 42
        assert client.ask("other") == "UnexpectedRequest"
    told = json.loads(report.read_text())
    assert (told["not_met"], told["not_expected"]) == (["more with at least {'n': 1}"], ["other"])
    assert told["violations"] == []


@contextlib.contextmanager
def program(words: list[str]) -> Iterator[Wire]:
    """Start the program, and give a client of it; when the block is left its stdin ends, and it with it."""
    command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Wire(process.stdin.fileno(), process.stdout.fileno())
        process.stdin.close()
        process.wait(10)


# --- no knob without a test ------------------------------------------------------------------------------------


def test_no_knob_is_without_a_test() -> None:
    """Settings, reactions, kinds of faults and flags are those that the tables above hold."""
    assert {field.name for field in dataclasses.fields(ServerOptions)} == {knob.__name__ for knob in SETTINGS}
    assert {field.name for field in dataclasses.fields(Reactions)} == {
        "interrupt",
        "eof",
        "terminate",
        "kill",
    }
    assert set(FAULT_KINDS) == set(SHOWS)
    flags = {
        word
        for action in bridge_mock_server._parser()._actions
        for word in action.option_strings
        if word[:2] == "--"
    }
    assert flags - {"--help"} == set(FLAGS)


def test_torn_connection_is_seen_by_the_client() -> None:
    """A killed server is the end of the stream, on sockets too."""
    with BridgeMockServer(wire="sockets") as server:
        client = connect(server)
        server.kill()
        with pytest.raises((PortClosedError, ConnectionResetError)):
            client.next_frame()


def test_delay_that_is_no_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """``never``, which a reaction may be, was read as no delay, and of ``inf`` the server died at its first sleep."""
    for text in ("ping=never", "ping=-1", "ping=nan", "ping", "ping=inf", "ping=1e300"):
        with case(text):
            with pytest.raises(SystemExit) as left:
                bridge_mock_server._parse(["--delay", text])
            assert left.value.code == 2
            assert text in capsys.readouterr().err
