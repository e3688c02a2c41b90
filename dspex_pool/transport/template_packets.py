"""The packets between a pool and its template, as the pool makes and takes them."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from dspex_pool.errors import WorkerStartError
from dspex_pool.protocol.forking import MAX_MESSAGE_BYTES, encode

if TYPE_CHECKING:
    from dspex_pool.protocol.forking import Request

__all__ = ["packet_of", "receive_packet", "too_long"]

_BYTES_OF_A_DESCRIPTOR = 4


def packet_of(request: Request) -> bytes:
    """Return the packet of a request.

    Raises:
        WorkerStartError: The environment that it brings cannot be written as JSON.
    """
    try:
        return encode(request)
    except UnicodeEncodeError as error:
        raise _cannot_pass(
            "the environment has changed since its template was started, to what is no UTF-8"
        ) from error


def too_long(packet: bytes) -> WorkerStartError:
    """Make the error for a packet that the system refused as too long."""
    return _cannot_pass(
        f"{len(packet)} bytes of environment have changed since its template was started, and at most "
        f"{MAX_MESSAGE_BYTES} can be passed on"
    )


def _cannot_pass(problem: str) -> WorkerStartError:
    return WorkerStartError(f"a worker could not be started: {problem}. Renew the template (drain the pool).")


def receive_packet(channel: socket.socket) -> tuple[bytes, int]:
    """Return the next packet, empty at the end of the stream, and the descriptor that came with it, or -1.

    Raises:
        OSError: None is there yet (``BlockingIOError``), or the socket is broken.
    """
    packet, notes, _flags, _address = channel.recvmsg(
        MAX_MESSAGE_BYTES, socket.CMSG_LEN(_BYTES_OF_A_DESCRIPTOR), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in notes:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return packet, int.from_bytes(data[:_BYTES_OF_A_DESCRIPTOR], sys.byteorder)
    return packet, -1
