"""What a scripted worker does for one request, as data: answer, wait, hang, die, or break the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from dspex_pool.transport.port import ExitStatus

if TYPE_CHECKING:
    from types import UnionType

__all__ = [
    "CommandFailedError",
    "Deed",
    "Emit",
    "Exit",
    "Fail",
    "Oversize",
    "PartialFrame",
    "Pause",
    "Plan",
    "Raw",
    "Repeat",
    "Reply",
    "Stall",
    "Stderr",
    "Step",
]


def _check_type(what: str, value: object, kinds: type | UnionType, wanted: str) -> None:
    """Refuse what a step cannot be made of where it is written: the worker that comes to it knows no line.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{what} {value!r} is refused: it must be {wanted}")


def _check_number(what: str, value: float, kinds: type | UnionType, wanted: str) -> None:
    _check_type(what, value, kinds, wanted)
    # Not "less", since NaN is neither less nor more.
    if not value >= 0:
        raise ValueError(f"{what} {value!r} is refused: it must be {wanted}")


class CommandFailedError(Exception):
    """Raised by an answering function: the worker answers with a failure and lives on.

    Args:
        message: The text of the failure.
        type: The ``error_info.type`` on the wire, such as ``ProgramNotFound``.
        info: Further fields of ``error_info``.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "Exception",  # noqa: A002 - the field's name on the wire
        **info: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.info = info


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer with a success."""

    result: Any
    #: Answer this id instead of the request's own.
    request_id: int | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer with a failure."""

    error: str
    type: str
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Emit:
    """Send an event, if the client asked for events in its handshake."""

    event: str
    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check_type("the kind of event", self.event, str, "a text, such as 'progress'")
        _check_type("the data of an event", self.data, Mapping, "an object, such as {'done': 3}")


@dataclass(frozen=True, slots=True)
class Raw:
    """Write bytes as they are, without a frame."""

    data: bytes

    def __post_init__(self) -> None:
        _check_type("what is written", self.data, bytes | bytearray, "bytes, such as b'oops'")


@dataclass(frozen=True, slots=True)
class PartialFrame:
    """Write only the first ``size`` bytes of the frame that a success with ``result`` would be."""

    size: int
    result: Any = None

    def __post_init__(self) -> None:
        _check_number("the size", self.size, int, "a whole number of bytes, 0 or more")


@dataclass(frozen=True, slots=True)
class Oversize:
    """Write a header that announces one byte more than the limit, or ``size`` bytes."""

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            _check_number("the size", self.size, int, "a whole number of bytes, 0 or more")


@dataclass(frozen=True, slots=True)
class Repeat:
    """Write the last frame again."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Stay busy for a time."""

    #: Seconds.
    duration: float
    #: Whether interrupts are ignored meanwhile, as by C code that blocks signals.
    deaf: bool = False

    def __post_init__(self) -> None:
        _check_number("the time", self.duration, int | float, "seconds, 0 or more")


@dataclass(frozen=True, slots=True)
class Stall:
    """Stay busy until interrupted or ended."""

    #: Whether interrupts are ignored.
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Stderr:
    """Write text to stderr."""

    text: str

    def __post_init__(self) -> None:
        _check_type("what is written to stderr", self.text, str, "a text")


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process."""

    status: ExitStatus


@dataclass(frozen=True, slots=True)
class Deed:
    """Do something to itself that lasts, and answer as always; see ``dspex_testkit.children.deeds``."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


Step: TypeAlias = (
    Reply | Fail | Emit | Raw | PartialFrame | Oversize | Repeat | Pause | Stall | Stderr | Exit | Deed
)


class Plan:
    """A chain of steps for one request. Every method appends one step and returns the plan.

    A plan without an answer leaves the request open for ever, though the worker goes on to the next one; to
    keep the worker hanging, end the plan with ``stall``.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps: list[Step] = list(steps)

    def then(self, step: Step) -> Self:
        """Append ``step``."""
        self.steps.append(step)
        return self

    def reply(self, result: Any = None, *, request_id: int | None = None) -> Self:
        """Answer with success; ``request_id`` answers another id than the request's own."""
        return self.then(Reply(result, request_id))

    def fail(
        self,
        error: str,
        *,
        type: str = "Exception",  # noqa: A002 - the field's name on the wire
        **info: Any,
    ) -> Self:
        """Answer with a failure; ``info`` are further fields of ``error_info``."""
        return self.then(Fail(error, type, info))

    def event(self, event: str, data: Mapping[str, Any] | None = None) -> Self:
        """Send an event of this request."""
        return self.then(Emit(event, data or {}))

    def after(self, seconds: float, *, deaf: bool = False) -> Self:
        """Stay busy for ``seconds``; when ``deaf``, no interrupt ends that."""
        return self.then(Pause(seconds, deaf))

    def late_reply(self, result: Any = None, *, after: float) -> Self:
        """Answer ``after`` seconds, whoever interrupts meanwhile."""
        return self.after(after, deaf=True).reply(result)

    def duplicate(self) -> Self:
        """Send the last frame once more."""
        return self.then(Repeat())

    def stall(self, *, deaf: bool = False) -> Self:
        """Hang until interrupted; when ``deaf``, until ended."""
        return self.then(Stall(deaf))

    def die(self, *, code: int | None = None, signal: int | None = None) -> Self:
        """End the process; without arguments with status 1."""
        if code is not None and signal is not None:
            raise ValueError("a worker dies with a code or of a signal, and not both")
        if code is None and signal is None:
            code = 1
        return self.then(Exit(ExitStatus(code=code, signal=signal)))

    def garbage(self, data: bytes = b"Traceback (most recent call last):\n") -> Self:
        """Write ``data`` without a frame, as a stray print would."""
        return self.then(Raw(data))

    def oversize(self, size: int | None = None) -> Self:
        """Announce a frame of ``size`` bytes, by default one more than the limit."""
        return self.then(Oversize(size))

    def send_partial_frame(self, size: int, result: Any = None) -> Self:
        """Write the first ``size`` bytes of an answer, and nothing more."""
        return self.then(PartialFrame(size, result))

    def stderr(self, text: str) -> Self:
        """Write ``text`` to stderr."""
        return self.then(Stderr(text))

    def __repr__(self) -> str:
        return f"Plan({', '.join(map(repr, self.steps))})"
