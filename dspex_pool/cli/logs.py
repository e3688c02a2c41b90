"""What the pool writes to its log, as lines on the screen."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dspex_pool.cli.problems import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["logs_on_screen"]

#: The log of the pool, and within it that of the workers: their stderr and their own log records.
POOL_LOG = "dspex_pool"
WORKER_LOG = "dspex_pool.worker"


class _Lines(logging.Handler):
    """Says each record in one line."""

    def __init__(self, say: Callable[[str], None], *, is_verbose: bool) -> None:
        super().__init__(logging.INFO if is_verbose else logging.WARNING)
        self._say = say
        self._is_verbose = is_verbose

    def emit(self, record: logging.LogRecord) -> None:
        # What a program prints for each row would bury the progress.
        if self._is_verbose or not record.name.startswith(WORKER_LOG):
            self._say(one_line(record.getMessage()))


@contextmanager
def logs_on_screen(say: Callable[[str], None], *, is_verbose: bool) -> Iterator[None]:
    """Show the pool's warnings while the block runs, and with ``is_verbose`` all that workers say.

    Args:
        say: Prints one line.
        is_verbose: Whether to show what workers write, and what the pool does about them.
    """
    log, handler = logging.getLogger(POOL_LOG), _Lines(say, is_verbose=is_verbose)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(handler.level)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
