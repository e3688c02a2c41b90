"""The pool's log: loggers whose handlers and filters, which are other people's code, cannot hurt the pool."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["PoolLog"]


class PoolLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises.

    ``logging`` lets an error of a filter, and of a handler that does not catch its own, out to whoever logs. In the
    pool that is a task on which all workers hang, or the one that reports an error. Here it is told on stderr, once.

    Args:
        name: Name of the logger.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))
        self._has_failed = False

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the record's parts as they were given, ``extra`` too."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log as ``Logger.log`` does, in the name of who calls, and raise nothing."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            self._tell_once()

    def _tell_once(self) -> None:
        if self._has_failed or not logging.raiseExceptions:
            return
        self._has_failed = True
        text = (
            f"a handler or filter of logger {self.logger.name!r} raised; told once\n{traceback.format_exc()}"
        )
        # There may be no stderr, or nobody at its other end.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
