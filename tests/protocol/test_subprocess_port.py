"""The subprocess port's frames, against small children on real pipes."""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from dspex_pool.errors import LocalFrameTooLargeError, PortClosedError, RemoteFrameTooLargeError
from dspex_pool.protocol.framing import encode_frame
from dspex_pool.transport.launch import Launched
from dspex_pool.transport.pipes import PIPE_BYTES, READ_BYTES
from dspex_pool.transport.port import WaitExpiredError
from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPort, SubprocessPortFactory
from tests.cancel_at_step import CancelAtStep, run_in_order
from tests.subprocess_children import ECHO, READY, SLEEP, child_command, open_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.transport.port import Port, PortFactory
    from dspex_pool.transport.process import WorkerProcess

pytestmark = pytest.mark.protocol

MIB = 1 << 20


class NoProcess:
    """In the place of a process where a test is about the pipes alone."""

    pid = 1
    exit_status = None


class BarePort:
    """A port whose far ends of the pipes are in the test's hands."""

    def __init__(self) -> None:
        self.far_stdin, stdin = os.pipe()
        stdout, self.far_stdout = os.pipe()
        stderr, self.far_stderr = os.pipe()
        far_lifeline, lifeline = os.pipe()
        launched = Launched(cast("WorkerProcess", NoProcess()), stdin, stdout, stderr, lifeline)
        self.port = SubprocessPort(launched, SubprocessOptions(), "w-1")
        self.descriptors = {self.far_stdin, stdin, stdout, self.far_stdout, stderr, self.far_stderr}
        self.descriptors |= {far_lifeline, lifeline}

    def close_far_stdout(self) -> None:
        """End the stream to the port."""
        os.close(self.far_stdout)
        self.descriptors.discard(self.far_stdout)


@contextmanager
def bare_port() -> Iterator[BarePort]:
    """Give a port without a process."""
    bare = BarePort()
    try:
        yield bare
    finally:
        for descriptor in bare.descriptors:
            os.close(descriptor)


@pytest.mark.trio
async def test_factory_and_port_are_what_the_pool_expects() -> None:
    """Both fulfil their protocols, for the type checker and when run."""
    factory: PortFactory = SubprocessPortFactory(SubprocessOptions(command=child_command(READY)))
    port: Port = await factory.open(worker_id="w-1", incarnation=1)
    with trio.fail_after(10):
        await port.attend()


@pytest.mark.trio
async def test_frames_come_back_as_they_went() -> None:
    """Payloads of any length pass through a child unchanged; each byte is counted once."""
    payloads = [b"", b"x", b"{}" * 100, bytes(range(256)) * 256, b"y" * MIB]
    async with running(ECHO) as port:
        for payload in payloads:
            await port.send(payload)
            assert await port.receive() == payload
        assert port.bytes_sent == sum(4 + len(payload) for payload in payloads)
        assert not port.has_unread()


@pytest.mark.trio
async def test_frame_longer_than_both_pipes_passes() -> None:
    """A frame of many times the pipes' size needs a reader at work, and no more memory than itself."""
    payload = os.urandom(MIB) * 6
    async with running(ECHO) as port, trio.open_nursery() as nursery:
        nursery.start_soon(port.send, payload)
        assert await port.receive() == payload


@pytest.mark.trio
async def test_frames_sent_together_are_received_one_by_one() -> None:
    """What one read brought is given out frame by frame; the rest is known to be there."""
    with bare_port() as bare:
        os.write(bare.far_stdout, encode_frame(b"one") + encode_frame(b"two") + encode_frame(b"")[:2])
        assert await bare.port.receive() == b"one"
        assert bare.port.has_unread()
        assert await bare.port.receive() == b"two"
        assert bare.port.has_unread()
        os.write(bare.far_stdout, encode_frame(b"")[2:])
        assert await bare.port.receive() == b""
        assert not bare.port.has_unread()


@pytest.mark.trio
@pytest.mark.parametrize("length", [READ_BYTES - 5, READ_BYTES - 4, READ_BYTES - 3, 2 * READ_BYTES])
@pytest.mark.parametrize("is_last", [True, False])
async def test_frame_about_as_long_as_a_read_is_whole(length: int, is_last: bool) -> None:
    """Whether a frame ends before, with or after a read, it is received, and so is the end behind it."""
    payload = os.urandom(length)
    with bare_port() as bare, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, os.write, bare.far_stdout, encode_frame(payload))
            assert await bare.port.receive() == payload
        if is_last:
            bare.close_far_stdout()
            with pytest.raises(PortClosedError):
                await bare.port.receive()
        else:
            os.write(bare.far_stdout, encode_frame(b"next"))
            assert await bare.port.receive() == b"next"


