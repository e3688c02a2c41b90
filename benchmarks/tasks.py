"""What workers are asked to do, for pools that take a function and for ours, which takes a handler's commands."""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.bridge.handler import Command

__all__ = ["HANDLER", "TASKS", "WARM_HANDLER", "Tasks", "WarmTasks"]

#: The handler of our workers.
HANDLER = "benchmarks.tasks:Tasks"
#: The handler of workers that are forked.
WARM_HANDLER = "benchmarks.tasks:WarmTasks"


def echo(value: Any) -> Any:
    """Return what was given."""
    return value


def wait(seconds: float) -> float:
    """Take so long, as a call to a language model does, and return how long."""
    time.sleep(seconds)
    return seconds


def deaf(seconds: float) -> float:
    """Take so long, and heed no interrupt meanwhile or later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return wait(seconds)


def hold(seconds: float) -> int:
    """Take so long, and return which process this is."""
    time.sleep(seconds)
    return os.getpid()


def predict(seconds: float) -> int:
    """Import DSPy and run a program once, take so long besides, and return which process this is."""
    import dspy

    from dspex_pool.bridge.extractive import MODEL, ExtractiveEngine

    facts = "The Nile flows north. It reaches the sea in Egypt."
    with dspy.context(lm=dspy.LM(MODEL, engine=ExtractiveEngine(), cache=False)):
        answer = dspy.Predict("context, question -> answer")(
            context=facts, question="Where is the sea?"
        ).answer
    if not answer:
        raise ValueError("the program gave no answer")
    return hold(seconds)


#: The tasks by name. Each takes one JSON value and returns one.
TASKS: dict[str, Callable[[Any], Any]] = {
    "echo": echo,
    "wait": wait,
    "deaf": deaf,
    "hold": hold,
    "predict": predict,
}


class Tasks(Handler):
    """The tasks as commands; each takes ``{value}``."""

    @functools.cached_property
    def commands(self) -> Mapping[str, Command]:
        """The tasks by name."""
        tasks = {name: functools.partial(_with_value, task) for name, task in TASKS.items()}
        return {**tasks, "create_program": _create_program}


class WarmTasks(Tasks):
    """The same for a template."""

    @classmethod
    def warm_up(cls) -> None:
        """Import DSPy and run a program, once for all workers."""
        predict(0.0)


def _with_value(task: Callable[[Any], Any], args: dict[str, Any]) -> Any:
    return task(args["value"])


def _create_program(args: dict[str, Any]) -> dict[str, Any]:
    """Say that a program was created: what is measured is what the parent keeps of it."""
    return {"program_id": args["id"], "status": "created"}
