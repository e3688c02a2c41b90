"""The script of a language model: what it answers, in order, and what it was asked.

A script lives in memory, or in a file that several processes use at once: the test that writes it and looks at it
afterwards, and the workers whose engines play it. Every step is taken once, whoever takes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from dspex_pool.bridge.adapter_prompt import PromptTask, read_prompt, write_answer
from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.lm.steps import Book, LMRequest, LMUsage, Step
from dspex_testkit.script import ScriptNotDrainedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["ALL_TRIES", "Answer", "LMScript", "ScriptExhaustedError", "describe", "pieces_of"]

#: How often DSPy asks before it gives up: once, and three times more.
ALL_TRIES = 4

_NONSENSE = "Colourless green ideas sleep furiously."
_SHOWN_CHARS = 200


class ScriptExhaustedError(AssertionError):
    """The model was asked once more than its script has answers."""


class Answer(msgspec.Struct, frozen=True):
    """A step as it is carried out for one request."""

    #: What is done.
    step: Step
    #: The text of the answer; empty for a refusal.
    text: str
    #: Tokens of the prompt.
    input_tokens: int
    #: Tokens of the answer.
    output_tokens: int

    @property
    def pieces(self) -> list[str]:
        """The text in the pieces in which it is streamed."""
        return pieces_of(self.text, self.step.pieces)


class LMScript:
    """What a language model does with the requests that come, one after the other.

    ``reply``, ``rate_limit``, ``fail``, ``nonsense`` and ``down`` add to the script and return it.

    Args:
        path: File that holds the script, made if it is not there; by default it is in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._book = Book()

    # --- writing -----------------------------------------------------------------------------------------

    def reply(
        self,
        answer: str | Mapping[str, Any],
        *,
        times: int = 1,
        delay: float = 0.0,
        pieces: int = 3,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> LMScript:
        """Answer.

        Args:
            answer: The text as it is; or output fields by name, in the form that the prompt asks for.
            times: How often.
            delay: Seconds before the answer begins.
            pieces: How many pieces it comes in when it is streamed.
            input_tokens: Tokens that are told for the prompt; by default its words.
            output_tokens: Tokens that are told for the answer; by default its words.
        """
        step = _reply(
            answer, delay=delay, pieces=pieces, input_tokens=input_tokens, output_tokens=output_tokens
        )
        return self._add(step, times)

    def nonsense(self, text: str = _NONSENSE, *, times: int = 2) -> LMScript:
        """Answer what no adapter can parse; twice, because DSPy asks again in JSON when it cannot parse sections."""
        return self.reply(text, times=times)

    def rate_limit(self, *, retry_after: float | None = 0.0, times: int = ALL_TRIES) -> LMScript:
        """Refuse with 429, as often as DSPy tries; ``retry_after`` is what it then waits, in seconds."""
        message = "Rate limit reached. Ask again later."
        return self.fail(
            429, message=message, code="rate_limit_exceeded", retry_after=retry_after, times=times
        )

    def fail(
        self,
        status: int = 500,
        *,
        message: str = "The server had an error while processing your request.",
        code: str = "server_error",
        retry_after: float | None = 0.0,
        times: int = ALL_TRIES,
        delay: float = 0.0,
    ) -> LMScript:
        """Refuse with a status of HTTP."""
        step = Step(
            kind="fail", status=status, message=message, code=code, retry_after=retry_after, delay=delay
        )
        return self._add(step, times)

    def down(self, *, times: int = ALL_TRIES, after_pieces: int = 0, delay: float = 0.0) -> LMScript:
        """Break the connection; of a streamed answer, after some pieces of nonsense."""
        step = Step(kind="drop", text=_NONSENSE, pieces=after_pieces, delay=delay)
        return self._add(step, times)

    def otherwise(self, answer: str | Mapping[str, Any] | None) -> LMScript:
        """Give this answer to all requests after the script; with ``None`` they fail again."""
        with self._open() as book:
            book.otherwise = None if answer is None else _reply(answer)
        return self

    def forget(self) -> None:
        """Begin anew: forget what is left, and what came when nothing was. What was received stays."""
        with self._open() as book:
            book.steps, book.otherwise, book.unexpected = [], None, []

    def _add(self, step: Step, times: int) -> LMScript:
        with self._open() as book:
            book.steps += [step] * times
        return self

    def put_first(self, step: Step, times: int) -> Step:
        """Put a step before everything that is still to come, so many times; return it as it was put there.

        That one is like no other, whatever the script says besides, and is what ``withdraw`` takes.
        """
        with self._open() as book:
            book.orders += 1
            step = msgspec.structs.replace(step, order=book.orders)
            book.steps[:0] = [step] * times
        return step

    def withdraw(self, step: Step) -> None:
        """Take back what is left of a step that ``put_first`` has returned."""
        with self._open() as book:
            book.steps = [other for other in book.steps if other != step]

    # --- playing -----------------------------------------------------------------------------------------

    def take(self, request: LMRequest) -> Answer:
        """Note a request, and return what is to be done with it.

        Raises:
            ScriptExhaustedError: Nothing is left.
        """
        with self._open() as book:
            book.received.append(request)
            book.usage.requests += 1
            step = book.steps.pop(0) if book.steps else book.otherwise
            if step is None:
                book.unexpected.append(len(book.received))
                raise ScriptExhaustedError(_exhausted(book))
            book.played.append(step)
            answer = _answer(step, request)
            _count(book.usage, answer)
            return answer

    # --- looking -----------------------------------------------------------------------------------------

    @property
    def received(self) -> list[LMRequest]:
        """Every request that arrived, in order."""
        with self._open() as book:
            return list(book.received)

    @property
    def played(self) -> list[Step]:
        """The steps that were carried out, in order."""
        with self._open() as book:
            return list(book.played)

    @property
    def usage(self) -> LMUsage:
        """What was done so far."""
        with self._open() as book:
            return msgspec.structs.replace(book.usage)

    @property
    def remaining(self) -> int:
        """How many steps are left."""
        with self._open() as book:
            return len(book.steps)

    def assert_drained(self) -> None:
        """Fail if steps are left, or if a request came when none was.

        Raises:
            ScriptNotDrainedError: With what is left and with what came too many.
        """
        with self._open() as book:
            complaints = [f"not asked for: {describe(step)}" for step in book.steps]
            complaints += [
                f"unexpected request {number}: {_shown(book.received[number - 1].prompt)}"
                for number in book.unexpected
            ]
        if complaints:
            raise ScriptNotDrainedError(
                "\n".join(["the language model's script is not drained", *complaints])
            )

    # --- where it is kept --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self) -> Iterator[Book]:
        """Give the book to one user at a time; what is changed is kept, also when the block fails."""
        with self._lock:
            if self.path is None:
                yield self._book
                return
            with _locked(self.path) as descriptor:
                book = _read(descriptor)
                try:
                    yield book
                finally:
                    _replace(self.path, book)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Lock the file that is at ``path``, made if there is none; who waited for one that was replaced tries again."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> Book:
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return msgspec.json.decode(data, type=Book) if data else Book()


def _replace(path: Path, book: Book) -> None:
    """Put a new file in the place of the one that is locked: a process that is killed leaves a whole one."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(book))
    new.replace(path)


def _reply(answer: str | Mapping[str, Any], **settings: Any) -> Step:
    if isinstance(answer, str):
        return Step(kind="reply", text=answer, **settings)
    return Step(kind="reply", fields=dict(answer), **settings)


def _answer(step: Step, request: LMRequest) -> Answer:
    text = _text(step, request) if step.kind != "fail" else ""
    words = sum(len(message["content"].split()) for message in request.messages)
    inputs = words if step.input_tokens is None else step.input_tokens
    return Answer(
        step=step,
        text=text,
        input_tokens=inputs,
        output_tokens=len(text.split()) if step.output_tokens is None else step.output_tokens,
    )


def _text(step: Step, request: LMRequest) -> str:
    if step.text is not None:
        return step.text
    try:
        task = read_prompt(request.system, request.prompt)
    except InvalidArgumentError:
        task = PromptTask("", "", (), "chat")
    return write_answer(task, step.fields)


def _count(usage: LMUsage, answer: Answer) -> None:
    if answer.step.kind == "reply":
        usage.answers += 1
        usage.input_tokens += answer.input_tokens
        usage.output_tokens += answer.output_tokens


def pieces_of(text: str, count: int) -> list[str]:
    """Cut a text into at most ``count`` pieces of about the same length."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)][:count]


def _exhausted(book: Book) -> str:
    number = len(book.received)
    return (
        f"the language model's script is exhausted: request {number} came after the {number - len(book.unexpected)} "
        f"that it provides for. It asked: {_shown(book.received[-1].prompt)}. Add a reply, or give one to all others "
        "with otherwise()."
    )


def describe(step: Step) -> str:
    """Say in a few words what a step is."""
    if step.kind == "fail":
        return f"a refusal with status {step.status}"
    if step.kind == "drop":
        return "a broken connection"
    return f"the answer {_shown(step.text if step.text is not None else str(step.fields))}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