@pytest.mark.trio
async def test_end_that_is_read_together_with_a_long_frame_is_told_after_it() -> None:
    """A stream that ends where a read ends gives its frame first."""
    payload = os.urandom(READ_BYTES - 4)
    with bare_port() as bare:
        os.write(bare.far_stdout, encode_frame(payload))
        bare.close_far_stdout()
        assert await bare.port.receive() == payload
        with pytest.raises(PortClosedError) as caught:
            await bare.port.receive()
        assert caught.value.clean


@pytest.mark.trio
async def test_end_inside_a_long_frame_is_told_while_the_worker_lives_on() -> None:
    """Its stdout alone may end: nobody waits for more of the frame until the process ends, too."""
    with bare_port() as bare, trio.fail_after(5):
        os.write(bare.far_stdout, encode_frame(b"x" * 200_000)[:READ_BYTES])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bare.port.receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        bare.close_far_stdout()
        with pytest.raises(PortClosedError) as caught:
            await bare.port.receive()
        assert caught.value.missing == 200_004 - READ_BYTES


@pytest.mark.trio
@pytest.mark.parametrize("waits", ["send", "receive"])
async def test_time_that_is_up_ends_the_wait(waits: str) -> None:
    """Of who sends what a worker does not read, too; what has been written of it is told."""
    with bare_port() as bare:

        async def wait() -> None:
            with pytest.raises(WaitExpiredError):
                await (bare.port.send(bytes(MIB)) if waits == "send" else bare.port.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            bare.port.expire()
        assert (0 < bare.port.bytes_sent < MIB) == (waits == "send")


@pytest.mark.trio
async def test_wake_up_for_nothing_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system may wake a reader without anything to read (``select(2)`` says so); the answer is still to come."""
    with bare_port() as bare:
        wakes = itertools.count()

        async def wake() -> None:
            if next(wakes):
                os.write(bare.far_stdout, encode_frame(b"one"))
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(bare.port._stdout, "wait", wake)
        assert await bare.port.receive() == b"one"


@pytest.mark.trio
async def test_frame_that_comes_byte_by_byte_is_put_together() -> None:
    """Whatever the split, the frame is whole."""
    slow = """
import os
for byte in b"\\0\\0\\0\\5hello":
    os.write(1, bytes([byte]))
    os.read(0, 1)
"""
    async with running(slow) as port, trio.open_nursery() as nursery:
        nursery.start_soon(port.send, b"nudges")
        assert await port.receive() == b"hello"


def receive_and_cancel(
    pieces: list[bytes], order: int, step: int, *, count: int = 4
) -> tuple[list[bytes], bool]:
    """Feed ``pieces``, which are ``count`` frames, to a port whose reader is cancelled before ``step`` and goes on.

    Returns:
        The frames received, and whether the cancellation was felt.
    """

    async def main() -> tuple[list[bytes], bool]:
        received: list[bytes] = []
        scope = trio.CancelScope()
        with bare_port() as bare, trio.fail_after(5):

            async def feed() -> None:
                for piece in pieces:
                    os.write(bare.far_stdout, piece)
                    await trio.testing.wait_all_tasks_blocked()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed)
                trio.lowlevel.add_instrument(CancelAtStep(step, scope))
                with scope:
                    while len(received) < count:
                        received.append(await bare.port.receive())
                while len(received) < count:
                    received.append(await bare.port.receive())
        return received, scope.cancelled_caught

    return run_in_order(order, main)


def test_receive_loses_nothing_whenever_it_is_cancelled() -> None:
    """Cancelled before each step in turn, the reader that goes on has every frame once, in order."""
    frames = [b"one", b"", b"three" * 50, b"four"]
    stream = b"".join(map(encode_frame, frames))
    pieces = [stream[:2], stream[2:9], stream[9:100], stream[100:]]
    felt = 0
    for order, step in itertools.product(range(6), range(1, 20)):
        received, cancelled = receive_and_cancel(pieces, order, step)
        assert received == frames
        felt += cancelled
    assert felt > 30


def test_receive_loses_nothing_of_a_long_frame_whenever_it_is_cancelled() -> None:
    """Also where the frame comes in pieces that are read into its place, with another behind it."""
    frames = [b"one", os.urandom(3 * READ_BYTES), b"three"]
    stream = b"".join(map(encode_frame, frames))
    pieces = [stream[begin : begin + READ_BYTES] for begin in range(0, len(stream), READ_BYTES)]
    felt = 0
    for order, step in itertools.product(range(3), range(1, 20)):
        received, cancelled = receive_and_cancel(pieces, order, step, count=len(frames))
        assert received == frames
        felt += cancelled
    assert felt > 15


@pytest.mark.trio
async def test_receive_of_a_buffered_frame_is_a_checkpoint() -> None:
    """A stream of buffered frames neither starves other tasks nor survives a cancellation."""
    with bare_port() as bare:
        os.write(bare.far_stdout, encode_frame(b"one") + encode_frame(b"two") + encode_frame(b"three"))
        assert await bare.port.receive() == b"one"
        with trio.testing.assert_checkpoints():
            assert await bare.port.receive() == b"two"
        with trio.CancelScope() as scope:
            scope.cancel()
            await bare.port.receive()
        assert scope.cancelled_caught
        assert await bare.port.receive() == b"three"


@pytest.mark.trio
async def test_second_reader_is_our_bug() -> None:
    """Two tasks that read one worker are told so, not hidden behind an error of the worker."""
    with bare_port() as bare:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bare.port.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await bare.port.receive()
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_payload_over_the_limit_is_refused_before_it_is_written() -> None:
    """The limit holds for what we send, and the worker stays usable."""
    async with running(ECHO, max_frame_bytes=10) as port:
        with pytest.raises(LocalFrameTooLargeError) as caught:
            await port.send(b"x" * 11)
        assert (caught.value.size, caught.value.limit, port.bytes_sent) == (11, 10, 0)
        await port.send(b"x" * 10)
        assert await port.receive() == b"x" * 10


@pytest.mark.trio
async def test_stray_print_is_named_with_the_worker() -> None:
    """Text on stdout is refused on its first bytes, again at each call, and names the worker."""
    async with running("print('Traceback (most recent call last):')") as port:
        for _ in range(2):
            with pytest.raises(RemoteFrameTooLargeError, match=r"worker w-1 .*b'Traceback") as caught:
                await port.receive()
        assert (caught.value.worker_id, caught.value.pid) == ("w-1", port.pid)


@pytest.mark.trio
async def test_end_between_frames_is_clean() -> None:
    """The last frame is received, then the end, as often as asked."""
    async with running(READY) as port:
        assert await port.receive() == b"ready"
        for _ in range(2):
            with pytest.raises(PortClosedError, match="its stdout has ended") as caught:
                await port.receive()
            assert (caught.value.clean, caught.value.missing) == (True, 0)
        assert (caught.value.worker_id, caught.value.pid) == ("w-1", port.pid)
        assert "missing" not in str(caught.value)
        assert port.has_unread()


@pytest.mark.trio
async def test_end_inside_a_frame_tells_what_is_missing() -> None:
    """A worker that dies while it answers leaves a cut frame; the error counts what it lacks."""
    async with running(r"import os; os.write(1, b'\0\0\0\x0ahalf')") as port:
        with pytest.raises(PortClosedError, match="6 bytes of a frame missing") as caught:
            await port.receive()
        assert (caught.value.clean, caught.value.missing) == (False, 6)


@pytest.mark.trio
async def test_send_to_a_worker_that_reads_no_more_is_told() -> None:
    """A closed stdin is an error that says that nothing of the frame was taken."""
    async with running("import os; os.close(0)\n" + READY + SLEEP) as port:
        assert await port.receive() == b"ready"
        with pytest.raises(PortClosedError, match="its stdin is closed") as caught:
            await port.send(b"hello")
        assert (caught.value.clean, caught.value.missing, port.bytes_sent) == (True, 0, 0)


@pytest.mark.trio
async def test_frame_cut_by_the_worker_tells_what_is_missing() -> None:
    """A worker that dies while it is sent a long frame has torn it; the port stays closed for sending."""
    async with running("import os; os.read(0, 1000)") as port:
        with pytest.raises(PortClosedError) as caught:
            await port.send(b"x" * 4 * MIB)
        assert not caught.value.clean
        assert port.bytes_sent + caught.value.missing == 4 * MIB + 4


@pytest.mark.trio
async def test_frame_torn_by_a_cancellation_closes_the_way() -> None:
    """After a frame was cut, not a byte follows: the worker would read it as part of the frame."""
    async with running(SLEEP) as port:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.send, b"x" * 4 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        sent = port.bytes_sent
        assert 0 < sent < 4 * MIB
        with pytest.raises(PortClosedError, match="an earlier frame to it was torn") as caught:
            await port.send(b"hello")
        assert sent + caught.value.missing == 4 * MIB + 4
        assert port.bytes_sent == sent


@pytest.mark.trio
async def test_polite_end_closes_stdin_only() -> None:
    """After ``send_eof`` the worker may still answer; nothing can be sent; twice is once."""
    last_word = READY + "import os\nos.read(0, 1)\nsend(b'goodbye')"
    async with running(last_word) as port:
        assert await port.receive() == b"ready"
        port.send_eof()
        port.send_eof()
        with pytest.raises(PortClosedError, match="its stdin is closed"):
            await port.send(b"late")
        assert await port.receive() == b"goodbye"


@pytest.mark.trio
async def test_polite_end_cannot_be_blocked_by_a_full_pipe() -> None:
    """A worker that does not read, with a frame under way, still sees the end of stdin."""
    async with running(SLEEP) as port, trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(PortClosedError) as caught:
                await port.send(b"x" * 4 * MIB)
            assert not caught.value.clean

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < port.bytes_sent < 4 * MIB
        port.send_eof()


@pytest.mark.trio
@pytest.mark.skipif(sys.platform != "linux", reason="the size of other systems' pipes cannot be set")
async def test_last_answer_is_received_after_the_end() -> None:
    """What a worker wrote before it ended is not lost, even if nobody read until it was reaped."""
    answer = b"z" * (MIB - 4)
    port = await open_port(READY.replace('b"ready"', f'b"z" * {len(answer)}'))
    with trio.fail_after(10):
        assert (await port.attend()).code == 0
        assert port.has_unread()
        assert await port.receive() == answer
        with pytest.raises(PortClosedError) as caught:
            await port.receive()
    assert (caught.value.clean, caught.value.exit_status) == (True, 0)


@pytest.mark.trio
@pytest.mark.skipif(sys.platform != "linux", reason="the size of other systems' pipes cannot be set")
@pytest.mark.parametrize("is_begun", [False, True])
async def test_all_that_is_in_the_pipe_at_the_end_is_received_after_it(is_begun: bool) -> None:
    """Short and long frames, one behind the other, whether or not the first was begun to be read."""
    frames = [b"a" * 200_000, b"short", b"b" * 300_000, b"", b"c" * 70_000, b"last"]
    child = f"""
import os
frames = [b"a" * 200_000, b"short", b"b" * 300_000, b"", b"c" * 70_000, b"last"]
stream = b"".join(len(each).to_bytes(4, "big") + each for each in frames)
begin = {100_000 if is_begun else 0}
os.write(1, stream[:begin])
os.read(0, 1)
os.write(1, stream[begin:])
"""
    port = await open_port(child)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.receive)
            while is_begun and port._decoder.buffered < 100_000:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        await port.send(b"")
        assert (await port.attend()).code == 0
        assert [await port.receive() for _ in frames] == frames
        with pytest.raises(PortClosedError) as caught:
            await port.receive()
        assert caught.value.clean


@pytest.mark.trio
async def test_who_writes_for_ever_does_not_keep_the_end_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What left the group may fill the pipe as fast as it is emptied: no more is read than a pipe holds."""
    port = await open_port(SLEEP)
    chunks = [bytes(READ_BYTES)] * 100
    monkeypatch.setattr(port._stdout, "read_now", chunks.pop)
    port.kill()
    await port.attend()
    assert 100 - len(chunks) == PIPE_BYTES // READ_BYTES


@pytest.mark.trio
async def test_reader_that_waits_hears_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader is woken by the end of a worker even when the pipe itself stays open elsewhere."""
    monkeypatch.setattr("dspex_pool.transport.subprocess.LAST_STDERR_WAIT", 0.01)
    # The grandchild leaves the group and keeps stdout and stderr open, so no end of stream comes.
    escaping = """
import os
if os.fork() == 0:
    os.setsid()
    os.write(1, b"\\0\\0\\0\\2hi")
    while os.read(0, 1):
        pass
else:
    os.read(0, 2)
"""
    async with running(escaping) as port:
        assert await port.receive() == b"hi"
        port.kill()
        with pytest.raises(PortClosedError) as caught:
            await port.receive()
        assert caught.value.signal == 9
        assert caught.value.clean
