"""SIGINT as the client's wish to stop the running command, and nothing else."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

__all__ = ["CommandCancelledError", "Interrupts"]


class CommandCancelledError(KeyboardInterrupt):
    """The client asked the running command to stop.

    A ``KeyboardInterrupt``, because libraries know what to do with one: they clean up and let it pass, and
    their ``except Exception`` does not swallow it.
    """


class Interrupts:
    """Raises ``CommandCancelledError`` in the running command when SIGINT comes, and never elsewhere.

    A command runs if and only if ``run`` is on the main thread's stack. Looking there, instead of at a flag,
    leaves no moment between the end of a command and the lowering of the flag in which a late signal could
    tear the answer or hit the next command.

    As a context manager it is a shield: inside, the exception is kept back until the shield is left. Shields
    nest, and belong to the main thread; others use ``shield``.
    """

    def __init__(self) -> None:
        self._shields = 0
        self._kept_back = False
        # The number of the main thread is kept by a fork, and is cheaper to compare than the thread.
        self._main = threading.main_thread().ident

    def install(self) -> None:
        """Take over SIGINT. Main thread only."""
        signal.signal(signal.SIGINT, self._on_signal)

    def run(self, command: Callable[[dict[str, Any]], Any], args: dict[str, Any]) -> Any:
        """Call ``command(args)``; while it runs, SIGINT raises in it.

        Raises:
            CommandCancelledError: SIGINT came, and the command let the exception pass.
        """
        return command(args)

    def shield(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which no exception is raised by SIGINT, on whatever thread this is called."""
        return self if threading.get_ident() == self._main else contextlib.nullcontext()

    def __enter__(self) -> None:
        self._shields += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shields -= 1
        if self._kept_back and not self._shields:
            self._kept_back = False
            raise CommandCancelledError

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not _is_running(frame):
            return
        # Also where a shield is just ending: what was kept back is raised here then, and not once more.
        self._kept_back = bool(self._shields)
        if not self._kept_back:
            raise CommandCancelledError


_RUN = Interrupts.run.__code__


def _is_running(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _RUN:
            return True
        frame = frame.f_back
    return False
