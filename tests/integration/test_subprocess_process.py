"""The life and end of worker processes: nothing outlives its port, nobody else is hit."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio
import trio.testing

from dspex_pool.errors import PortClosedError, WorkerStartError
from dspex_pool.transport import process as process_module
from dspex_pool.transport.launch import Launched, launch
from dspex_pool.transport.port import ExitStatus
from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPort, SubprocessPortFactory
from tests import subprocess_children
from tests.bounded_waits import has_ended, until
from tests.cancel_at_step import CancelAtStep, run_in_order
from tests.forked_programs import command_of_template
from tests.subprocess_children import (
    ECHO,
    READY,
    SLEEP,
    WAIT,
    attend_shielded,
    child_command,
    open_port,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="about /proc, pidfd or waitid, which Linux has")
BOUND = 20.0

#: What holds for a program that is started, and for one that is forked.
BOTH_WAYS = pytest.mark.usefixtures("start_method")

#: Starts a grandchild in the same group that ignores SIGTERM, and sends its process id.
GRANDCHILD = """
grandchild = os.fork()
if grandchild == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
send(str(grandchild).encode())
"""


@pytest.fixture(params=["spawn", pytest.param("template", marks=LINUX)])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``running`` start its program in each way."""
    monkeypatch.setattr(subprocess_children, "START_METHODS", [request.param])
    monkeypatch.setattr(SubprocessOptions, "template_command", command_of_template)


async def end(port: SubprocessPort) -> ExitStatus:
    """Attend a port to its end."""
    with trio.fail_after(BOUND):
        return await port.attend()


@pytest.mark.trio
async def test_worker_that_leaves_is_reaped_with_its_status() -> None:
    """An exit status is told, once reaped; nobody has to use the worker to learn it."""
    port = await open_port(READY + "sys.exit(3)")
    assert await end(port) == ExitStatus(code=3)
    assert port.exit_status == ExitStatus(code=3)
    assert await end(port) == ExitStatus(code=3)
    assert not psutil.Process().children()
    assert port.resident_bytes is None
    assert port.has_unread()


@BOTH_WAYS
@pytest.mark.trio
async def test_worker_that_exits_while_idle_is_noticed() -> None:
    """The end of a worker that nobody talks to ends ``attend``."""
    async with running(READY + WAIT + "sys.exit(4)") as port:
        assert await port.receive() == b"ready"
        assert not port.has_unread()
        port.send_eof()
        await until(lambda: has_ended(port.pid), "the process is gone")
    assert port.exit_status == ExitStatus(code=4)


@BOTH_WAYS
@pytest.mark.trio
async def test_worker_killed_from_outside_is_told_by_signal() -> None:
    """SIGKILL from anybody shows as the signal, for the exit status and for who reads."""
    async with running(READY + SLEEP) as port:
        await port.receive()
        os.kill(port.pid, signal.SIGKILL)
        with pytest.raises(PortClosedError):
            await port.receive()
    assert port.exit_status == ExitStatus(signal=signal.SIGKILL)
    with pytest.raises(PortClosedError, match="killed by signal 9") as caught:
        await port.send(b"late")
    assert (caught.value.signal, caught.value.exit_status) == (signal.SIGKILL, None)


@BOTH_WAYS
@pytest.mark.trio
async def test_stopped_worker_is_killed() -> None:
    """A worker that was stopped handles no signal but this one."""
    handling = READY.replace('send(b"ready")', "signal.signal(signal.SIGTERM, lambda *_: None)")
    async with running(handling + "send(b'ready')" + SLEEP) as port:
        await port.receive()
        os.kill(port.pid, signal.SIGSTOP)
        port.terminate()
        port.kill()
    assert port.exit_status == ExitStatus(signal=signal.SIGKILL)


@BOTH_WAYS
@pytest.mark.trio
async def test_worker_that_ignores_sigterm_is_killed() -> None:
    """The polite signal may be refused, the other one not."""
    stubborn = READY.replace('send(b"ready")', "signal.signal(signal.SIGTERM, lambda *_: send(b'no'))")
    async with running(stubborn + "send(b'ready')\nwhile True: time.sleep(600)") as port:
        await port.receive()
        port.terminate()
        assert await port.receive() == b"no"
        assert port.exit_status is None
        port.kill()
    assert port.exit_status == ExitStatus(signal=signal.SIGKILL)


