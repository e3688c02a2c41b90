"""The contract of all ports, over real pipes: to the mock server in a thread, and as a process."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
from dspex_pool.transport.template import TemplatePortFactory
from dspex_testkit.bridge_mock_server import BridgeMockServer
from dspex_testkit.chaos.line import Tap
from dspex_testkit.chaos.ports import LinedPort
from dspex_testkit.contracts.port import PortContract
from dspex_testkit.pipe_port import PipePort
from dspex_testkit.ports.watched import WatchedPort
from tests.forked_programs import command_of_template

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_pool.transport.port import Port
    from dspex_testkit.server_faults import Fault


@contextlib.asynccontextmanager
async def ended(port: Port) -> AsyncIterator[Port]:
    """End and reap the worker when the block is left."""
    try:
        yield port
    finally:
        port.kill()
        with trio.CancelScope(shield=True):
            await port.attend()


@pytest.mark.trio
class TestPipePort(PortContract):
    """The contract on the mock server in a thread."""

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a port to a server in a thread."""
        server = BridgeMockServer(faults=faults, max_frame_bytes=max_frame_bytes)
        async with ended(PipePort(server)) as port:
            yield port


@pytest.mark.trio
class TestWatchedPortOnSockets(PortContract):
    """The contract on sockets to the mock server, as bodies for all kinds of port see it."""

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a watched port to a server in a thread."""
        server = BridgeMockServer(faults=faults, max_frame_bytes=max_frame_bytes, wire="sockets")
        async with ended(WatchedPort(PipePort(server), "w-0", 1, lambda *sent: None)) as port:
            yield port


@pytest.mark.trio
class TestLinedPort(PortContract):
    """The contract through a line that no fault has touched."""

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a port to a server in a thread, with a line before it and a tap that looks on."""
        server = BridgeMockServer(faults=faults, max_frame_bytes=max_frame_bytes)
        port = LinedPort(PipePort(server), "w-0", [Tap(None)], max_frame_bytes)
        async with ended(port):
            yield port


def server_words(faults: tuple[Fault, ...], max_frame_bytes: int) -> list[str]:
    """Return the arguments of a mock server that is a process."""
    words = ["--mode", "pool-worker", "--max-frame-bytes", str(max_frame_bytes)]
    for fault in faults:
        words += ["--fault", f"{fault.command}:{fault.kind}"]
    return words


@pytest.mark.trio
@pytest.mark.budget(2)
class TestSubprocessPort(PortContract):
    """The contract on a real process, whose program is the mock server."""

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a port to the server as a program."""
        command = [sys.executable, "-m", "dspex_testkit.bridge_mock_server"]
        command += server_words(faults, max_frame_bytes)
        options = SubprocessOptions(command=command, max_frame_bytes=max_frame_bytes)
        async with ended(await SubprocessPortFactory(options).open(worker_id="w-0", incarnation=1)) as port:
            yield port


@pytest.mark.trio
@pytest.mark.budget(2)
@pytest.mark.skipif(sys.platform != "linux", reason="templates take what Linux has")
class TestForkedPort(PortContract):
    """The contract on a process that a template has forked, whose program is the mock server."""

    @pytest.fixture(autouse=True)
    def _template_of_servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SubprocessOptions, "template_command", command_of_template)

    @contextlib.asynccontextmanager
    async def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AsyncIterator[Port]:
        """Open a port to a fork that serves."""
        words = {"FORKED_SERVER": json.dumps(server_words(faults, max_frame_bytes))}
        async with TemplatePortFactory(
            SubprocessOptions(env=words, max_frame_bytes=max_frame_bytes)
        ) as ports:
            async with ended(await ports.open(worker_id="w-0", incarnation=1)) as port:
                yield port
