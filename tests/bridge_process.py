"""A blocking client of the real bridge: real bytes on real pipes, every wait with a bound."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import psutil

from dspex_pool.protocol import FrameDecoder, encode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ECHO", "BridgeProcess", "is_gone", "running_bridge"]

#: The handler of the test kit that needs no DSPy.
ECHO = "dspex_testkit.children.echo:EchoHandler"

# Generous, because several test processes may share few cores; nothing waits that long when all is well.
_BOUND = 20.0


class BridgeProcess:
    """One bridge in a process of its own, and the client's end of its pipes.

    Args:
        words: Arguments of the bridge.
        env: Variables added to the environment.
        prefix: A command that starts the command behind it.
        passed: Descriptors that the bridge inherits.
        is_measured: Whether coverage, if it runs, follows the bridge. Python 3.11 hangs where a thread is traced
            while a signal waits for another one, so tests that send many signals say no.
    """

    def __init__(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        passed: Sequence[int] = (),
        is_measured: bool = True,
    ) -> None:
        variables = {**os.environ, **(env or {})}
        if not is_measured:
            variables = {name: value for name, value in variables.items() if not name.startswith("COVERAGE_")}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the process
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "dspex_pool.bridge", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=variables,
            bufsize=0,
            pass_fds=passed,
        )
        self._decoder = FrameDecoder(peer="bridge")
        self._next_id = 0
        #: Events received while an answer was awaited.
        self.events: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        """Process id of the bridge."""
        return self.process.pid

    def handshake(
        self, *, protocol: int = 2, events: tuple[str, ...] = ("log", "progress")
    ) -> dict[str, Any]:
        """Do what a client does first; return the answer's result."""
        wanted = {"protocol": protocol, "events": list(events)} if protocol > 1 else {}
        result: dict[str, Any] = self.ask("ping", initialization=True, worker_id="w-1", **wanted)
        return result

    def send(self, command: str, args: Mapping[str, Any] | None = None, **fields: Any) -> int:
        """Send a request; return its id."""
        request: dict[str, Any] = {
            "id": self._next_id,
            "command": command,
            "args": dict(args or {}),
            "timestamp": "now",
        } | fields
        self._next_id += 1
        self.send_bytes(encode_frame(json.dumps(request).encode()))
        request_id: int = request["id"]
        return request_id

    def send_bytes(self, data: bytes) -> None:
        """Write bytes to the bridge's stdin."""
        stdin = self.process.stdin
        assert stdin is not None
        while data:
            data = data[stdin.write(data) :]

    def close_stdin(self) -> None:
        """End the bridge's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close_stdout(self) -> None:
        """Stop reading answers."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or ``None`` at the end of the bridge's stdout."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + _BOUND
        while (payload := self._decoder.next_frame()) is None:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the bridge said nothing for {_BOUND} s; its stderr ends {self.stderr()[-2000:]}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                assert not self._decoder.buffered, "the bridge's stdout ended inside a frame"
                return None
            self._decoder.feed(data)
        message: dict[str, Any] = json.loads(payload)
        return message

    def answer(self) -> dict[str, Any]:
        """Return the next answer; keep the events before it."""
        while (message := self.receive()) is not None:
            if "success" in message:
                return message
            self.events.append(message)
        raise AssertionError(f"the bridge ended without an answer; its stderr ends {self.stderr()[-2000:]}")

    def ask(self, command: str, /, **args: Any) -> Any:
        """Run a command that succeeds; return its result."""
        request_id = self.send(command, args)
        reply = self.answer()
        assert reply["success"], reply
        assert reply["id"] == request_id
        return reply["result"]

    def refused(self, command: str, /, **args: Any) -> dict[str, Any]:
        """Run a command that fails; return the facts of its error."""
        request_id = self.send(command, args)
        reply = self.answer()
        assert not reply["success"], reply
        assert reply["id"] == request_id
        info: dict[str, Any] = reply.get("error_info", {})
        return {"error": reply["error"], **info}

    def announced(self) -> dict[str, Any]:
        """Wait for the next event: a sign that a command has begun."""
        event = self.receive()
        assert event is not None
        assert "event" in event, event
        return event

    def has_said(self, within: float = 0.0) -> bool:
        """Tell whether the bridge says something in so many seconds that was not received."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], within)[0])

    def interrupt(self) -> None:
        """Send SIGINT to the bridge alone."""
        os.kill(self.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait for the end of the bridge; return its exit status."""
        return self.process.wait(timeout=_BOUND)

    def stderr(self) -> str:
        """Return what was written to stderr so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode(errors="backslashreplace")

    def close(self) -> None:
        """End the bridge, reap it, and close everything."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stderr.close()


@contextlib.contextmanager
def running_bridge(
    *words: str,
    handler: str = ECHO,
    handshake: bool = True,
    **options: Any,
) -> Iterator[BridgeProcess]:
    """Run a bridge, in mode ``pool-worker`` as ``w-1`` unless ``words`` say otherwise.

    Options are those of ``BridgeProcess``.
    """
    usual = ["--mode", "pool-worker", "--worker-id", "w-1", "--handler", handler]
    bridge = BridgeProcess(*usual, *words, **options)
    try:
        if handshake:
            bridge.handshake()
        yield bridge
    finally:
        bridge.close()


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended. If it became a child of this one, it is reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