@BOTH_WAYS
@pytest.mark.trio
async def test_terminate_reaches_the_whole_group() -> None:
    """A worker that obeys is gone by SIGTERM alone, and so is what it started."""
    grandchild = READY + GRANDCHILD.replace("signal.SIG_IGN", "signal.SIG_DFL") + SLEEP
    async with running(grandchild) as port:
        await port.receive()
        pid = int(await port.receive())
        port.terminate()
        await until(lambda: has_ended(pid), "the process is gone")
        await until(lambda: has_ended(port.pid), "the process is gone")
    assert port.exit_status == ExitStatus(signal=signal.SIGTERM)


@BOTH_WAYS
@pytest.mark.trio
@pytest.mark.parametrize("ending", ["SLEEP, killed", "leaves"])
async def test_grandchildren_end_with_the_worker(ending: str) -> None:
    """Whether a worker is killed or leaves by itself, what it started does not outlive it."""
    source = READY + GRANDCHILD + (SLEEP if ending == "SLEEP, killed" else WAIT)
    async with running(source) as port:
        await port.receive()
        grandchild = int(await port.receive())
        assert not has_ended(grandchild)
        if ending == "leaves":
            port.send_eof()
            await until(lambda: has_ended(grandchild), "the process is gone")
    await until(lambda: has_ended(grandchild), "the process is gone")
    assert port.exit_status == (
        ExitStatus(code=0) if ending == "leaves" else ExitStatus(signal=signal.SIGKILL)
    )


@BOTH_WAYS
@pytest.mark.trio
async def test_interrupt_reaches_the_worker_alone() -> None:
    """SIGINT asks the worker to stop its command, and not what the command has started."""
    source = READY + GRANDCHILD.replace("signal.SIGTERM, signal.SIG_IGN", "signal.SIGINT, signal.SIG_DFL")
    source += (
        "\ntry:\n    send(b'busy')\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    send(b'stopped')\n"
    )
    async with running(source + WAIT) as port:
        await port.receive()
        grandchild = int(await port.receive())
        assert await port.receive() == b"busy"
        port.interrupt()
        assert await port.receive() == b"stopped"
        assert not has_ended(grandchild)
        assert port.exit_status is None


@pytest.mark.trio
async def test_no_signal_is_sent_after_the_reaping(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a reaped worker may be a stranger's: nothing is sent to it any more."""
    port = await open_port(READY)
    await end(port)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *signal_to: sent.append(signal_to))
    monkeypatch.setattr(os, "killpg", lambda *signal_to: sent.append(signal_to))
    port.interrupt()
    port.terminate()
    port.kill()
    assert sent == []


@pytest.mark.trio
async def test_group_is_killed_before_the_worker_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the group's number can belong to nobody else; once, and then never again."""
    states = []
    real = os.killpg

    def note(pid: int, number: int) -> None:
        states.append((psutil.Process(pid).status(), number))
        real(pid, number)

    monkeypatch.setattr(os, "killpg", note)
    port = await open_port(READY)
    await end(port)
    assert states == [(psutil.STATUS_ZOMBIE, signal.SIGKILL)]


@LINUX
@pytest.mark.trio
async def test_worker_reaped_by_somebody_else_hits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the host's own code has waited for the child, its status is unknown and nothing is signalled."""
    port = await open_port(READY)
    os.waitpid(port.pid, 0)
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: sent.append(pid))
    assert await end(port) == ExitStatus()
    assert sent == []


@pytest.mark.trio
async def test_signals_to_a_worker_reaped_by_somebody_else_do_no_harm() -> None:
    """A process that is gone already is not an error for who wants it gone."""
    port = await open_port(READY)
    os.waitpid(port.pid, 0)
    port.interrupt()
    port.kill()
    assert port.resident_bytes is None
    assert await end(port) == ExitStatus()
    assert process_module._reap(port.pid) is None


@pytest.mark.trio
async def test_attend_without_an_exit_descriptor_waits_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no descriptor, the end is seen all the same, also after a cancellation."""
    monkeypatch.setattr("dspex_pool.transport.launch.open_exit_descriptor", lambda pid: None)
    port = await open_port(READY + SLEEP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.attend)
        await port.receive()
        nursery.cancel_scope.cancel()
    assert port.exit_status is None
    port.kill()
    assert await end(port) == ExitStatus(signal=signal.SIGKILL)
    # Reaped by then: the thread that waits for it does not fail.
    process_module._block_until_ended(port.pid)


@LINUX
def test_exit_descriptor_is_done_without_when_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel, or one without a descriptor left, is no reason not to start."""

    def refuse(pid: int) -> int:
        raise OSError

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert process_module.open_exit_descriptor(os.getpid()) is None
    monkeypatch.delattr(os, "pidfd_open")
    assert process_module.open_exit_descriptor(os.getpid()) is None


