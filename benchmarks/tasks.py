"""What workers are asked to do, for pools that take a function and for ours, which takes a handler's commands."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.handler import Handler, command

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HANDLER", "TASKS", "Tasks"]

#: The handler of our workers.
HANDLER = "benchmarks.tasks:Tasks"


def echo(value: Any) -> Any:
    """Return what was given."""
    return value


def wait(seconds: float) -> float:
    """Take so long, as a call to a language model does, and return how long."""
    time.sleep(seconds)
    return seconds


def process_id(_: Any) -> int:
    """Return which process this is."""
    return os.getpid()


#: The tasks by name. Each takes one JSON value and returns one.
TASKS: dict[str, Callable[[Any], Any]] = {"echo": echo, "wait": wait, "process_id": process_id}


class Tasks(Handler):
    """The tasks as commands; each takes ``{value}``."""

    @command
    def echo(self, args: dict[str, Any]) -> Any:
        """Return the value."""
        return args["value"]

    @command
    def wait(self, args: dict[str, Any]) -> Any:
        """Take so many seconds."""
        return wait(args["value"])

    @command
    def process_id(self, args: dict[str, Any]) -> Any:
        """Return which process this is."""
        return os.getpid()
