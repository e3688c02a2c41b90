"""The worker's reader and its watcher, where they meet."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.bridge.process import EXIT_NOT_A_FRAME, Process, Wires
from dspex_pool.bridge.reader import Reader
from dspex_pool.protocol.framing import encode_frame
from dspex_pool.transport.pipes import grow_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator


class EndedError(Exception):
    """The process has ended."""


class FakeProcess(Process):
    """Ends nothing, and says with which status it would have."""

    def end(self, code: int, last_words: str = "") -> NoReturn:
        """Raise instead."""
        raise EndedError(code, last_words)


@contextlib.contextmanager
def reader_and_client() -> Iterator[tuple[Reader, int]]:
    """A reader whose client has sent nothing, and where the client writes."""
    stdin, requests = os.pipe()
    answers, stdout = os.pipe()
    before = signal.set_wakeup_fd(-1)
    reader = Reader(FakeProcess(), Wires(stdin, stdout), max_frame_bytes=1_000_000)
    yield reader, requests
    signal.set_wakeup_fd(before)
    for number in (stdin, requests, answers, stdout, reader._wakeup, reader._wakeup_write):
        os.close(number)


@pytest.fixture
def client() -> Iterator[tuple[Reader, int]]:
    """Give what ``reader_and_client`` makes."""
    with reader_and_client() as made:
        yield made


@pytest.mark.hangs_after(1)
def test_watcher_does_not_wait_for_what_the_main_thread_has_read(client: tuple[Reader, int]) -> None:
    """Told of bytes that the main thread then took, the watcher waited for more, deaf to SIGTERM meanwhile."""
    reader, _ = client
    reader._read_ahead()
    assert not reader._turn.locked()


@pytest.mark.hangs_after(1)
def test_watcher_finds_what_came_with_a_request_that_takes_long(client: tuple[Reader, int]) -> None:
    """Garbage that one read brought along with a request lay unseen for as long as the command took."""
    reader, requests = client
    os.write(requests, encode_frame(b"{}") + b"Traceback (most recent call last):")
    assert reader.next_payload() == b"{}"
    with pytest.raises(EndedError, match=str(EXIT_NOT_A_FRAME)):
        reader._step()


@pytest.mark.hangs_after(1)
def test_requests_that_the_watcher_found_keep_their_order(client: tuple[Reader, int]) -> None:
    """What came behind a request is answered in the order in which it came, whoever took it from its bytes."""
    reader, requests = client
    os.write(requests, b"".join(map(encode_frame, (b"1", b"2", b"3"))))
    assert reader.next_payload() == b"1"
    reader._step()
    os.write(requests, encode_frame(b"4"))
    assert [reader.next_payload() for _ in range(3)] == [b"2", b"3", b"4"]


@pytest.mark.hangs_after(5)
@pytest.mark.parametrize("size", [65_531, 65_532, 65_533, 131_072, 900_000])
def test_long_request_is_whole_and_what_comes_behind_it_too(client: tuple[Reader, int], size: int) -> None:
    """Whether a frame ends before, with or after a read, it is taken, and so is the next."""
    reader, requests = client
    payloads = [b"before", os.urandom(size), b"behind", os.urandom(size), b""]
    stream = b"".join(map(encode_frame, payloads))
    thread = threading.Thread(target=os.write, args=(requests, stream))
    thread.start()
    assert [reader.next_payload() for _ in payloads] == payloads
    thread.join()


@pytest.mark.hangs_after(5)
def test_end_inside_a_long_request_is_told_with_what_is_missing(client: tuple[Reader, int]) -> None:
    """Also by the watcher, while a command runs: it reads what is left in the pipe to its end."""
    reader, requests = client
    os.write(requests, encode_frame(b"x" * 200_000)[:65_536])
    assert reader._read()
    os.write(requests, b"x" * 10_000)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, requests)
    os.close(null)
    with pytest.raises(EndedError, match="124468 of 200004 bytes are missing"):
        reader._end_with_stdin()
    assert reader._decoder.buffered == 75_536


@pytest.mark.hangs_after(5)
def test_end_behind_a_long_request_that_nobody_took_ends_the_process(client: tuple[Reader, int]) -> None:
    """A long frame that is whole, and not given out, is no place for further bytes."""
    reader, requests = client
    stream = encode_frame(b"x" * 100_000) + encode_frame(b"behind")
    os.write(requests, stream[:65_536])
    assert reader._read()
    os.write(requests, stream[65_536:])
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, requests)
    os.close(null)
    with pytest.raises(EndedError) as caught:
        reader._end_with_stdin()
    assert caught.value.args == (0, "")


@pytest.mark.hangs_after(5)
def test_watcher_that_sleeps_is_woken_by_a_request_and_watches_again(client: tuple[Reader, int]) -> None:
    """It sleeps while the main thread waits; what comes behind a request that takes long is found out."""
    reader, requests = client
    taken: list[bytes] = []
    main = threading.Thread(target=lambda: taken.append(reader.next_payload()))
    main.start()
    while not reader._is_asleep:
        reader._step()
    watcher = threading.Thread(target=reader._step, daemon=True)
    watcher.start()
    os.write(requests, encode_frame(b"{}"))
    main.join()
    watcher.join(4.0)
    assert not watcher.is_alive(), "the watcher sleeps while a command runs"
    os.write(requests, b"Traceback (most recent call last):")
    with pytest.raises(EndedError, match=str(EXIT_NOT_A_FRAME)):
        watch_on(reader)
    assert taken == [b"{}"]


def watch_on(reader: Reader) -> None:
    """Take as many steps as it needs to find out what there is."""
    for _ in range(4):
        reader._step()


def test_watcher_stays_awake_for_a_request_that_was_taken_while_it_looked(client: tuple[Reader, int]) -> None:
    """The main thread could not see then that it had to wake it."""
    reader, _ = client
    with reader._turn:
        reader._look(reader._taken - 1)
        assert not reader._is_asleep
        reader._look(reader._taken)
        assert reader._is_asleep


@pytest.mark.hangs_after(5)
def test_watcher_leaves_in_the_pipe_what_a_worker_cannot_do_soon(client: tuple[Reader, int]) -> None:
    """Behind more requests than it keeps the client has to wait, and the worker's memory does not grow."""
    reader, requests = client
    os.write(requests, encode_frame(b"{}") * 100)
    reader.next_payload()
    reader._step()
    os.write(requests, encode_frame(b"{}"))
    reader._step()
    assert (len(reader._ahead), bool(reader._input.poll(0))) == (99, True)