@pytest.mark.trio
async def test_attend_that_was_cancelled_can_be_taken_up_again() -> None:
    """A cancellation changes nothing about the process, and what was read of stderr is kept."""
    async with trio.open_nursery() as nursery:
        port = await open_port("import sys; print('before', file=sys.stderr, flush=True)\n" + READY + WAIT)
        nursery.start_soon(port.attend)
        await port.receive()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert port.exit_status is None
    assert not has_ended(port.pid)
    port.send_eof()
    assert await end(port) == ExitStatus(code=0)
    assert port.stderr_tail == "before\n"


def attend_and_cancel(order: int, step: int) -> None:
    """Cancel ``attend`` of a worker that is ending, before ``step``; take it up again; check the end."""

    async def main() -> None:
        port = await open_port("import sys; print('words', file=sys.stderr)")
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(CancelAtStep(step, scope))
            await port.attend()
        assert await end(port) == ExitStatus(code=0)
        assert port.stderr_tail == "words\n"

    run_in_order(order, main)


def test_attend_can_be_cancelled_at_any_step() -> None:
    """Whenever it is cancelled, the next ``attend`` reaps, closes and has all of stderr."""
    before = psutil.Process().num_fds()
    for order, step in itertools.product(range(2), range(1, 13)):
        attend_and_cancel(order, step)
    assert psutil.Process().num_fds() == before
    assert not psutil.Process().children()


def open_and_cancel(order: int, step: int) -> bool:
    """Cancel ``open`` before ``step``, end what it returned, and tell whether it was cancelled.

    Step 0 is before the call.
    """

    async def main() -> bool:
        factory = SubprocessPortFactory(SubprocessOptions(command=child_command(SLEEP)))
        port = None
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(CancelAtStep(step, scope))
            if step == 0:
                scope.cancel()
            port = await factory.open(worker_id="w-1", incarnation=1)
        if port is not None:
            # Owned before the next checkpoint, cancelled or not.
            port.kill()
            await attend_shielded(port)
        return port is None

    return run_in_order(order, main)


def test_open_leaves_nothing_whenever_it_is_cancelled() -> None:
    """Cancelled at every step of the scheduler, ``open`` has started nothing or gives it out."""
    before = psutil.Process().num_fds()
    outcomes = []
    for order, step in itertools.product(range(2), range(10)):
        outcomes.append(open_and_cancel(order, step))
        assert not psutil.Process().children()
    assert psutil.Process().num_fds() == before
    assert set(outcomes) == {True, False}


@pytest.mark.trio
async def test_start_that_is_cancelled_on_its_way_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation while the process is being created waits for it, and its owner gets it."""

    def launch_and_cancel(*arguments: Any) -> Launched:
        launched = launch(*arguments)
        trio.from_thread.run_sync(scope.cancel)
        return launched

    monkeypatch.setattr("dspex_pool.transport.subprocess.launch", launch_and_cancel)
    with trio.CancelScope() as scope:
        port = await open_port(SLEEP)
        port.kill()
        await attend_shielded(port)
    assert scope.cancel_called
    assert port.exit_status == ExitStatus(signal=signal.SIGKILL)


@pytest.mark.trio
async def test_failed_start_leaves_the_factory_usable(tmp_path: Path) -> None:
    """An error of one start is told by ``open`` itself; the next start may succeed."""
    directory = tmp_path / "later"
    factory = SubprocessPortFactory(SubprocessOptions(command=child_command(READY), cwd=str(directory)))
    with pytest.raises(WorkerStartError, match="w-1"):
        await factory.open(worker_id="w-1", incarnation=1)
    directory.mkdir()
    assert await end(await factory.open(worker_id="w-1", incarnation=2)) == ExitStatus(code=0)


@pytest.mark.trio
async def test_fifty_starts_leave_nothing() -> None:
    """No descriptor, zombie or task remains, however a worker ended."""
    before = psutil.Process().num_fds()
    for number in range(50):
        async with running(ECHO if number % 2 else READY) as port:
            if number % 2:
                await port.send(b"hello")
                assert await port.receive() == b"hello"
    assert psutil.Process().num_fds() == before
    assert not psutil.Process().children()


@BOTH_WAYS
@LINUX
@pytest.mark.trio
async def test_worker_inherits_nothing_of_another() -> None:
    """A worker holds three descriptors, none of them another worker's, so no death can block a neighbour."""

    def pipes_of(pid: int) -> dict[str, str]:
        return {path.name: str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}

    async with running(READY + WAIT) as first, running(READY + WAIT) as second:
        await first.receive()
        await second.receive()
        ours, theirs = pipes_of(first.pid), pipes_of(second.pid)
        assert set(ours) == set(theirs) == {"0", "1", "2"}
        assert not set(ours.values()) & set(theirs.values())


