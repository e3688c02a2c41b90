"""Templates where little is left to them: no descriptor, no room on the line, no time before a cancellation."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing

from dspex_pool.errors import WorkerStartError
from dspex_pool.protocol.forking import Forked, Reaped
from dspex_pool.transport import host_forks, template_fork, template_packets, template_process
from dspex_pool.transport.port import ExitStatus
from dspex_pool.transport.subprocess import SubprocessOptions
from dspex_pool.transport.template import TemplatePortFactory
from tests.bounded_waits import until, wait_until
from tests.cancel_at_step import CancelAtStep, run_in_order
from tests.integration.worker_pools import ECHO, patience
from tests.subprocess_children import end

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sys.platform != "linux", reason="templates take pidfd and SOCK_SEQPACKET, which Linux has"
    ),
]


@pytest.mark.trio
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_fork_whose_descriptor_cannot_be_taken_is_undone(
    is_cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no descriptor left for the fork's, its port could neither kill nor reap it; the fork lived on."""
    take = template_packets.receive_packet

    def take_without(channel: socket.socket) -> tuple[bytes, int]:
        # As the system does at the limit of open files: the packet comes, what it carried is dropped.
        packet, descriptor = take(channel)
        if descriptor >= 0:
            os.close(descriptor)
            if is_cancelled:
                scope.cancel()
        return packet, -1

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            template = psutil.Process(ports.template_pid)
            with monkeypatch.context() as patch:
                patch.setattr(template_process, "receive_packet", take_without)
                with trio.CancelScope() as scope:
                    with pytest.raises(WorkerStartError, match=r"worker w-2 .* limit on open files"):
                        await ports.open(worker_id="w-2", incarnation=2)
            assert not template.children()
            await end(await ports.open(worker_id="w-3", incarnation=3))
            assert ports.template_pid == template.pid


@pytest.mark.trio
async def test_fork_that_nobody_waits_for_leaves_no_descriptor() -> None:
    """One that comes when its template has been given up, a moment before that is ended."""
    template = template_process.TemplateProcess(SubprocessOptions(handler=ECHO), warm_up_timeout=60)
    before = psutil.Process().num_fds()
    template._take(Forked(1, os.getpid()), os.dup(0))
    template._take(Reaped(os.getpid(), 0), -1)
    assert psutil.Process().num_fds() == before


@pytest.mark.trio
async def test_template_that_does_not_reap_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped one would keep every worker that ends a zombie, and let the next start fail."""
    monkeypatch.setattr(template_process, "_ANSWER_TIMEOUT", 0.2)
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            port = await ports.open(worker_id="w-1", incarnation=1)
            template, stopped = ports._template, ports.template_pid
            assert template is not None
            assert stopped is not None
            os.kill(stopped, signal.SIGSTOP)
            assert str(await end(port)) == "exit status unknown: the template that forked it has ended"
            assert (psutil.pid_exists(stopped), template.is_alive) == (False, False)
            monkeypatch.undo()
            await end(await ports.open(worker_id="w-2", incarnation=2))


@pytest.mark.trio
async def test_start_under_way_when_the_template_dies_is_made_by_the_next() -> None:
    """Nothing was started, so nobody need hear of it."""

    async def start() -> None:
        assert await end(await ports.open(worker_id="w-2", incarnation=2)) == ExitStatus(
            signal=signal.SIGKILL
        )

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            assert ports._template is not None
            assert ports.template_pid is not None
            os.kill(ports.template_pid, signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                await until(lambda: ports._template and ports._template._forks, "it is asked")
                await trio.testing.wait_all_tasks_blocked()
                os.kill(ports.template_pid, signal.SIGKILL)


@pytest.mark.parametrize("leaves_first", [True, False])
def test_template_ends_with_its_pool_while_it_imports(leaves_first: bool, tmp_path: Path) -> None:
    """An import that never ends would keep the process of a pool that was killed for ever."""
    (tmp_path / "hanging.py").write_text(
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(600)\n"
    )
    pool, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if leaves_first:
        pool.close()
    command = [sys.executable, "-m", "dspex_pool.bridge.template", "--handler", "hanging:Handler"]
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    with pool, channel, subprocess.Popen(
        command, stdin=channel.fileno(), stdout=channel.fileno(), env=variables, cwd=tmp_path, start_new_session=True
    ) as template:  # fmt: skip
        try:
            channel.close()
            if not leaves_first:
                wait_until((tmp_path / "begun").exists, "it imports")
                pool.close()
            assert template.wait(20) == (0 if leaves_first else -signal.SIGIO)
        finally:
            template.kill()


@pytest.mark.trio
async def test_template_is_not_stopped_as_a_command_is() -> None:
    """SIGINT means nothing to it, nor to a worker that is a template still."""
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            template = ports.template_pid
            assert template is not None
            os.kill(template, signal.SIGINT)
            await end(await ports.open(worker_id="w-2", incarnation=2))
            assert ports.template_pid == template


@pytest.mark.trio
async def test_wake_up_for_nothing_is_no_end_of_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system may wake a reader without anything to read (``select(2)`` says so)."""
    receive, wakes = template_packets.receive_packet, iter([True])

    def receive_late(channel: socket.socket) -> tuple[bytes, int]:
        if next(wakes, False):
            raise BlockingIOError
        return receive(channel)

    monkeypatch.setattr(template_process, "receive_packet", receive_late)
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))


