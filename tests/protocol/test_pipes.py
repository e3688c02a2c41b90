"""The parent's ends of pipes: exact counts, nothing lost, whatever is cancelled and when."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.transport.pipes import PIPE_BYTES, PipeReader, PipeWriter, grow_pipe
from dspex_pool.transport.port import WaitExpiredError
from tests.cancel_at_step import CancelAtStep, run_in_order
from tests.partial_writes import take_at_first

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.protocol

SMALLEST_PIPE_BYTES = 4096


@contextmanager
def small_pipe() -> Iterator[tuple[int, int]]:
    """Give a pipe of one page, or of the system's usual size where it cannot be shrunk."""
    reading, writing = os.pipe()
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE_BYTES)
    try:
        yield reading, writing
    finally:
        os.close(reading)


def rest_of(descriptor: int) -> bytes:
    """Read what is left in a pipe whose writing end is closed."""
    os.set_blocking(descriptor, True)
    return b"".join(iter(lambda: os.read(descriptor, 65536), b""))


async def write_each(writer: PipeWriter, pieces: list[bytes], head: int) -> None:
    for piece in pieces:
        await writer.write(piece[:head], piece[head:])


def write_and_cancel(
    pieces: list[bytes],
    gulps: list[int],
    order: int,
    step: int,
    receive: Callable[[bytes], None],
    *,
    head: int,
) -> tuple[PipeWriter, bool]:
    """Write ``pieces`` against a reader that takes ``gulps``, cancelled before ``step``.

    Each is written in two parts, of which the first has ``head`` bytes.

    Returns:
        The writer, and whether it was cancelled before the end.
    """

    async def main() -> tuple[PipeWriter, bool]:
        with small_pipe() as (reading, writing):
            writer, scope = PipeWriter(writing), trio.CancelScope()

            async def read_slowly() -> None:
                os.set_blocking(reading, False)
                for gulp in gulps:
                    await trio.lowlevel.wait_readable(reading)
                    receive(os.read(reading, gulp))
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_slowly)
                with scope:
                    trio.lowlevel.add_instrument(CancelAtStep(step, scope))
                    await write_each(writer, pieces, head)
                nursery.cancel_scope.cancel()
            writer.close()
            receive(rest_of(reading))
            return writer, scope.cancelled_caught

    return run_in_order(order, main)


def check_counts(pieces: list[bytes], writer: PipeWriter, received: bytes, *, cancelled: bool) -> None:
    """What arrived is what was counted: a prefix of the pieces, cut where ``torn_bytes`` says."""
    whole = b"".join(pieces)
    assert received == whole[: len(received)]
    assert writer.bytes_written == len(received)
    ends = [sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)]
    assert writer.bytes_written + writer.torn_bytes in ends
    if not cancelled:
        assert received == whole
        assert writer.torn_bytes == 0


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3 * SMALLEST_PIPE_BYTES), max_size=4),
    gulps=st.lists(st.integers(1, 2 * SMALLEST_PIPE_BYTES), max_size=6),
    order=st.integers(0, 9),
    step=st.integers(1, 40),
    head=st.sampled_from([1, 4, SMALLEST_PIPE_BYTES, 4 * SMALLEST_PIPE_BYTES]),
)
def test_writer_counts_exactly_whenever_it_is_cancelled(
    sizes: list[int], gulps: list[int], order: int, step: int, head: int
) -> None:
    """``bytes_written`` is what arrives at the other end, for any sizes, parts, reader and moment."""
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    received = bytearray()
    writer, cancelled = write_and_cancel(pieces, gulps, order, step, received.extend, head=head)
    check_counts(pieces, writer, bytes(received), cancelled=cancelled)


def test_writer_counts_exactly_at_every_step_of_a_long_write() -> None:
    """A frame longer than the pipe is cancelled before each step of the scheduler in turn."""
    pieces = [b"a" * 100, b"b" * 5 * SMALLEST_PIPE_BYTES]
    gulps = [SMALLEST_PIPE_BYTES] * 6
    outcomes = set()
    for order, step in itertools.product(range(4), range(1, 40)):
        received, head = bytearray(), 4 if order % 2 else 10 * SMALLEST_PIPE_BYTES
        writer, cancelled = write_and_cancel(pieces, gulps, order, step, received.extend, head=head)
        check_counts(pieces, writer, bytes(received), cancelled=cancelled)
        outcomes.add((writer.bytes_written > 100, writer.torn_bytes > 0))
    assert outcomes == {(False, False), (True, True), (True, False)}


@pytest.mark.trio
async def test_writer_writes_nothing_when_cancelled_before() -> None:
    """In a cancelled scope not a byte leaves."""
    with small_pipe() as (_, writing):
        writer = PipeWriter(writing)
        with trio.CancelScope() as scope:
            scope.cancel()
            await writer.write(b"never")
        assert scope.cancelled_caught
        assert (writer.bytes_written, writer.torn_bytes) == (0, 0)
        writer.close()


@pytest.mark.trio
async def test_writer_writes_a_short_piece_without_yielding() -> None:
    """What fits into the pipe costs one system call and no turn of the scheduler."""
    turns = []

    async def note_turn() -> None:
        turns.append("another task ran")

    with small_pipe() as (_, writing):
        writer = PipeWriter(writing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note_turn)
            await writer.write(b"short")
            assert (writer.bytes_written, turns) == (5, [])
        writer.close()