@contextlib.contextmanager
def forking() -> Iterator[Callable[[], None]]:
    """Give a way to fork this process; forks run on, and do nothing, until the block ends."""
    ended, ending = os.pipe()
    forks = []

    def fork() -> None:
        pid = os.fork()
        if not pid:
            os.close(ending)
            os.read(ended, 1)
            os._exit(0)
        forks.append(pid)

    try:
        yield fork
    finally:
        os.close(ending)
        os.close(ended)
        for pid in forks:
            os.waitpid(pid, 0)


@pytest.mark.trio
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_fork_of_this_process_keeps_no_pipe_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker hears that its stdin ends, though this process was forked while it started, and once it ran."""
    start = subprocess.Popen

    def fork_and_start(*args: Any, **settings: Any) -> subprocess.Popen[bytes]:
        fork()
        return start(*args, **settings)

    with forking() as fork:
        monkeypatch.setattr("dspex_pool.transport.launch.subprocess.Popen", fork_and_start)
        port = await open_port(ECHO)
        fork()
        await port.send(b"as before")
        assert await port.receive() == b"as before"
        port.send_eof()
        assert await end(port) == ExitStatus(code=0)


@pytest.mark.trio
@pytest.mark.parametrize(("act", "which"), [("pipe", 1), ("pipe", 5), ("close", 1)])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_fork_by_another_thread_keeps_no_pipe_of_a_worker(
    act: str, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork that came just as a pipe was opened, or closed, held it: nobody had told it yet, or any more.

    The fifth pipe is Popen's, on which it waits for the error of a program that cannot be executed: the start, and
    with it the pool's end, took as long as the fork ran.
    """
    acting, acts, threads = getattr(os, act), itertools.count(1), list[threading.Thread]()

    def act_beside_a_fork(*args: Any) -> Any:
        if next(acts) < which:
            return acting(*args)
        monkeypatch.undo()
        if act == "close":
            begin_to_fork()
            return acting(*args)
        ends = acting(*args)
        begin_to_fork()
        return ends

    def begin_to_fork() -> None:
        is_next = threading.Event()

        def fork_at_once() -> None:
            is_next.set()
            fork()

        threads.append(threading.Thread(target=fork_at_once))
        threads[0].start()
        is_next.wait()

    with forking() as fork:
        if act == "pipe":
            monkeypatch.setattr(os, act, act_beside_a_fork)
        port = await open_port(ECHO)
        await port.send(b"as before")
        assert await port.receive() == b"as before"
        if act == "close":
            monkeypatch.setattr(os, act, act_beside_a_fork)
        port.send_eof()
        assert await end(port) == ExitStatus(code=0)
        threads[0].join()


@BOTH_WAYS
@pytest.mark.trio
async def test_resident_memory_is_told() -> None:
    """Memory that a worker takes shows in its figure."""
    source = READY + "import os\nos.read(0, 5)\nblock = bytearray(64 << 20)\nsend(b'taken')\n" + WAIT
    async with running(source) as port:
        await port.receive()
        before = port.resident_bytes
        await port.send(b"x")
        await port.receive()
        after = port.resident_bytes
        assert before is not None
        assert after is not None
        assert after - before > 60 << 20


@BOTH_WAYS
@LINUX
@pytest.mark.trio
async def test_processor_time_limit_is_told_by_its_signal() -> None:
    """A worker that spends its limit ends by SIGXCPU, which names the cause."""
    async with running(READY + "while True: pass", limit_cpu_seconds=1) as port:
        await port.receive()
        with pytest.raises(PortClosedError):
            await port.receive()
    assert port.exit_status == ExitStatus(signal=signal.SIGXCPU)