async def occupy(lock: trio.Lock, task_status: trio.TaskStatus[None]) -> None:
    """Hold a lock until this is cancelled."""
    async with lock:
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.trio
async def test_worker_is_reaped_after_a_cancellation_before_the_template_was_asked() -> None:
    """Its end is known as that of any other."""
    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            port = await ports.open(worker_id="w-1", incarnation=1)
            assert ports._template is not None
            async with trio.open_nursery() as nursery:
                await nursery.start(occupy, ports._template._sending)
                port.kill()
                with trio.move_on_after(0.1):
                    await port.attend()
                nursery.cancel_scope.cancel()
            assert await end(port) == ExitStatus(signal=signal.SIGKILL)
            await end(await ports.open(worker_id="w-2", incarnation=2))


@pytest.mark.trio
async def test_fork_that_cannot_be_restricted_is_undone_in_a_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error goes first, and nothing is left of the worker."""

    def refuse(*_: object) -> None:
        scope.cancel()
        raise PermissionError("no")

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO, limit_open_files=64)) as ports:
            with monkeypatch.context() as patch:
                patch.setattr(resource, "prlimit", refuse)
                with trio.CancelScope() as scope:
                    with pytest.raises(WorkerStartError, match="limit_open_files=64 is refused"):
                        await ports.open(worker_id="w-1", incarnation=1)
            assert not psutil.Process(ports.template_pid).children()


@pytest.mark.trio
async def test_full_line_to_a_stopped_template_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot even ask it is served by the next template, and meanwhile all other tasks have their turns."""
    monkeypatch.setattr(template_process, "_ANSWER_TIMEOUT", 0.2)
    outcomes: list[object] = []

    async def start(number: int) -> None:
        try:
            outcomes.append(await end(await ports.open(worker_id=f"w-{number}", incarnation=number)))
        except WorkerStartError as error:
            outcomes.append("its template has not answered within" in str(error))
        monkeypatch.undo()

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            assert ports.template_pid is not None
            os.kill(ports.template_pid, signal.SIGSTOP)
            # Two packets of this size fill a socket.
            monkeypatch.setenv("LONG", "x" * 100_000)
            async with trio.open_nursery() as nursery:
                for number in range(2, 8):
                    nursery.start_soon(start, number)
    assert set(outcomes) == {True, ExitStatus(signal=signal.SIGKILL)}


@pytest.mark.parametrize(
    ("has_template", "lives", "is_signalled"),
    [(True, False, True), (False, True, True), (False, False, False)],
)
def test_group_whose_number_may_be_a_strangers_is_left_alone(
    has_template: bool, lives: bool, is_signalled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.9 a group is known by its number alone, which is free once the system has reaped its leader."""
    monkeypatch.setattr(template_fork, "_SIGNAL_PROCESS_GROUP", 1 << 30)
    signalled = []
    monkeypatch.setattr(os, "killpg", lambda *details: signalled.append(details))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as cat:
        descriptor = os.pidfd_open(cat.pid)
        if not lives:
            cat.kill()
            cat.wait()
        template = Template(is_alive=has_template)
        template_fork.ForkedProcess(cat.pid, descriptor, template).signal_group(signal.SIGTERM)
        os.close(descriptor)
    assert signalled == [(cat.pid, signal.SIGTERM)] * is_signalled


@dataclass
class Template:
    """Whoever reaps forked workers, as far as signals ask for it."""

    is_alive: bool

    async def reap(self, pid: int) -> ExitStatus:
        """Reap nobody."""
        return ExitStatus()


async def open_and_cancel(ports: TemplatePortFactory, step: int) -> bool:
    """Cancel ``open`` before ``step``, end what it returned, and tell whether it was cancelled."""
    port = None
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            port = await ports.open(worker_id="w-1", incarnation=1)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    if port is not None:
        assert await end(port) == ExitStatus(signal=signal.SIGKILL)
    return port is None


@pytest.mark.parametrize("order", range(2))
def test_open_leaves_nothing_whenever_it_is_cancelled(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled at any step, with a cold template or a warm one, ``open`` has forked nothing or gives it out."""

    async def main() -> list[bool]:
        outcomes = []
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            for step in [1, 2, 3, *range(1, 16)]:
                outcomes.append(await open_and_cancel(ports, step))
                template = psutil.Process(ports.template_pid) if ports.template_pid else None
                assert not template or not template.children(), f"a fork is left after step {step}"
        return outcomes

    monkeypatch.setattr(host_forks, "_held", {})
    before = psutil.Process().num_fds()
    assert set(run_in_order(order, main)) == {True, False}
    assert psutil.Process().num_fds() == before
    assert host_forks._held == {}, "a fork would close what has been given the number since"
    assert not psutil.Process().children(recursive=True)
