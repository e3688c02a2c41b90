"""A worker that a template has forked: signals to it and its group, its end, its reaping.

The pool is not its parent. It signals by a descriptor of the process, which never means another one. Its template
reaps it only when told to, so that its number stays its own until its group is killed; where the template has died,
the system reaps it at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from typing import TYPE_CHECKING, Protocol

import trio

from dspex_pool.transport.process import ExitWatch

if TYPE_CHECKING:
    from dspex_pool.transport.port import ExitStatus

__all__ = ["ForkedProcess", "Reaper"]

# Linux 6.9: the signal goes to the group that the process leads, even when it has been reaped.
_SIGNAL_PROCESS_GROUP = 4


class Reaper(Protocol):
    """Who reaps a forked worker."""

    @property
    def is_alive(self) -> bool:
        """Whether ended workers still wait to be reaped by it."""

    async def reap(self, pid: int) -> ExitStatus:
        """Reap a worker that has ended, and tell how it did, as far as that is known.

        Cancellation:
            Reap again.
        """


class ForkedProcess(ExitWatch):
    """One forked worker, the leader of its own session and group, from its start to its reaping.

    Args:
        pid: Its process id.
        exit_descriptor: Its pidfd.
        reaper: The template that forked it.
    """

    def __init__(self, pid: int, exit_descriptor: int, reaper: Reaper) -> None:
        super().__init__(pid, exit_descriptor)
        self._reaper = reaper

    def signal_leader(self, number: int) -> None:
        """Send a signal to the process alone. Does nothing once it is reaped."""
        if self.exit_status is None and self._exit_descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._exit_descriptor, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and what it has started. Does nothing once it is reaped."""
        if self.exit_status is None and self._exit_descriptor is not None:
            try:
                self._signal_group(self._exit_descriptor, number)
            except ProcessLookupError:
                # It was forked a moment ago and leads no group yet: it is all there is.
                self.signal_leader(number)

    def _signal_group(self, exit_descriptor: int, number: int) -> None:
        try:
            signal.pidfd_send_signal(exit_descriptor, number, None, _SIGNAL_PROCESS_GROUP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # An older kernel. The number is the worker's own as long as it lives, or waits for its template.
            if self._reaper.is_alive or not _has_ended(exit_descriptor):
                os.killpg(self.pid, number)

    async def reap(self) -> ExitStatus:
        """Wait until the process has ended, kill what is left of its group, and have it reaped.

        Cancellation:
            Nothing changes; reap again.
        """
        if self.exit_status is None:
            assert self._exit_descriptor is not None
            await trio.lowlevel.wait_readable(self._exit_descriptor)
            # Before the reaping: the zombie still keeps the group's number from being given away.
            self.signal_group(signal.SIGKILL)
            self.exit_status = await self._reaper.reap(self.pid)
        await self._reap_adopted()
        return self.exit_status


def _has_ended(exit_descriptor: int) -> bool:
    poll = select.poll()
    poll.register(exit_descriptor, select.POLLIN)
    return bool(poll.poll(0))
