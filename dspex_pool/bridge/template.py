"""The template as a program: it imports a handler once, and forks a worker whenever the pool asks for one.

It has one thread and waits for nothing but the pool's next message. In the process that started it ``serve`` never
returns; in a fork it returns the worker's name, and the program goes on as that worker.

A fork copies each page of memory that it touches, at about a microsecond and 4 KiB. So what every worker would do in
the same way is done here, before: reading the arguments alone is 1.2 MiB.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING

from dspex_pool.bridge.__main__ import run
from dspex_pool.bridge.command_line import parse_arguments
from dspex_pool.bridge.forks import become_worker, find_hazards
from dspex_pool.bridge.handler import Handler, import_named, marked_names
from dspex_pool.bridge.lifeline import has_hung_up
from dspex_pool.bridge.places import look_where_the_pool_looks
from dspex_pool.bridge.process import EXIT_USAGE, claim_wires, hear_signals
from dspex_pool.bridge.versions import installed_version, is_installed
from dspex_pool.protocol.forking import (
    MAX_MESSAGE_BYTES,
    PROCESS_ADVICE,
    Answer,
    Fork,
    Forked,
    NotForked,
    Ready,
    Reap,
    Reaped,
    Refused,
    Request,
    decode_request,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["Template", "claim_socket", "main"]

#: Streams of a worker, and its lifeline.
_DESCRIPTORS_OF_A_WORKER = 4

# What to do where the system refuses a fork.
_ADVICE: dict[int | None, str] = {
    **PROCESS_ADVICE,
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or let the handler hold fewer open.",
}


def main(words: Sequence[str] | None = None) -> None:
    """Serve the pool until it leaves; in each fork, run a worker.

    Args:
        words: The arguments of a worker. All forks have them, but for the worker's name.
    """
    look_where_the_pool_looks()
    arguments = parse_arguments(sys.argv[1:] if words is None else words)
    template = Template(claim_socket())
    template.prepare(arguments.handler)
    arguments.worker_id, lifeline = template.serve()
    run(arguments, lifeline)


def claim_socket() -> socket.socket:
    """Take the socket that is stdin and stdout, and give the process harmless ones in its place."""
    wires = claim_wires()
    os.close(wires.stdout)  # the same socket
    return socket.socket(fileno=wires.stdin)


class Template:
    """A process that is copied.

    Args:
        channel: The socket to the pool.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    # --- warming up ----------------------------------------------------------------------------------

    def prepare(self, handler: str) -> None:
        """Load what all workers need, and tell the pool that it may ask. The process ends if it cannot be copied.

        Args:
            handler: Name of the handler.
        """
        # Workers ignore it while they are idle, and a fork is a worker before it has said so.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        hear_signals()
        self._end_with_pool(on=True)
        gc.disable()
        self._warm_up(handler)
        try:
            hazards = self._hazards()
        except OSError as error:
            hazards = f"whether it may be forked cannot be seen ({error}). Mount /proc, or set start_method to spawn"
        if hazards:
            self._refuse(hazards)
        # The collector's marks would copy all of this into each worker. Garbage among it stays, once for all of them:
        # to look for it takes a tenth of an import of DSPy, which leaves next to none.
        gc.freeze()
        self._end_with_pool(on=False)
        self._send(Ready())

    def _end_with_pool(self, *, on: bool) -> None:
        """Let the system end this process when the pool's end of the socket closes, whatever it is busy with.

        An import may take for ever, and a thread that watches must not be. SIGIO, which nobody handles, comes for
        the socket's end, and for messages: so this is off before the first is sent.
        """
        fd = self._channel.fileno()
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
        # If the pool has left already, no signal comes any more.
        if on and has_hung_up(fd):
            self._leave(0)

    def _warm_up(self, name: str) -> None:
        for distribution in ("dspy", "dspex_pool"):
            installed_version(distribution)
        is_installed("dspy")
        logging.getLogger().setLevel(logging.INFO)
        try:
            handler = import_named(name, argument="handler")
            if hasattr(handler, "warm_up"):
                handler.warm_up()
            if isinstance(handler, type) and issubclass(handler, Handler):
                marked_names(handler)
        except Exception as error:
            traceback.print_exc()
            self._refuse(f"the handler {name} cannot be used: {error!r}")

    def _hazards(self, descriptors: Sequence[int] = ()) -> str:
        found = find_hazards({self._channel.fileno(), *descriptors})
        if not found:
            return ""
        return (
            f"it has {'; '.join(found)}, which its forks would share or miss. Let the handler open that in its "
            "__init__ instead of at import, or set start_method to spawn"
        )

    def _refuse(self, reason: str) -> NoReturn:
        self._end_with_pool(on=False)
        self._send(Refused(reason))
        self._leave(EXIT_USAGE)

    # --- serving -------------------------------------------------------------------------------------

    def serve(self) -> tuple[str, int]:
        """Do what the pool asks for, until it leaves.

        Returns:
            In a fork only: the name of the worker that it is to be, and its lifeline.
        """
        while True:
            request, descriptors = self._receive()
            if isinstance(request, Reap):
                self._send(Reaped(request.pid, _reap(request.pid)))
            elif self._fork(request, descriptors):
                return request.worker_id, descriptors[-1]
            for descriptor in descriptors:
                os.close(descriptor)

    def _receive(self) -> tuple[Request, list[int]]:
        try:
            packet, descriptors, _flags, _address = socket.recv_fds(
                self._channel, MAX_MESSAGE_BYTES, _DESCRIPTORS_OF_A_WORKER
            )
        except ConnectionResetError:  # the pool has left without reading our last answer
            self._leave(0)
        if not packet:
            self._leave(0)
        return decode_request(packet), descriptors

    def _fork(self, request: Fork, descriptors: list[int]) -> bool:
        """Fork a worker and tell of it; true in the worker."""
        try:
            if hazards := self._hazards(descriptors):
                self._send(NotForked(request.number, hazards, is_spoilt=True))
                return False
            if len(descriptors) < _DESCRIPTORS_OF_A_WORKER:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            _flush()
            pid = os.fork()
        except OSError as error:
            self._send(NotForked(request.number, f"the system refused: {_explain(error)}", is_spoilt=False))
            return False
        if pid:
            self._tell_forked(request.number, pid)
            return False
        become_worker(descriptors[:-1], self._channel.detach(), request.environment)
        return True

    def _tell_forked(self, number: int, pid: int) -> None:
        try:
            exit_descriptor = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            reason = f"no descriptor of the worker can be had: {_explain(error)}"
            self._send(NotForked(number, reason, is_spoilt=False))
            return
        self._send(Forked(number, pid), [exit_descriptor])
        os.close(exit_descriptor)

    def _send(self, message: Answer, descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._channel, [encode(message)], list(descriptors))
        except OSError:
            self._leave(0)

    def _leave(self, status: int) -> NoReturn:
        """End the process, and what its imports have started."""
        _flush()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGTERM)
        os._exit(status)


def _flush() -> None:
    """Write what was printed, as far as imports have left streams to write it to."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _explain(error: OSError) -> str:
    advice = _ADVICE.get(error.errno)
    return f"{error.strerror}. {advice}" if advice else f"{error.strerror}."


def _reap(pid: int) -> int | None:
    try:
        _, wait_status = os.waitpid(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(wait_status)


if __name__ == "__main__":
    main()
