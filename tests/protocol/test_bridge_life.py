"""How the bridge's process lives and ends: pipes, signals, sessions, children, stray output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.protocol import encode_frame
from tests.bounded_waits import wait_until
from tests.bridge_process import ECHO, BridgeProcess, is_gone, running_bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.protocol

# One second is promised; the rest is for test machines that do other things at the same time.
# A bridge that is measured writes its figures before it leaves, beside a thread that computes under a tracer.
SOON = 4.0 if "coverage" not in sys.modules else 20.0

# A command that is busy in one way or another, and stays so longer than any test waits.
BUSY = [
    pytest.param("sleep", {"seconds": 600}, id="sleeping"),
    pytest.param("spin", {"seconds": 600}, id="computing"),
    pytest.param("sleep_in_c", {"seconds": 600}, id="in-c"),
    pytest.param("hang_in_c", {}, id="hanging-in-c"),
]


@pytest.fixture(scope="module")
def shared() -> Iterator[BridgeProcess]:
    """A bridge that tests may use if they leave it alive."""
    with running_bridge(is_measured=False) as bridge:
        yield bridge


@pytest.fixture
def bridge(shared: BridgeProcess) -> Iterator[BridgeProcess]:
    """The shared bridge, which still serves afterwards."""
    shared.events.clear()
    yield shared
    assert shared.ask("echo", still="here") == {"still": "here"}


def begin(bridge: BridgeProcess, command: str, args: dict[str, Any]) -> int:
    """Send a command behind one that announces that the bridge has got that far."""
    bridge.send("emit", {"event": "progress", "data": {}})
    request_id = bridge.send(command, args)
    bridge.announced()
    assert bridge.answer()["success"]
    return request_id


# --- the end -----------------------------------------------------------------------------------------------


def test_end_of_stdin_ends_an_idle_bridge_with_0() -> None:
    """The client left, so the worker leaves (R41, R42)."""
    with running_bridge() as bridge:
        began = time.monotonic()
        bridge.close_stdin()
        assert bridge.wait() == 0
        assert time.monotonic() - began < SOON
        assert bridge.stderr() == ""


def test_end_of_stdin_ends_a_standalone_bridge_too() -> None:
    """In every mode."""
    with running_bridge("--mode", "standalone") as bridge:
        bridge.close_stdin()
        assert bridge.wait() == 0


@pytest.mark.parametrize(("command", "args"), BUSY)
def test_end_of_stdin_ends_a_busy_bridge_with_0(command: str, args: dict[str, Any]) -> None:
    """Whatever the main thread is doing, the reader sees the end at once."""
    with running_bridge() as bridge:
        begin(bridge, command, args)
        began = time.monotonic()
        bridge.close_stdin()
        assert bridge.wait() == 0
        assert time.monotonic() - began < SOON


def test_end_of_stdin_behind_requests_that_wait_ends_the_bridge() -> None:
    """Nobody waits for their answers any more, however many they are."""
    with running_bridge() as bridge:
        begin(bridge, "hang_in_c", {})
        for _ in range(100):
            bridge.send("echo")
        bridge.close_stdin()
        assert bridge.wait() == 0


def test_end_of_stdin_inside_a_frame_says_what_is_missing() -> None:
    """A torn frame is told on stderr; the end is an end all the same."""
    with running_bridge() as bridge:
        bridge.send_bytes(encode_frame(b"x" * 100)[:-30])
        bridge.close_stdin()
        assert bridge.wait() == 0
        assert "30 of 104 bytes are missing" in bridge.stderr()


@pytest.mark.parametrize(("command", "args"), [pytest.param("echo", {}, id="idle"), *BUSY])
def test_sigterm_ends_the_bridge_with_0(command: str, args: dict[str, Any]) -> None:
    """Within a second, also where no Python code gets to run (R45)."""
    with running_bridge() as bridge:
        begin(bridge, command, args)
        began = time.monotonic()
        bridge.process.terminate()
        assert bridge.wait() == 0
        assert time.monotonic() - began < SOON
        assert "Traceback" not in bridge.stderr()


def test_bytes_that_are_no_frame_end_the_bridge_with_65() -> None:
    """A stray print into the pipe is recognised by its length, and shown."""
    with running_bridge() as bridge:
        begin(bridge, "hang_in_c", {})
        bridge.send_bytes(b"Traceback (most recent call last):\n")
        assert bridge.wait() == 65
        assert "Traceback (most" in bridge.stderr()
        assert "1416782179 bytes" in bridge.stderr()


def test_bridge_whose_stderr_nobody_reads_still_ends() -> None:
    """Last words are said to whoever listens; nobody is waited for."""
    words = [sys.executable, "-m", "dspex_pool.bridge", "--handler", ECHO]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        flood = b'{"id": 0, "command": "flood_stderr", "args": {"bytes": 1000000}, "timestamp": ""}'
        process.stdin.write(encode_frame(flood))
        process.stdin.flush()
        assert process.stderr is not None
        wait_until(lambda: unread(process.stderr) > 65_000, "a pipe that is all but full")
        process.stdin.write(b"Traceback")
        process.stdin.flush()
        assert process.wait(10) == 65


def unread(stream: Any) -> int:
    """Return how many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(stream, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_reader_that_fails_ends_the_bridge_with_70() -> None:
    """A worker without a reader would be deaf, and would outlive its parent: here stdin can be written only."""
    stdin = os.open(os.devnull, os.O_WRONLY)
    try:
        words = [sys.executable, "-m", "dspex_pool.bridge", "--handler", ECHO]
        ended = subprocess.run(words, stdin=stdin, capture_output=True, text=True, timeout=20)
    finally:
        os.close(stdin)
    assert ended.returncode == 70
    assert "reader failed" in ended.stderr
    assert "Bad file descriptor" in ended.stderr


@pytest.mark.parametrize("command", ["echo", "sleep"])
def test_closed_stdout_ends_the_bridge_without_a_traceback(command: str) -> None:
    """Nobody hears the answers, so the worker leaves quietly, idle or busy (R46)."""
    with running_bridge() as bridge:
        begin(bridge, command, {"seconds": 600})
        bridge.close_stdout()
        assert bridge.wait() == 0
        assert bridge.stderr() == ""


def test_answer_that_nobody_reads_does_not_keep_the_bridge() -> None:
    """The main thread is stuck in a write; the end of stdin ends it all the same."""
    with running_bridge() as bridge:
        bridge.send("big", {"bytes": 1_000_000})
        wait_until(bridge.has_said, "the beginning of the answer")
        bridge.close_stdin()
        assert bridge.wait() == 0


def test_frozen_bridge_is_ended_by_sigkill_alone() -> None:
    """Where C code holds the interpreter's lock, nothing inside can act: the pool has to kill."""
    with running_bridge() as bridge:
        bridge.send("hold_gil", {"seconds": 600})
        wait_until(lambda: "holding" in bridge.stderr(), "the lock's being held")
        bridge.process.terminate()
        bridge.close_stdin()
        with pytest.raises(subprocess.TimeoutExpired):
            bridge.process.wait(0.1)
        bridge.process.kill()
        assert bridge.wait() == -signal.SIGKILL


def test_ignored_signals_leave_the_end_of_stdin() -> None:
    """A program that ignores signals is still ended by its client."""
    with running_bridge() as bridge:
        bridge.ask("block_signals")
        bridge.process.terminate()
        assert bridge.ask("echo", still=1) == {"still": 1}
        bridge.close_stdin()
        assert bridge.wait() == 0


def test_prints_that_end_without_a_newline_are_not_lost_at_the_end() -> None:
    """The last thing that a program says is often why it ends."""
    with running_bridge() as bridge:
        bridge.ask("print_python", text="last words", end="")
        bridge.close_stdin()
        assert bridge.wait() == 0
        assert bridge.stderr() == "last words"


# --- cancellation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sleep", "spin", "sleep_in_c"])
def test_sigint_cancels_the_running_command_and_the_bridge_lives_on(
    bridge: BridgeProcess, command: str
) -> None:
    """The command fails with type Cancelled; the next one is served."""
    request_id = begin(bridge, command, {"seconds": 600})
    reply = cancel(bridge)
    assert reply["id"] == request_id
    assert reply["error"] == "The command was cancelled."
    assert reply["error_info"]["type"] == "Cancelled"


def cancel(bridge: BridgeProcess) -> dict[str, Any]:
    """Interrupt the running command until it is answered; return the answer."""
    # It was sent, but may not have begun: a signal in between is ignored, as it is while idle.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        bridge.interrupt()
        if bridge.has_said(within=0.05):
            break
    return bridge.answer()


def test_sigint_once_is_enough_when_the_command_has_begun(bridge: BridgeProcess) -> None:
    """One signal, one cancellation."""
    bridge.send("announce_and_sleep", {"seconds": 600})
    bridge.announced()
    bridge.interrupt()
    assert bridge.answer()["error_info"]["type"] == "Cancelled"


def test_signals_that_its_parent_does_not_hear_reach_the_bridge() -> None:
    """A blocked signal stays blocked in what is started: no command could be stopped, and each cost its worker.

    An ignored SIGCHLD stays ignored: whoever waited for a child was told that there was none.
    """
    deafen = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals)); "
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with running_bridge(prefix=[sys.executable, "-c", deafen], is_measured=False) as bridge:
        bridge.send("announce_and_sleep", {"seconds": 600})
        bridge.announced()
        bridge.interrupt()
        assert bridge.answer()["error_info"]["type"] == "Cancelled"
        child = bridge.ask("fork", seconds=0, status=3)["pid"]
        assert bridge.ask("wait_child", pid=child) == 3
        os.kill(bridge.pid, signal.SIGTERM)
        assert bridge.wait() == 0


