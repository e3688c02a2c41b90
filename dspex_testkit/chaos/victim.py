"""A worker that something is done to: what is done, and what can be seen of it from outside, on each kind of port."""

from __future__ import annotations

import contextlib
import os
import signal as signals
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_pool.transport.port import ExitStatus
from dspex_testkit.chaos.system import ignored_signals, soon

if TYPE_CHECKING:
    from dspex_pool.worker import PoolWorker
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.worker_model import WorkerModel

__all__ = ["Victim"]


class Victim:
    """One worker of a pool.

    Args:
        pool: The pool.
        worker: The worker.
    """

    def __init__(self, pool: PoolHandle, worker: PoolWorker) -> None:
        self.pool = pool
        self.worker = worker
        self._watched = pool.port_of(worker)
        self._port: Any = self._watched.inner

    @property
    def pid(self) -> int:
        """Process id; only where a process is."""
        pid = self._watched.pid
        assert pid is not None, f"no process is behind {self._watched}"
        return pid

    @property
    def model(self) -> WorkerModel:
        """What plays the worker, where no process is."""
        if self.pool.port == "sim":
            model: WorkerModel = self._port.model
        else:
            model = self._port.server._loop.model
        return model

    # --- what is done to it ----------------------------------------------------------------------------------

    def end(self, signal: int = signals.SIGKILL) -> None:
        """End it as by a signal from outside."""
        self.pool.end(self.worker, signal)

    def expect_end(self) -> None:
        """Have the pool wait for the news of its end before it calls itself whole."""
        self.pool.expect_end(self.worker)

    def stop(self) -> None:
        """Stop it as by SIGSTOP."""
        self.pool.ports.kind.stop(self._port)

    def go_on(self) -> None:
        """Have it go on, if it still can."""
        if self._watched.exit_status is None:
            self.pool.ports.kind.go_on(self._port)

    def close_stdin(self) -> None:
        """Close its stdin behind the back of the pool."""
        self._port.send_eof()

    # --- what is seen of it ------------------------------------------------------------------------------------

    def exit_status(self) -> ExitStatus | None:
        """Return how it ended; ``None`` if it has not. The pool need not know of it yet."""
        if self._watched.exit_status is None and self.pool.port == "server":
            status: ExitStatus | None = self._port.server.exit_status
            return status
        if self._watched.exit_status is None and self.pool.port == "sim":
            return self.model.exit_status
        if self._watched.exit_status is None:
            return self._peek()
        return self._watched.exit_status

    def exits(self, status: ExitStatus) -> list[str]:
        """Return evidence that it ended in a certain way, if it did."""
        seen = self.exit_status()
        return [f"{self._watched.worker_id} ended: {seen}"] if seen == status else []

    @property
    def is_left_alone(self) -> bool:
        """Whether the pool has sent it no signal and not closed its stdin."""
        return not self._watched.signals

    @property
    def stderr_tail(self) -> str:
        """The last lines of its stderr."""
        return self._watched.stderr_tail

    @property
    def resident_bytes(self) -> int:
        """Its resident memory in bytes; 0 when it is gone."""
        return self._watched.resident_bytes or 0

    def ignores(self, signal: int) -> bool:
        """Tell whether it ignores a signal."""
        if self.pool.port == "process":
            return bool(ignored_signals(self.pid) >> (signal - 1) & 1)
        reactions = self.model.reactions
        return (reactions.terminate if signal == signals.SIGTERM else reactions.interrupt) is None

    def state(self) -> str:
        """Return the state of its process as a letter; of a worker without one, ``T`` or ``S``."""
        if self.pool.port != "process":
            return "T" if self.model.is_stopped else "S"
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return "gone"

    def comes_to(self, state: str) -> bool:
        """Tell whether it comes to a state within a moment."""
        return bool(soon(lambda: self.state() == state))

    def _peek(self) -> ExitStatus | None:
        """Look at how its process ended, and leave it to the pool to reap it."""
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if found is not None and found.si_pid:
                by_signal = found.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
                number = found.si_status
                return ExitStatus(signal=number) if by_signal else ExitStatus(code=number)
        return self._watched.exit_status
