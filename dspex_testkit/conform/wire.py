"""A client that trusts nobody: raw bytes on the pipes of one worker, every wait with a bound.

It shares no code with the pool, because it judges what the pool is built on. It is lenient where a clause is not
about the matter: it takes the next answer for the one it waits for, whatever id that has.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

from dspex_testkit.conform.clause import BrokenClauseError, hold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dspex_testkit.conform.profile import Profile

__all__ = ["ALLOWANCE", "STAMP", "Message", "Wire", "frame", "is_same_id", "request", "show"]

Message = dict[str, Any]

#: A moment, for requests.
STAMP = "2026-01-01T00:00:00Z"
#: Seconds that a busy machine is granted beyond a bound that the protocol sets.
ALLOWANCE = 1.5
# Nobody tells when a command has begun.
_A_MOMENT = 0.1
_EXCERPT = 60
_READ_BYTES = 1 << 16
_STDERR_TAIL = 2000


def frame(payload: bytes) -> bytes:
    """Put a payload behind its length."""
    return len(payload).to_bytes(4, "big") + payload


def request(command: str, args: Mapping[str, Any] | None = None, /, **fields: Any) -> bytes:
    """Return the payload of a request; ``fields`` replace its own, those that are ``...`` are left out."""
    whole = {"id": 1, "command": command, "args": dict(args or {}), "timestamp": STAMP} | fields
    kept = {name: value for name, value in whole.items() if value is not ...}
    return json.dumps(kept, ensure_ascii=False).encode()


class Wire:
    """One worker in a process group of its own, and the client's end of its pipes.

    Args:
        command: What starts the worker.
        profile: What is known of it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: Sequence[str], profile: Profile) -> None:
        self.profile = profile
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the wire
        try:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                # Ctrl-C in the terminal is for us; and what the worker starts can be ended with it.
                start_new_session=True,
            )
        except OSError:
            self._stderr.close()
            raise
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._unread = bytearray()
        self._last_id = 0
        self._outstanding: set[int] = set()
        self._last_answer = b""
        #: How often an answer came a second time, although its request was not outstanding any more.
        self.duplicates = 0
        #: The protocol version that was agreed on in the handshake.
        self.version = 1
        #: The answer to the handshake.
        self.hello: Message = {}

    # --- saying --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write bytes to the worker's stdin; a worker that has closed it shows elsewhere."""
        deadline = time.monotonic() + self.profile.timeout
        poll = select.poll()
        poll.register(self._stdin, select.POLLOUT)
        unwritten = memoryview(data)
        with contextlib.suppress(BrokenPipeError):
            while unwritten:
                if poll.poll(_milliseconds(deadline)):
                    with contextlib.suppress(BlockingIOError):
                        unwritten = unwritten[os.write(self._stdin.fileno(), unwritten[:_READ_BYTES]) :]
                hold(
                    time.monotonic() < deadline or not unwritten,
                    f"it does not read its stdin: {len(unwritten)} bytes left",
                )

    def say(self, payload: bytes) -> None:
        """Send a payload as one frame."""
        self._outstanding |= _ids_in(payload)
        self.write(frame(payload))

    def send(self, command: str, args: Mapping[str, Any] | None = None, /, **fields: Any) -> int:
        """Send a request; return its id."""
        self._last_id += 1
        fields = {"id": self._last_id} | fields
        number: int = fields["id"]
        self.say(request(command, args, **fields))
        return number

    def begin(self, role: str, **fields: Any) -> int:
        """Send the request that plays ``role`` in the profile; return its id."""
        known = self.profile.commands[role]
        return self.send(known.name, known.args, **fields)

    def begin_slow(self) -> int:
        """Send the request that takes long, and give it a moment to begin; return its id."""
        number = self.begin("slow")
        self.first_answer(number)
        return number

    def first_answer(self, slow: int) -> Message | None:
        """Return what is answered at once, if anything; that may not be the slow command with the id ``slow``."""
        answer = self.answer_within(_A_MOMENT)
        if answer is not None and is_same_id(answer.get("id"), slow):
            raise BrokenClauseError(f"its slow command is to take half a minute; at once came {show(answer)}")
        return answer

    def greet(self, version: int, *, events: Sequence[str] = ()) -> Message:
        """Do what a client does first; return the answer."""
        self.send_hello(version, events=events)
        self.take_hello(self.answer())
        return self.hello

    def send_hello(self, version: int, *, events: Sequence[str] = ()) -> None:
        """Send the first request of a client."""
        wanted = {"protocol": version, "events": list(events)} if version > 1 else {}
        self.send("ping", {"initialization": True, "worker_id": "w-1", **wanted}, id=0)

    def take_hello(self, answer: Message) -> None:
        """Note what a worker has answered to the first request."""
        self.hello = answer
        result = answer.get("result")
        spoken = result.get("protocol") if isinstance(result, dict) else None
        self.version = 2 if spoken == 2 else 1

    # --- hearing -------------------------------------------------------------------------------------

    def more(self, deadline: float) -> bool:
        """Read what comes next; return whether there was anything before the end of stdout.

        Raises:
            BrokenClauseError: Nothing came until ``deadline``.
        """
        is_there = self._is_readable(deadline)
        hold(is_there, f"it said nothing for {self.profile.timeout:g} s{self.last_words()}")
        data = os.read(self._stdout.fileno(), _READ_BYTES)
        self._unread += data
        return bool(data)

    @property
    def unread(self) -> bytes:
        """What was read from the worker and is part of no message yet."""
        return bytes(self._unread)

    def payload(self) -> bytes | None:
        """Return the payload of the next frame, or ``None`` at the end of stdout.

        Raises:
            BrokenClauseError: What comes is no frame, or nothing comes.
        """
        deadline = time.monotonic() + self.profile.timeout
        while (found := self._next()) is None:
            if not self.more(deadline):
                hold(not self._unread, f"its stdout ended inside a frame, after {self._excerpt()}")
                return None
        return found

    def _next(self) -> bytes | None:
        """Take the next frame that is there, and is not the last answer once more."""
        while (found := self._cut()) is not None and self._is_repeated(found):
            self.duplicates += 1
        return found

    def _cut(self) -> bytes | None:
        size = int.from_bytes(self._unread[:4], "big")
        if len(self._unread) < 4:
            return None
        hold(size <= self.profile.max_frame_bytes, f"{self._excerpt()} on stdout is no frame")
        if len(self._unread) < 4 + size:
            return None
        found = bytes(self._unread[4 : 4 + size])
        del self._unread[: 4 + size]
        return found

    def message(self) -> Message | None:
        """Return the next message, or ``None`` at the end of stdout."""
        payload = self.payload()
        return None if payload is None else self.decoded(payload)

    def decoded(self, payload: bytes) -> Message:
        """Read a payload as a JSON object."""
        try:
            message = json.loads(payload.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise BrokenClauseError(f"a payload is no JSON: {payload[:_EXCERPT]!r}: {error}") from error
        hold(isinstance(message, dict), f"a payload is no object: {payload[:_EXCERPT]!r}")
        found: Message = message
        return found

    def answer(self) -> Message:
        """Return the next message that is no event."""
        while (message := self.message()) is not None:
            if "event" not in message:
                return message
        raise BrokenClauseError(f"it ended instead of answering{self.last_words()}")

    def _is_repeated(self, payload: bytes) -> bool:
        ids = _ids_in(payload)
        # Two failures without an id may be alike, byte for byte, and yet be the answers to two requests.
        if payload == self._last_answer and ids and not ids & self._outstanding:
            return True
        if b'"success"' in payload:
            self._outstanding -= ids
            self._last_answer = payload
        return False

    def message_within(self, seconds: float) -> Message | None:
        """Return the next message, or ``None`` if there is none in so many seconds."""
        deadline = time.monotonic() + seconds
        while (payload := self._next()) is None:
            if not self._is_readable(deadline) or not self.more(deadline):
                return None
        return self.decoded(payload)

    def answer_within(self, seconds: float) -> Message | None:
        """Return the next message that is no event, or ``None`` if there is none in so many seconds."""
        deadline = time.monotonic() + seconds
        while (message := self.message_within(max(0.0, deadline - time.monotonic()))) is not None:
            if "event" not in message:
                return message
        return None

    def _is_readable(self, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        return bool(poll.poll(_milliseconds(deadline)))

    def fails(self, **fields: Any) -> Message:
        """Ask for something that fails, of the profile if it has that; return the answer."""
        known = self.profile.commands.get("failing")
        name, args = (known.name, known.args) if known else ("conform_unknown_command", {})
        return self.ask(name, args, **fields)

    def ask(self, command: str, args: Mapping[str, Any] | None = None, /, **fields: Any) -> Message:
        """Send a request and return the next answer."""
        self.send(command, args, **fields)
        return self.answer()

    def ask_role(self, role: str) -> Message:
        """Send the request that plays ``role`` and return the next answer."""
        self.begin(role)
        return self.answer()

    def lives(self) -> None:
        """Hold that the worker serves a ping, now."""
        answer = self.ask("ping")
        hold(answer.get("success") is True, f"afterwards a ping is answered by {show(answer)}")

    def has_said(self) -> bool:
        """Tell whether there is something that nobody has read."""
        return bool(self._unread) or self._is_readable(0.0)

    def last_words(self) -> str:
        """Say how the worker stands, for an error: its exit status and the end of its stderr."""
        status = self.process.poll()
        text = " ".join(self.stderr()[-_STDERR_TAIL:].split())[-200:]
        ended = "" if status is None else f"; it has ended with status {status}"
        return f"{ended}; its stderr ends: {text}" if text else ended

    def stderr(self) -> str:
        """Return what was written to stderr so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode(errors="backslashreplace")

    def _excerpt(self) -> str:
        return repr(bytes(self._unread[:_EXCERPT]))

    # --- ending --------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker alone."""
        self.process.send_signal(number)

    def close_stdin(self) -> None:
        """End the worker's stdin."""
        self._stdin.close()

    def close_stdout(self) -> None:
        """Stop reading the worker's stdout."""
        self._stdout.close()

    def rest(self) -> list[Message]:
        """Return all messages until the end of stdout."""
        messages = []
        while (message := self.message()) is not None:
            messages.append(message)
        return messages

    def left(self, within: float | None = None) -> int:
        """Wait until the worker has left; return its exit status.

        Args:
            within: The bound that the protocol sets; without one it is "at once".
        """
        bound = self.profile.timeout if within is None else within + ALLOWANCE
        try:
            return self.process.wait(bound)
        except subprocess.TimeoutExpired:
            raise BrokenClauseError(f"after {bound:g} s it was still there") from None

    def kill(self) -> None:
        """End the worker's process group. Whoever waits for the worker sees it end. For any thread."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the worker and all that it started, reap it, and close everything."""
        # The group outlives its leader, and as long as it has a member its number is not given away again.
        self.kill()
        self.process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()


def _ids_in(payload: bytes) -> set[int]:
    """Return the id of a message as a set, which is empty where there is no usable one."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        return set()
    number = message.get("id") if isinstance(message, dict) else None
    return {number} if type(number) is int else set()


def is_same_id(found: Any, number: int) -> bool:
    """Tell whether an id is meant to be ``number``; its type is the matter of a clause of its own."""
    return str(found) == str(number)


def show(message: Message) -> str:
    """Write a message in one short line."""
    text = json.dumps(message, ensure_ascii=False, default=repr)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _milliseconds(deadline: float) -> float:
    return max(0.0, (deadline - time.monotonic()) * 1000)