def test_sigint_while_idle_is_ignored(bridge: BridgeProcess) -> None:
    """There is nothing to cancel, so nothing happens."""
    for _ in range(20):
        bridge.interrupt()
    assert bridge.ask("echo", n=1) == {"n": 1}
    assert "Traceback" not in bridge.stderr()


def test_sigint_that_is_swallowed_lets_the_command_answer_normally(bridge: BridgeProcess) -> None:
    """A program may clean up and give what it has."""
    begin(bridge, "swallow", {"seconds": 600})
    assert cancel(bridge)["result"] == {"swallowed": True}


def test_sigint_that_becomes_another_error_is_still_a_cancellation(bridge: BridgeProcess) -> None:
    """What a library raises instead was caused by the cancellation."""
    begin(bridge, "translate", {"seconds": 600})
    info = cancel(bridge)["error_info"]
    assert info["type"] == "Cancelled"
    assert info["message"] == "stopped on the way"


def test_sigint_waits_while_the_command_is_shielded(bridge: BridgeProcess) -> None:
    """What must not be left half done is done first; then the command is cancelled."""
    bridge.send("shielded", {"seconds": 0.05})
    assert bridge.announced()["data"] == {"shielded": True}
    bridge.interrupt()
    assert bridge.answer()["error_info"]["type"] == "Cancelled"
    assert [event["data"] for event in bridge.events] == [{"shielded": False}]