@pytest.mark.trio
async def test_writer_whose_time_is_up_tells_how_much_is_lacking() -> None:
    """It leaves as if cancelled; told so while nobody waits, it writes on as ever."""
    with small_pipe() as (reading, writing):
        writer = PipeWriter(writing)
        writer.expire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expired, writer.write, b"x" * (PIPE_BYTES + 1))
            await trio.testing.wait_all_tasks_blocked()
            writer.expire()
        assert writer.torn_bytes == PIPE_BYTES + 1 - writer.bytes_written > 0
        writer.close()
        assert len(rest_of(reading)) == writer.bytes_written


async def expired(wait: Callable[..., Awaitable[object]], *args: object) -> None:
    """Wait for what never comes, until told that the time is up."""
    with pytest.raises(WaitExpiredError):
        await wait(*args)


@pytest.mark.trio
async def test_writer_goes_on_behind_any_byte_of_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the pipe stops to take more, in the header, between the parts or later, nothing is lost or doubled."""
    frame = b"headpayload"
    for first in range(len(frame)):
        take_at_first(monkeypatch, first)
        reading, writing = os.pipe()
        writer = PipeWriter(writing)
        await writer.write(frame[:4], frame[4:])
        assert (writer.bytes_written, writer.torn_bytes) == (len(frame), 0)
        writer.close()
        assert rest_of(reading) == frame
        os.close(reading)


@pytest.mark.trio
async def test_second_writer_is_refused_before_it_writes() -> None:
    """Two tasks that write would mix their frames; that is our bug and is told as such."""
    with small_pipe() as (reading, writing):
        writer = PipeWriter(writing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write, b"a" * 2 * PIPE_BYTES)
            await trio.testing.wait_all_tasks_blocked()
            before = writer.bytes_written
            # Room now, but the first task's frame is not whole yet.
            os.read(reading, SMALLEST_PIPE_BYTES)
            with pytest.raises(trio.BusyResourceError):
                await writer.write(b"b")
            assert writer.bytes_written == before
            nursery.cancel_scope.cancel()
        writer.close()


@pytest.mark.trio
async def test_writer_hears_that_nobody_reads() -> None:
    """A reader that is gone is an error, also while the writer waits for room."""
    reading, writing = os.pipe()
    writer = PipeWriter(writing)

    async def leave() -> None:
        await trio.testing.wait_all_tasks_blocked()
        os.close(reading)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(BrokenPipeError):
            await writer.write(b"a" * 2 * PIPE_BYTES)
    assert writer.bytes_written + writer.torn_bytes == 2 * PIPE_BYTES
    with pytest.raises(BrokenPipeError):
        await writer.write(b"b")
    writer.close()


@pytest.mark.trio
async def test_closing_wakes_who_waits() -> None:
    """A task that waits for an end hears of its closing; later use is refused; closing twice is allowed."""
    reading, writing = os.pipe()
    writer, reader = PipeWriter(writing), PipeReader(reading)

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"a" * 2 * PIPE_BYTES)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        writer.close()
    reader.close()
    for end in (writer, reader):
        assert end.closed
        end.close()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"late")
    with pytest.raises(trio.ClosedResourceError):
        await reader.wait()
    assert reader.has_unread()


@pytest.mark.trio
async def test_reader_tells_nothing_data_and_end_apart() -> None:
    """``None`` is not yet, ``b""`` is the end; ``has_unread`` asks without taking."""
    reading, writing = os.pipe()
    reader = PipeReader(reading)
    assert reader.read_now() is None
    assert not reader.has_unread()
    os.write(writing, b"data")
    assert reader.has_unread()
    await reader.wait()
    assert reader.read_now() == b"data"
    os.close(writing)
    assert reader.has_unread()
    assert reader.read_now() == b""
    reader.close()


@pytest.mark.trio
async def test_reader_takes_a_full_pipe_at_once() -> None:
    """What is read into given memory is all that the pipe holds and the memory takes."""
    reading, writing = os.pipe()
    grow_pipe(writing)
    reader, room = PipeReader(reading), memoryview(bytearray(PIPE_BYTES + 1))
    assert reader.read_into_now(room) is None
    os.set_blocking(writing, False)
    held = os.write(writing, b"x" * PIPE_BYTES)
    assert reader.read_into_now(room) == held
    assert bytes(room[: held + 1]) == b"x" * held + b"\0"
    os.write(writing, b"longer")
    assert reader.read_into_now(room[:4]) == 4
    assert reader.read_now() == b"er"
    os.close(writing)
    assert reader.read_into_now(room) == 0
    reader.close()
    with pytest.raises(trio.ClosedResourceError):
        reader.read_into_now(room)


@pytest.mark.trio
async def test_reader_takes_a_reset_for_the_end() -> None:
    """A socket that is reset has ended, like a pipe whose writer is gone."""
    room = memoryview(bytearray(1))
    for is_long in (False, True):
        ours, theirs = socket.socketpair()
        ours.send(b"unread")
        reader = PipeReader(ours.detach())
        theirs.close()
        assert (reader.read_into_now(room) == 0) if is_long else (reader.read_now() == b"")
        reader.close()


def test_pipe_grows_where_the_system_allows_it() -> None:
    """On Linux a frame of a megabyte fits into the pipe."""
    reading, writing = os.pipe()
    grow_pipe(writing)
    if sys.platform == "linux":
        import fcntl

        assert fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can grow a pipe")
@pytest.mark.parametrize(("code", "is_fatal"), [(errno.EPERM, False), (errno.EBADF, True)])
def test_pipe_that_may_not_grow_is_used_as_it_is(
    code: int, is_fatal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal costs speed only; a descriptor that is none is our bug and shows."""

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.fcntl", refuse)
    if is_fatal:
        with pytest.raises(OSError, match=os.strerror(code)):
            grow_pipe(0)
    else:
        grow_pipe(0)
