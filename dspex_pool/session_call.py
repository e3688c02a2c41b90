"""One command of a session on its way, and its answer."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from dspex_pool.errors import InvalidArgumentError
from dspex_pool.protocol.strict_json import decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.protocol import Event
    from dspex_pool.session_table import Session
    from dspex_pool.worker_memory import WorkerMemory

__all__ = [
    "ANONYMOUS",
    "Call",
    "CallTally",
    "Reply",
    "check_affinity",
    "check_args",
    "check_on_event",
    "check_retries",
    "check_timeout",
    "own_copy",
]

#: The session of programs that belong to nobody in particular.
ANONYMOUS = "anonymous"

_AFFINITIES = ("hint", "strict", "strict_nowait")


class Reply(msgspec.Struct, frozen=True):
    """The answer to a command, and how it came about."""

    #: The command's result, a JSON value.
    result: Any
    #: The worker that answered, or ``None`` if the pool knew the answer itself.
    worker_id: str | None = None
    #: How often the command was tried.
    attempts: int = 1
    #: Seconds from the call to the answer, the wait for a worker included.
    duration_s: float = 0.0
    #: Tokens by model, where the command used one.
    usage: Mapping[str, Any] | None = None


#: How many of the latest waits and durations a tally keeps.
SAMPLE_SIZE = 4096


@dataclass(slots=True, eq=False)
class CallTally:
    """What a monitor counts of every call. The pool writes here itself, since an event for each figure costs more."""

    #: Commands sent to workers.
    commands: int = 0
    #: Commands that ended in an error.
    errors: int = 0
    #: Seconds that the latest commands waited for a worker.
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLE_SIZE))
    #: Seconds from sending to answer, of the latest commands.
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLE_SIZE))


class Call(msgspec.Struct, eq=False):
    """One command on its way. A struct, because every call makes one, and a dataclass is made in Python."""

    #: The session's id, or ``None`` for a command of nobody.
    session_id: str | None
    #: The session, if it lives.
    session: Session | None
    command: str
    args: dict[str, Any]
    #: Seconds that a worker has for it, what must be told first included; ``None`` for no bound.
    timeout: float | None = None
    #: Further tries that its caller allows.
    retries: int = 0
    #: Whether running it twice does no harm.
    idempotent: bool = False
    #: How firmly it keeps to the session's worker.
    affinity: str = "hint"
    on_event: Callable[[Event], None] | None = None
    #: Whether the last try got as far as the command itself.
    begun: bool = False
    #: When the last try ended, on the clock of trio.
    ended: float = 0.0
    #: The memory of the worker that carried it out, and the mark that stands there for what it changes.
    memory: WorkerMemory | None = None
    mark: int = 0

    def __repr__(self) -> str:
        # Tools that show the variables of a failure show this; the arguments may hold keys.
        return f"<Call {self.command!r} of session {self.session_id!r}>"

    @property
    def makes(self) -> str:
        """The id of the program that the command makes."""
        program_id: str = self.args["id" if self.command == "create_program" else "program_id"]
        return program_id


def own_copy(args: Mapping[str, Any]) -> dict[str, Any]:
    """Copy arguments that are kept beyond the call, so that nobody can change them afterwards.

    Raises:
        LocalProtocolError: JSON cannot carry them.
    """
    copy: dict[str, Any] = decode_json(encode_json({"args": dict(args)}))["args"]
    return copy


def check_args(command: str, args: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the arguments of a command, none for ``None``.

    Raises:
        InvalidArgumentError: They are no mapping.
    """
    if args is None:
        return {}
    if not isinstance(args, Mapping):
        raise InvalidArgumentError(
            f"the arguments of {command!r} are a mapping; got {type(args).__name__}.", argument="args"
        )
    return args


def check_timeout(timeout: float | None) -> float | None:
    """Return ``timeout`` as seconds, ``None`` for no bound.

    Raises:
        InvalidArgumentError: It is negative or no number.
    """
    if type(timeout) is float and 0.0 <= timeout < math.inf:
        return timeout
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidArgumentError(
            f"a timeout is a number of seconds, at least 0; got {timeout!r}.", argument="timeout"
        )
    return timeout


def check_retries(retries: int) -> int:
    """Return ``retries`` if they are a number of tries.

    Raises:
        InvalidArgumentError: It is negative or no whole number.
    """
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise InvalidArgumentError(
            f"retries are a whole number of at least 0; got {retries!r}.", argument="retries"
        )
    return retries


def check_on_event(on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    """Return ``on_event`` if it can be told of events.

    Raises:
        InvalidArgumentError: It cannot be called, or is a coroutine function, which nobody would await.
    """
    if not callable(on_event) or inspect.iscoroutinefunction(on_event):
        raise InvalidArgumentError(
            f"on_event is a plain function, because nobody would await it; got {on_event!r}.",
            argument="on_event",
        )
    return on_event


def check_affinity(affinity: str) -> str:
    """Return ``affinity`` if it is one.

    Raises:
        InvalidArgumentError: It is none.
    """
    if affinity not in _AFFINITIES:
        raise InvalidArgumentError(
            f"affinity is one of {', '.join(_AFFINITIES)}; got {affinity!r}.", argument="affinity"
        )
    return affinity
