"""Templates where little is left to them: no descriptor, no room on the line, no time before a cancellation."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import trio

from dspex_pool.errors import WorkerStartError
from dspex_pool.transport import template_packets, template_process
from dspex_pool.transport.port import ExitStatus
from dspex_pool.transport.subprocess import SubprocessOptions
from dspex_pool.transport.template import TemplatePortFactory
from tests.cancel_at_step import CancelAtStep, run_in_order
from tests.integration.worker_pools import ECHO, patience
from tests.subprocess_children import end

if TYPE_CHECKING:
    import socket

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sys.platform != "linux", reason="templates take pidfd and SOCK_SEQPACKET, which Linux has"
    ),
]


@pytest.mark.trio
async def test_fork_whose_descriptor_cannot_be_taken_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no descriptor left for the fork's, its port could neither kill nor reap it; the fork lived on."""
    take = template_packets.receive_packet

    def take_without(channel: socket.socket) -> tuple[bytes, int]:
        # As the system does at the limit of open files: the packet comes, what it carried is dropped.
        packet, descriptor = take(channel)
        if descriptor >= 0:
            os.close(descriptor)
        return packet, -1

    with patience():
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            await end(await ports.open(worker_id="w-1", incarnation=1))
            template = psutil.Process(ports.template_pid)
            with monkeypatch.context() as patch:
                patch.setattr(template_process, "receive_packet", take_without)
                with pytest.raises(WorkerStartError, match=r"worker w-2 .* limit on open files"):
                    await ports.open(worker_id="w-2", incarnation=2)
            assert not template.children()
            await end(await ports.open(worker_id="w-3", incarnation=3))
            assert ports.template_pid == template.pid


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
def test_open_leaves_nothing_whenever_it_is_cancelled(order: int) -> None:
    """Cancelled at any step, with a cold template or a warm one, ``open`` has forked nothing or gives it out."""

    async def main() -> list[bool]:
        outcomes = []
        async with TemplatePortFactory(SubprocessOptions(handler=ECHO)) as ports:
            for step in [1, 2, 3, *range(1, 16)]:
                outcomes.append(await open_and_cancel(ports, step))
                template = psutil.Process(ports.template_pid) if ports.template_pid else None
                assert not template or not template.children(), f"a fork is left after step {step}"
        return outcomes

    before = psutil.Process().num_fds()
    assert set(run_in_order(order, main)) == {True, False}
    assert psutil.Process().num_fds() == before
    assert not psutil.Process().children(recursive=True)
