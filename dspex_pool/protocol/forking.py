"""What pool and template tell each other: one message a packet, as JSON, on a socket that carries descriptors too.

A template speaks when it is asked, save for its first word, ``Ready`` or ``Refused``. ``Fork`` brings the worker's
ends of stdin, stdout, stderr and its lifeline, in this order; ``Forked`` brings a descriptor that becomes readable
when the worker ends. A worker that has ended stays a zombie until ``Reap``, so that its number is nobody else's.
"""

from __future__ import annotations

import errno

import msgspec

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PROCESS_ADVICE",
    "Answer",
    "Fork",
    "Forked",
    "NotForked",
    "Ready",
    "Reap",
    "Reaped",
    "Refused",
    "Request",
    "decode_answer",
    "decode_request",
    "encode",
]

#: Longest message, in bytes: about what the system's default buffer of a socket holds.
MAX_MESSAGE_BYTES = 200_000

#: What to do where the system refuses a process, to the pool or to its template, by the number of the error.
PROCESS_ADVICE: dict[int | None, str] = {
    errno.EAGAIN: "Raise the limit on processes (ulimit -u, or pids.max of the cgroup) or start fewer workers.",
    errno.ENOMEM: "There is no memory for another process; start fewer workers.",
}


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Start a worker."""

    #: Number of the request.
    number: int
    #: Name of the worker.
    worker_id: str
    #: Variables in which its environment differs from the template's; ``None`` removes one.
    environment: dict[str, str | None]


class Reap(msgspec.Struct, frozen=True, tag=True):
    """Reap a worker that has ended."""

    #: Its process id.
    pid: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The template can be asked for workers."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The template cannot serve, and ends."""

    #: Why, and what to do, for people.
    reason: str


class Forked(msgspec.Struct, frozen=True, tag=True):
    """A worker was started."""

    #: Number of the request.
    number: int
    #: Its process id.
    pid: int


class NotForked(msgspec.Struct, frozen=True, tag=True):
    """A worker could not be started; none is left."""

    #: Number of the request.
    number: int
    #: Why, for people.
    reason: str
    #: Whether this template will never fork again.
    is_spoilt: bool


class Reaped(msgspec.Struct, frozen=True, tag=True):
    """A worker is gone, and its number free."""

    #: Its process id.
    pid: int
    #: Its exit status, or the negative number of the signal that ended it; ``None`` if somebody else reaped it.
    code: int | None


Request = Fork | Reap
Answer = Ready | Refused | Forked | NotForked | Reaped

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Return the packet of a message."""
    return msgspec.json.encode(message)


def decode_request(packet: bytes) -> Request:
    """Return the message that a template has been sent.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _requests.decode(packet)


def decode_answer(packet: bytes) -> Answer:
    """Return the message that a template has sent.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _answers.decode(packet)
