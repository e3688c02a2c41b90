"""The last frames of each worker, kept for the picture of a hang."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dspex_testkit.hangs.tasks import redacted

if TYPE_CHECKING:
    from dspex_pool.transport.port import Port, PortFactory

__all__ = ["LoggedFrames", "last_frames", "log_frames"]

#: How many frames are kept of one worker.
_KEPT = 6
#: Characters shown of one.
_SHOWN = 160

_logs: WeakKeyDictionary[Any, deque[tuple[str, bytes]]] = WeakKeyDictionary()


def log_frames(port: Any) -> None:
    """Have ``port`` remember its last frames from now on. Costs an append for each."""
    log: deque[tuple[str, bytes]] = deque(maxlen=_KEPT)
    send, receive = port.send, port.receive

    async def logged_send(payload: bytes) -> None:
        log.append(("to", payload))
        await send(payload)

    async def logged_receive() -> bytes:
        payload: bytes = await receive()
        log.append(("from", payload))
        return payload

    port.send, port.receive = logged_send, logged_receive
    _logs[port] = log


def last_frames(port: Any) -> list[str]:
    """Return the last frames of a port as text, oldest first; empty if they were not kept."""
    return [f"{direction} the worker: {_text(payload)}" for direction, payload in _logs.get(port, ())]


def _text(payload: bytes) -> str:
    text = redacted(payload.decode("utf-8", "backslashreplace"))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(payload)} bytes)"


class LoggedFrames:
    """A port factory whose ports remember their last frames.

    Args:
        factory: Starts the workers.
    """

    def __init__(self, factory: PortFactory) -> None:
        #: What starts the workers.
        self.factory = factory

    async def open(self, *, worker_id: str, incarnation: int) -> Port:
        """Start a worker.

        Cancellation: As for the factory behind it.
        """
        port = await self.factory.open(worker_id=worker_id, incarnation=incarnation)
        log_frames(port)
        return port