def test_sigint_racing_with_the_end_of_commands_tears_nothing(bridge: BridgeProcess) -> None:
    """Every request gets one whole answer, and no signal hits a later request."""
    outcomes = set()
    for number in range(300):
        events = {"event": "progress", "data": {"text": "x" * 2_000}, "count": number % 3}
        request_id = bridge.send("emit", events)
        bridge.interrupt()
        reply = bridge.answer()
        assert reply["id"] == request_id
        outcomes.add(reply.get("error_info", {}).get("type", "ok"))
        # The signal was sent before this request was, so it must not touch it.
        assert bridge.ask("echo", n=number) == {"n": number}
    assert "ok" in outcomes
    assert outcomes <= {"ok", "Cancelled"}


# --- descriptors -------------------------------------------------------------------------------------------


def test_prints_of_python_c_and_children_go_to_stderr(bridge: BridgeProcess) -> None:
    """Nothing but frames is ever written to stdout (R47, R48, R105)."""
    bridge.ask("print_python", text="from Python ß")
    bridge.ask("print_c", text="from C")
    bridge.ask("print_fd", text="from a descriptor\n")
    pid = bridge.ask("spawn_grandchild", text="from a child", seconds=0)["pid"]
    assert bridge.ask("wait_child", pid=pid) == 0
    said = bridge.stderr()
    for line in ("from Python ß", "from C", "from a descriptor", "from a child"):
        assert line in said