@pytest.mark.hangs_after(5)
def test_end_inside_a_frame_is_told_behind_a_request_of_the_length_of_a_read(
    client: tuple[Reader, int],
) -> None:
    """The last bytes are still in the pipe when that request has been read, whole and alone."""
    reader, requests = client
    grow_pipe(requests)
    os.write(requests, encode_frame(b"x" * 65_532) + b"\0\0\0")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, requests)
    os.close(null)
    with pytest.raises(EndedError, match="1 of 4 bytes are missing"):
        reader._end_with_stdin()


@pytest.mark.hangs_after(10)
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 9, 65_531, 65_532, 65_533, 70_000, 140_000]), max_size=6),
    turns=st.lists(
        st.tuples(
            st.sampled_from(["client", "main", "told", "idle"]),
            st.sampled_from([1, 3, 4, 5, 13, 65_535, 65_536, 65_537]),
        ),
        max_size=40,
    ),
)
def test_frames_are_given_out_once_and_in_order_whoever_reads_when(
    sizes: list[int], turns: list[tuple[str, int]]
) -> None:
    """Client, main thread and watcher take turns in any order, and bytes come in any pieces."""
    payloads = [os.urandom(size) for size in sizes]
    frames = [encode_frame(payload) for payload in payloads]
    unsent, due = b"".join(frames), len(payloads)
    with reader_and_client() as (reader, requests):
        os.set_blocking(requests, False)

        def take(turn: str, count: int) -> None:
            nonlocal unsent
            if turn == "client" and unsent:
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[os.write(requests, unsent[:count]) :]
            elif turn == "told":
                reader._read_ahead()
            elif turn == "idle":
                reader._look(reader._taken)
            elif (
                turn == "main"
                and payloads
                and len(unsent) <= sum(map(len, frames[due + 1 - len(payloads) :]))
            ):
                assert reader.next_payload() == payloads.pop(0)

        for turn, count in turns:
            take(turn, count)
        while payloads:
            for turn in ("client", "told", "main"):
                take(turn, 65_536)
        assert (reader._taken, len(reader._ahead), reader._decoder.buffered) == (due, 0, 0)