@pytest.mark.trio
@pytest.mark.parametrize("megabytes", [10, 100])
async def test_stderr_flood_blocks_nobody_and_is_not_kept(megabytes: int) -> None:
    """However much a worker writes to stderr, it goes on, and only the tail stays in memory."""
    flood = (
        f"chunk = (b'x' * 79 + b'\\n') * 1000\nfor _ in range({megabytes * 1000 // 80}): os.write(2, chunk)\n"
    )
    before = psutil.Process().memory_info().rss
    async with running(READY + flood + "os.write(2, b'the end\\n')\nsend(b'flooded')\n" + WAIT) as port:
        assert await port.receive() == b"ready"
        assert await port.receive() == b"flooded"
        grown = psutil.Process().memory_info().rss - before
    assert grown < 8 << 20
    assert port.stderr_tail.endswith("x\nthe end\n")
    assert 60_000 < len(port.stderr_tail) <= 65536


@pytest.mark.trio
async def test_stderr_lines_are_told_as_they_come() -> None:
    """Each line goes to the handler with the worker's name, cut when long, also the last without end."""
    told: list[tuple[str, str]] = []
    source = READY + "os.write(2, b'one\\n' + b'y' * 10000 + b'\\nlast')"
    port = await open_port(source, on_stderr_line=lambda worker_id, line: told.append((worker_id, line)))
    await end(port)
    assert told == [("w-1", "one"), ("w-1", "y" * 8192 + " … (1808 bytes cut)"), ("w-1", "last")]
    assert port.stderr_tail.startswith("one\ny")


@pytest.mark.trio
async def test_handler_that_fails_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the handler is logged once for all workers, with its name, and draining goes on."""

    def failing_handler(worker_id: str, line: str) -> None:
        raise ZeroDivisionError

    command = child_command(READY + "os.write(2, b'one\\ntwo\\nthree')")
    factory = SubprocessPortFactory(SubprocessOptions(command=command), on_stderr_line=failing_handler)
    for incarnation in (1, 2):
        port = await factory.open(worker_id="w-1", incarnation=incarnation)
        assert await end(port) == ExitStatus(code=0)
        assert port.stderr_tail == "one\ntwo\nthree"
    assert [record.message.count("failing_handler") for record in caplog.records] == [1]


@pytest.mark.trio
async def test_escaped_grandchild_cannot_hold_the_end() -> None:
    """A process that left the group and keeps the pipes open delays the end by the bound alone."""
    escaping = READY + "import os\nif os.fork() == 0:\n    os.setsid()\n    send(str(os.getpid()).encode())\n"
    port = await open_port(escaping + SLEEP)
    await port.receive()
    escaped = int(await port.receive())
    try:
        os.kill(port.pid, signal.SIGTERM)
        begun = time.monotonic()
        assert await end(port) == ExitStatus(signal=signal.SIGTERM)
        assert time.monotonic() - begun < 5
        with pytest.raises(PortClosedError):
            await port.receive()
    finally:
        os.kill(escaped, signal.SIGKILL)
    await until(lambda: has_ended(escaped), "the process is gone")


@pytest.mark.trio
async def test_attend_cancelled_after_the_reaping_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while it waits for the last of stderr, ``attend`` still closes everything the next time."""
    monkeypatch.setattr("dspex_pool.transport.subprocess.LAST_STDERR_WAIT", BOUND)
    before = psutil.Process().num_fds()
    port = await open_port("import os\nif os.fork() == 0:\n    os.setsid()\n    os.read(0, 1)\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.attend)
        await until(lambda: has_ended(port.pid), "the process is gone")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert port.exit_status == ExitStatus(code=0)
    # The escaped process leaves at the end of stdin, and with it the last holder of stderr.
    port.send_eof()
    assert await end(port) == ExitStatus(code=0)
    assert psutil.Process().num_fds() == before


def test_last_words_on_stderr_are_in_the_tail() -> None:
    """What a worker wrote to stderr just before its end is there when its end is told."""

    async def main() -> None:
        port = await open_port("raise SystemExit('out of luck')")
        # Both the end and the words are there when attend begins, and either may be seen first.
        process_module._block_until_ended(port.pid)
        assert await end(port) == ExitStatus(code=1)
        assert port.stderr_tail == "out of luck\n"
        with pytest.raises(PortClosedError) as caught:
            await port.send(b"late")
        assert caught.value.stderr_tail == "out of luck\n"

    for order in range(8):
        run_in_order(order, main)
