"""Forks of a template in the place of started programs, for tools that know nothing of templates."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from dspex_pool.protocol.forking import (
    MAX_MESSAGE_BYTES,
    Answer,
    Fork,
    Forked,
    Ready,
    Reap,
    Reaped,
    Request,
    decode_answer,
    encode,
)
from dspex_pool.transport.host_forks import release
from dspex_pool.transport.launch import launch_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.transport.options import SubprocessOptions

__all__ = ["ForkedPopen", "Template", "template"]

#: Seconds that a template has to answer; far more than it takes.
_BOUND = 60.0


class Template:
    """A template that is asked without trio, one thing after the other.

    Args:
        options: How its workers are started.
    """

    def __init__(self, options: SubprocessOptions) -> None:
        self._launched = launch_template(options, options.environment())
        self._launched.channel.settimeout(_BOUND)
        # Tools wait in threads for workers that hang.
        self._turn = threading.Lock()
        #: Workers forked.
        self.count = 0

    def hear(self) -> tuple[Answer, list[int]]:
        """Return the next answer, with the descriptors that came along."""
        packet, descriptors, _, _ = socket.recv_fds(self._launched.channel, MAX_MESSAGE_BYTES, 1)
        return decode_answer(packet), descriptors

    def ask(self, request: Request, streams: tuple[int, ...] = ()) -> tuple[Answer, list[int]]:
        """Send a request and return its answer."""
        with self._turn:
            socket.send_fds(self._launched.channel, [encode(request)], list(streams))
            return self.hear()

    def popen(self, words: list[str], *, stderr: IO[bytes], **_options: Any) -> ForkedPopen:
        """Fork a worker, whatever program is named; takes what ``subprocess.Popen`` takes."""
        self.count += 1
        return ForkedPopen(self, f"fork-{self.count}", stderr)

    def close(self) -> None:
        """End the template."""
        self._launched.process.signal_group(signal.SIGKILL)
        os.waitid(os.P_PID, self._launched.process.pid, os.WEXITED | os.WNOWAIT)
        self._launched.process.end_group_and_reap()
        release(self._launched.channel.fileno())
        release(self._launched.stderr)
        self._close_exit_descriptor()

    def _close_exit_descriptor(self) -> None:
        descriptor = self._launched.process._exit_descriptor
        assert descriptor is not None
        os.close(descriptor)


class ForkedPopen:
    """A forked worker, as ``subprocess.Popen`` shows a started one."""

    def __init__(self, template: Template, worker_id: str, stderr: IO[bytes]) -> None:
        far_stdin, stdin = os.pipe()
        stdout, far_stdout = os.pipe()
        far_lifeline, self._lifeline = os.pipe()
        streams = (far_stdin, far_stdout, stderr.fileno(), far_lifeline)
        answer, descriptors = template.ask(Fork(1, worker_id, {}), streams)
        for far_end in (far_stdin, far_stdout, far_lifeline):
            os.close(far_end)
        assert isinstance(answer, Forked), answer
        (self._pidfd,) = descriptors
        self._template = template
        self._reaping = threading.Lock()
        self.pid = answer.pid
        self.stdin = os.fdopen(stdin, "wb", buffering=0)
        self.stdout = os.fdopen(stdout, "rb", buffering=0)
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status; raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            self._reap()
        assert self.returncode is not None
        return self.returncode

    def _reap(self) -> None:
        with self._reaping:
            if self.returncode is None:
                answer, _ = self._template.ask(Reap(self.pid))
                assert isinstance(answer, Reaped)
                self.returncode = answer.code
                os.close(self._pidfd)
                os.close(self._lifeline)

    def poll(self) -> int | None:
        """Return the exit status if the worker has ended."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker alone."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)


@contextmanager
def template(options: SubprocessOptions) -> Iterator[Template]:
    """Run a template that is warm."""
    forking = Template(options)
    try:
        answer, _ = forking.hear()
        assert answer == Ready()
        yield forking
    finally:
        forking.close()