def test_stdin_of_programs_is_empty(bridge: BridgeProcess) -> None:
    """A program that reads its stdin neither waits nor steals frames."""
    assert bridge.ask("read_stdin") == ""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_started_programs_inherit_no_wire(bridge: BridgeProcess) -> None:
    """The private descriptors are closed in every program that the worker starts."""
    pid = bridge.ask("spawn_grandchild", seconds=600)["pid"]
    try:
        files = Path(f"/proc/{pid}/fd")
        wait_until(
            lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"), "the child's program"
        )
        # A starting program has its libraries open for a moment.
        wait_until(lambda: {path.name for path in files.iterdir()} == set("012"), "no other descriptor")
        assert str((files / "0").readlink()) == os.devnull
    finally:
        os.kill(pid, signal.SIGKILL)
    assert bridge.ask("wait_child", pid=pid) == -signal.SIGKILL


def test_flood_of_stderr_does_not_touch_the_answers(bridge: BridgeProcess) -> None:
    """However much a program says, frames stay frames."""
    bridge.ask("flood_stderr", bytes=300_000)
    assert len(bridge.stderr()) > 300_000


@pytest.mark.parametrize(("closed", "status"), [(0, 2), (1, 2), (2, 0)])
def test_bridge_that_is_started_without_a_stream_says_so_or_does_without(closed: int, status: int) -> None:
    """stdin and stdout are needed; without stderr the worker works, and says its last words to nobody."""
    words = [sys.executable, "-m", "dspex_pool.bridge", "--handler", ECHO]
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {closed}>&-', "sh", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    ping = b'{"id": 0, "command": "print_python", "args": {"text": "x"}, "timestamp": ""}'
    # Answered before stdin ends, because the answer is read before it is closed.
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(encode_frame(ping))
            process.stdin.flush()
        answer = process.stdout.read(4) if status == 0 else b""
        assert bool(answer) is (status == 0)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(10) == status
        assert process.stderr is not None
        assert (b"stdin and stdout carry the protocol" in process.stderr.read()) is (status == 2)


def test_non_blocking_wires_are_served() -> None:
    """Descriptors that somebody else made non-blocking carry frames as well."""
    with running_socket_bridge() as (sock, process):
        sock.sendall(
            encode_frame(b'{"id": 0, "command": "big", "args": {"bytes": 3000000}, "timestamp": ""}')
        )
        size = int.from_bytes(sock.recv(4), "big")
        assert size > 3_000_000
        time.sleep(0.05)  # let the bridge find its pipe full
        while size:
            size -= len(sock.recv(min(size, 1 << 16)))
        sock.close()
        assert process.wait(10) == 0


@contextlib.contextmanager
def running_socket_bridge() -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
    """Run a bridge whose stdin and stdout are one non-blocking socket."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.settimeout(10)
    words = [sys.executable, "-m", "dspex_pool.bridge", "--handler", ECHO]
    process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    try:
        yield ours, process
    finally:
        ours.close()
        process.kill()
        process.wait()


# --- session and children ----------------------------------------------------------------------------------


def test_bridge_leads_a_process_session_of_its_own(bridge: BridgeProcess) -> None:
    """A terminal's Ctrl-C goes to the parent alone, and the group can be ended as one."""
    facts = bridge.ask("process")
    assert facts["pid"] == facts["pgid"] == facts["sid"] == bridge.pid
    assert facts["ppid"] == os.getpid()


def test_bridge_that_leads_a_group_already_starts_all_the_same() -> None:
    """A shell with job control makes a group for it; then it leads that."""
    words = [sys.executable, "-m", "dspex_pool.bridge", "--handler", ECHO]
    with subprocess.Popen(words, stdin=subprocess.PIPE, process_group=0) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("how", ["stdin", "sigterm", "shutdown"])
