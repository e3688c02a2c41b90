"""A started worker process: signals to it and its group, its end, its reaping.

All of it runs in the trio thread, and reaping is one step without a checkpoint. That is the whole guard
against signalling a stranger: while ``exit_status`` is unknown the process is alive or a zombie, and the
system gives its number, as a process and as a group, to nobody else.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import trio

from dspex_pool.transport.port import ExitStatus

if TYPE_CHECKING:
    import subprocess

__all__ = ["ExitWatch", "WorkerProcess", "exit_status_of", "open_exit_descriptor"]

#: Seconds between two looks for what is left of a killed group; together about one.
_PAUSES = tuple(0.001 * 2**count for count in range(10))

# Each thread waits for one process and does nothing else, so their number is that of the workers.
_WAITING_THREADS = trio.CapacityLimiter(math.inf)


def open_exit_descriptor(pid: int) -> int | None:
    """Return a descriptor that becomes readable when process ``pid`` ends.

    Returns:
        The descriptor; ``None`` where the system has none or gives none (old kernel, none left).
    """
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


class ExitWatch:
    """What is known of a started process, whoever its parent is.

    Args:
        pid: Its process id, which is the id of its group too.
        exit_descriptor: Becomes readable when it ends, or ``None``.
    """

    def __init__(self, pid: int, exit_descriptor: int | None) -> None:
        #: Process id, which is the id of its group too.
        self.pid = pid
        #: How it ended, or ``None`` while it is not reaped.
        self.exit_status: ExitStatus | None = None
        self._exit_descriptor = exit_descriptor
        self._memory_of: psutil.Process | None = None

    @property
    def resident_bytes(self) -> int | None:
        """Resident memory, or ``None`` where it cannot be known."""
        if self.exit_status is not None:
            return None
        try:
            if self._memory_of is None:
                self._memory_of = psutil.Process(self.pid)
            return int(self._memory_of.memory_info().rss) or None
        except (psutil.Error, OSError):
            # The latter where no descriptor is left to read it by.
            return None

    async def _reap_adopted(self) -> None:
        """Reap what was killed with the process and has become a child of this one, which adopts orphans.

        The first process of a container does, and seldom looks after them; others have none.

        Cancellation:
            What has not ended yet stays.
        """
        for pause in _PAUSES:
            if not _has_children_in(self.pid):
                return
            await trio.sleep(pause)

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the exit descriptor. Calling it again changes nothing."""
        descriptor, self._exit_descriptor = self._exit_descriptor, None
        if descriptor is not None:
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)


class WorkerProcess(ExitWatch):
    """One child process, the leader of its own session and group, from its start to its reaping.

    Args:
        popen: The started process. Nothing else may poll, wait for or signal it.
        exit_descriptor: What ``open_exit_descriptor`` gave for it.
    """

    def __init__(self, popen: subprocess.Popen[bytes], exit_descriptor: int | None) -> None:
        super().__init__(popen.pid, exit_descriptor)
        self._popen = popen

    def signal_leader(self, number: int) -> None:
        """Send a signal to the process alone. Does nothing once it is reaped."""
        if self.exit_status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and what it has started. Does nothing once it is reaped."""
        if self.exit_status is None:
            # macOS answers EPERM for a group of which only the zombie is left.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def wait_ended(self) -> None:
        """Wait until the process has ended, and leave it a zombie.

        Cancellation:
            Nothing changes; wait again.
        """
        if self.exit_status is not None:
            await trio.lowlevel.checkpoint()
        elif self._exit_descriptor is not None:
            await trio.lowlevel.wait_readable(self._exit_descriptor)
        else:
            # An abandoned thread ends with the process; it reaps nothing, so it disturbs nobody.
            await trio.to_thread.run_sync(
                _block_until_ended, self.pid, abandon_on_cancel=True, limiter=_WAITING_THREADS
            )

    async def reap(self) -> ExitStatus:
        """Wait until the process has ended, kill what is left of its group, and reap it.

        Cancellation:
            Nothing changes; reap again.
        """
        await self.wait_ended()
        status = self.end_group_and_reap()
        await self._reap_adopted()
        return status

    # Protected from Ctrl-C: once it is reaped, that must be known.
    @trio.lowlevel.enable_ki_protection
    def end_group_and_reap(self) -> ExitStatus:
        """Kill what is left of the group, then reap the process, which must have ended.

        Returns:
            How it ended; neither code nor signal are known if somebody else in this program has reaped it
            (``os.wait``, or SIGCHLD ignored). Then nothing is killed either: the number may be a stranger's.
        """
        if self.exit_status is None:
            code = None
            if _is_our_child(self.pid):
                # Before the reaping: the zombie still keeps the group's number from being given away.
                self.signal_group(signal.SIGKILL)
                code = _reap(self.pid)
            # Popen did not see the end; it must neither wait for this number later nor warn.
            self._popen.returncode = 0 if code is None else code
            self.exit_status = exit_status_of(code, "somebody else in this program has reaped it")
        return self.exit_status


def _is_our_child(pid: int) -> bool:
    if sys.platform == "darwin":  # pragma: no cover - macOS: waitid comes with Python 3.13 only
        return True
    else:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return False
        return True


def _has_children_in(group: int) -> bool:
    """Reap the children of this process in a group that have ended; tell whether there are others."""
    try:
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _reap(pid: int) -> int | None:
    try:
        # Not WNOHANG: macOS announces the end a moment before the zombie can be reaped.
        _, wait_status = os.waitpid(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(wait_status)


def exit_status_of(code: int | None, unknown_because: str) -> ExitStatus:
    """Return how a process ended, from what ``os.waitstatus_to_exitcode`` gave, or ``None`` if that is not known."""
    if code is None:
        return ExitStatus(unknown_because=unknown_because)
    return ExitStatus(signal=-code) if code < 0 else ExitStatus(code=code)


def _block_until_ended(pid: int) -> None:
    """Block this thread until process ``pid`` has ended, without reaping it."""
    if sys.platform == "darwin":  # pragma: no cover - macOS: waitid comes with Python 3.13 only
        end = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        # No such process: it is ending just now.
        with contextlib.closing(select.kqueue()) as queue, contextlib.suppress(ProcessLookupError):
            queue.control([end], 1)
    else:
        # No such child: somebody else has reaped it.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
