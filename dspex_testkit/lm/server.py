"""The HTTP service on loopback, in a thread of the test's process: ``with LMServer() as server``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn

from dspex_testkit.lm.http_app import LMApp
from dspex_testkit.lm.script import LMScript

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LMServer"]

_HOST = "127.0.0.1"
#: Seconds after which a server that does not start or stop is a mistake of ours.
_SOON = 20.0
#: Seconds that answers under way have to reach their clients when the server stops. One that hangs takes none.
_LAST_WORDS = 1


class LMServer:
    """An OpenAI-compatible server that plays a script.

    Args:
        script: What it answers; by default a new one, in memory.
    """

    def __init__(self, script: LMScript | None = None) -> None:
        #: What it answers, and what it was asked.
        self.script = LMScript() if script is None else script
        self._port = 0
        self._running: _Running | None = None

    @property
    def api_base(self) -> str:
        """The address that clients are given."""
        return f"http://{_HOST}:{self._port}/v1"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings with which ``configure_lm`` has workers ask this server."""
        return {"model": "openai/gpt-4o-mini", "api_base": self.api_base, "api_key": "no-secret"}

    def start(self) -> None:
        """Listen, on the port of the time before if there was one."""
        assert self._running is None, "it was not started before"
        listener = socket.create_server((_HOST, self._port))
        self._port = listener.getsockname()[1]
        self._running = _Running(LMApp(self.script), listener)

    def stop(self) -> None:
        """Close all connections and stop listening: connections are refused from now on."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections within the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> LMServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Running:
    """One run of the server, in a thread."""

    def __init__(self, app: LMApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=_LAST_WORDS,
            # It complains about each connection that the script has it break.
            log_config=None,
            log_level=100,
        )
        self._app = app
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._has_begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="dspex language model server")
        self._thread.start()
        assert self._has_begun.wait(_SOON), "the server's thread has begun"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._app.open()
        # What comes before it serves waits in the listening socket.
        self._has_begun.set()
        await self._server.serve(sockets=[self._listener])
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        # What it has aborted, the loop closes in its next round.
        await asyncio.sleep(0)

    def stop(self) -> None:
        """Stop serving, and wait for the thread."""
        self._server.should_exit = True
        assert self._loop is not None, "it has begun"
        self._loop.call_soon_threadsafe(self._app.close)
        self._thread.join(_SOON)
        assert not self._thread.is_alive(), "the server has stopped"