def test_children_end_with_the_bridge(how: str) -> None:
    """A worker ends with its whole process group (R86)."""
    with running_bridge() as bridge:
        pid = bridge.ask("spawn_grandchild", seconds=600)["pid"]
        wait_until(lambda: "ready" in bridge.stderr(), "the child's sign of life")
        if how == "stdin":
            bridge.close_stdin()
        elif how == "sigterm":
            bridge.process.terminate()
        else:
            bridge.ask("shutdown")
        assert bridge.wait() == 0
        wait_until(lambda: is_gone(pid), "the end of the grandchild")


#: A worker whose system gives no further thread, from its first command on.
WITHOUT_THREADS = """
import threading
from dspex_pool.bridge.handler import command
from dspex_testkit.children.echo import EchoHandler

def refuse(*_):
    raise RuntimeError("can't start new thread")

class Handler(EchoHandler):
    @command
    def exhaust(self, args):
        threading.Thread.start = refuse
"""


@pytest.mark.parametrize("how", ["stdin", "sigterm"])
def test_bridge_without_a_further_thread_ends_and_so_do_its_children(how: str, tmp_path: Path) -> None:
    """The thread that flushes is a courtesy; for want of it, SIGTERM was an error of the running command."""
    (tmp_path / "exhausted.py").write_text(WITHOUT_THREADS)
    path = f"{tmp_path}:{Path.cwd()}"
    with running_bridge(handler="exhausted:Handler", env={"PYTHONPATH": path}) as bridge:
        pid = bridge.ask("spawn_grandchild", seconds=600)["pid"]
        wait_until(lambda: "ready" in bridge.stderr(), "the child's sign of life")
        bridge.ask("exhaust")
        begin(bridge, "sleep", {"seconds": 600})
        if how == "stdin":
            bridge.close_stdin()
        else:
            bridge.process.terminate()
        assert bridge.wait() == 0
        wait_until(lambda: is_gone(pid), "the end of the grandchild")


#: Starts a command and passes on its own stdin, as a pool that may be killed.
FORWARDER = """
import subprocess, sys
worker = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, bufsize=0)
while data := sys.stdin.buffer.raw.read(65536):
    worker.stdin.write(data)
"""


def test_nothing_outlives_a_parent_that_was_killed() -> None:
    """The bridge leaves, and takes with it a child that ignores SIGTERM (R41, R57, R86)."""
    with running_bridge(prefix=[sys.executable, "-S", "-c", FORWARDER]) as bridge:
        worker_pid = bridge.ask("process")["pid"]
        assert worker_pid != bridge.pid
        grandchild_pid = bridge.ask("spawn_grandchild", seconds=600, stubborn=True)["pid"]
        wait_until(lambda: "ready" in bridge.stderr(), "the child's sign of life")
        bridge.process.kill()
        bridge.wait()
        wait_until(lambda: is_gone(worker_pid), "the end of the worker")
        wait_until(lambda: is_gone(grandchild_pid), "the end of the grandchild")


def test_forked_child_is_no_worker() -> None:
    """A child without a program of its own holds no wire and ends by SIGTERM alone, not with the worker."""
    with running_bridge() as bridge:
        pid = bridge.ask("fork", seconds=600)["pid"]
        os.kill(pid, signal.SIGTERM)
        assert bridge.ask("wait_child", pid=pid) == -signal.SIGTERM
        pid = bridge.ask("fork", seconds=0)["pid"]
        assert bridge.ask("wait_child", pid=pid) == 0
        assert bridge.ask("echo", still="here") == {"still": "here"}


def test_forked_child_may_log() -> None:
    """Its records go to stderr. It said them to the client, whose wire it had closed, and ended with status 0."""
    with running_bridge() as bridge:
        pid = bridge.ask("fork", seconds=0, text="from the child", status=7)["pid"]
        assert bridge.ask("wait_child", pid=pid) == 7
        assert "from the child" in bridge.stderr()
        assert bridge.ask("echo", still="here") == {"still": "here"}
