"""SIGINT, which is Ctrl-C, and SIGTERM: how they end the commands of both programs.

The first one ends the command. What it has started is ended on the way out, one line says so, and the exit status is
the one for the signal. From then on more of them change nothing: they would cut short the ending. Under trio, where a
signal must not be raised just anywhere, a ``Stop`` takes them meanwhile.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from dspex_pool.cli.problems import ExitCode, say_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from typing import Any

__all__ = ["CODES", "Stopped", "handle_signals", "ignore_signals", "stoppable"]

#: The signals that end a command, with its exit status.
CODES: Final[Mapping[int, ExitCode]] = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}


class Stopped(SystemExit):
    """A signal has ended the command. It is no error, so whatever is on the way lets it pass.

    Args:
        number: The signal.
        advice: What else the user should know then.
    """

    def __init__(self, number: int, advice: str = "") -> None:
        super().__init__(CODES[number])
        said = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        #: The line that tells of it.
        self.text = f"{said}; {advice}" if advice else said


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block, which is all that is left to do in this program.

    Raises:
        Stopped: One of them came. It was told on stderr.
    """
    handle_signals(_raise)
    try:
        yield
    except Stopped as stopped:
        say_error(stopped.text)
        raise
    finally:
        ignore_signals()


def handle_signals(handler: Callable[[int, FrameType | None], object]) -> Mapping[int, Any]:
    """Have ``handler`` take SIGINT and SIGTERM; return what took them before."""
    return {number: signal.signal(number, handler) for number in CODES}


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM from now on, since the program is about to end.

    An interpreter that ends gives each signal that it handles its default back, but not those that it ignores.
    """
    for number in CODES:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise Stopped(number)
