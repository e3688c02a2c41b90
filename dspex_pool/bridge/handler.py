"""Handlers: what a worker serves besides the commands that every worker has."""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from dspex_pool.bridge.secrets import Secrets
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Answer",
    "Command",
    "Counters",
    "Handler",
    "HandlerContext",
    "command",
    "commands_of",
    "import_allowed",
    "import_named",
    "marked_names",
]

#: Takes the args of a request and returns a JSON value, or an ``Answer``; raises to fail the request.
Command: TypeAlias = Callable[[dict[str, Any]], Any]

_MarkedT = TypeVar("_MarkedT", bound=Callable[..., Any])
_MARK = "_dspex_command"


# Making a dataclass takes a millisecond of every start of a worker: these are written out.
class Answer:
    """A result with what is told about it besides."""

    __slots__ = ("result", "usage")

    def __init__(self, result: Any, usage: dict[str, Any] | None = None) -> None:
        #: Any JSON value.
        self.result = result
        #: Tokens by model, as DSPy counts them; told to clients of version 2.
        self.usage = usage


class Counters:
    """What the loop counts."""

    __slots__ = ("command_count", "error_count")

    def __init__(self) -> None:
        #: Requests received, valid or not.
        self.command_count = 0
        #: Requests answered with a failure.
        self.error_count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerContext:
    """What a handler may know of the worker it runs in, and do with it."""

    #: ``standalone`` or ``pool-worker``.
    mode: str = "standalone"
    #: Name of the worker, or ``None``.
    worker_id: str | None = None
    #: Prefixes of the modules that names in requests may lead to.
    allow: tuple[str, ...] = ()
    #: When the worker started: a reading of ``time.monotonic()``.
    started: float = field(default_factory=time.monotonic)
    #: Secret values; what is added is masked in failures and logs.
    secrets: Secrets = field(default_factory=Secrets)
    #: What the loop counts.
    counters: Counters = field(default_factory=Counters)
    #: Tells the client of an event (kind, data) of the running request. False if it did not ask for them.
    emit: Callable[[str, dict[str, Any]], bool] = lambda kind, data: False
    #: Gives a context in which cancellation waits: for work that must not be left half done, such as an import.
    shield: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    #: The protocol version spoken with the client.
    protocol: Callable[[], int] = lambda: 1


def command(function: _MarkedT) -> _MarkedT:
    """Mark a method of a ``Handler`` as the command of its name."""
    setattr(function, _MARK, True)
    return function


class Handler:
    """Base of handlers that are written as a class with marked methods.

    A handler needs no base class: any class serves that takes a ``HandlerContext`` and has ``commands``. The
    other members are optional, too.
    """

    #: Names for the handshake of what this handler can do.
    capabilities: ClassVar[tuple[str, ...]] = ()

    def __init__(self, context: HandlerContext) -> None:
        self.context = context

    @classmethod
    def warm_up(cls) -> None:
        """Import and prepare what all workers need: called once in a template, which is then forked.

        No thread, connection, event loop or open cache may be left. What must be fresh in each worker belongs into
        ``__init__``, or to ``os.register_at_fork``.
        """

    @functools.cached_property
    def commands(self) -> Mapping[str, Command]:
        """The commands by name: all marked methods."""
        return {name: getattr(self, name) for name in marked_names(type(self))}

    def ping_facts(self) -> Mapping[str, Any]:
        """Return what the answer to ``ping`` tells besides the usual."""
        return {}

    def statistics(self) -> Mapping[str, Any]:
        """Return what the answer to ``get_stats`` tells besides the usual."""
        return {}

    def error_facts(self, error: BaseException) -> Mapping[str, Any]:
        """Return any of ``code``, ``status``, ``retry_after``, ``retryable`` that is known of an exception."""
        return {}

    def close(self) -> Mapping[str, Any] | None:
        """Let go of everything, because of the command ``shutdown``; return what its answer tells besides.

        Not called when the process ends in another way.
        """
        return None


_marked_names: dict[type, tuple[str, ...]] = {}


def marked_names(kind: type[Handler]) -> tuple[str, ...]:
    """Return the names of the methods that are marked as commands. They are looked for once."""
    if kind not in _marked_names:
        marked = (name for name in dir(kind) if getattr(getattr(kind, name), _MARK, False))
        _marked_names[kind] = tuple(marked)
    return _marked_names[kind]


def commands_of(handler: Any, reserved: Mapping[str, Command]) -> dict[str, Command]:
    """Return the commands of a worker: the handler's and the ``reserved`` ones, which it cannot replace.

    Raises:
        InvalidArgumentError: The handler has no table of commands, or one with a reserved name.
    """
    own = getattr(handler, "commands", None)
    if not isinstance(own, Mapping):
        raise InvalidArgumentError(
            f"{type(handler).__name__} has no mapping named 'commands'", argument="handler"
        )
    if taken := sorted(set(own) & set(reserved)):
        raise InvalidArgumentError(
            f"{type(handler).__name__} defines {', '.join(taken)}, which every worker has already",
            argument="handler",
        )
    return {**own, **reserved}


def import_named(name: str, *, argument: str) -> Any:
    """Import what ``package.module:attribute`` names.

    Args:
        name: The name.
        argument: Where the name comes from, for the error.

    Raises:
        InvalidArgumentError: The name is malformed, or leads nowhere.
    """
    module_name, _, attribute = name.partition(":")
    # One name only: with more, an allowed module would lead on to everything that it imports.
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise InvalidArgumentError(
            f"{argument} {name!r} is not of the form package.module:name", argument=argument
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidArgumentError(
            f"{argument} {name!r} cannot be imported: {error}", argument=argument
        ) from error


def import_allowed(name: str, allow: Sequence[str], *, argument: str) -> Any:
    """Import what ``package.module:attribute`` names, if its module is on the allow-list.

    A prefix on the list allows the module of that name and all modules below it.

    Raises:
        InvalidArgumentError: It is not on the list, is malformed, or leads nowhere.
    """
    module_name = name.partition(":")[0]
    if not any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in allow):
        listed = ", ".join(allow) or "empty"
        raise InvalidArgumentError(
            f"{argument} {name!r} is not on the allow-list of this worker ({listed}); start it with "
            f"--allow {module_name} to permit it",
            argument=argument,
        )
    return import_named(name, argument=argument)
