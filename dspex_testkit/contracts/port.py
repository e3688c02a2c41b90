"""The one contract of all ports: the mock, the pipes to the mock server and the real process behave alike.

A test module runs it by a class of its own, whose ``open_port`` gives a port to a worker that is the mock server
or behaves like it::

    @pytest.mark.trio
    class TestMockPort(PortContract):
        @contextlib.asynccontextmanager
        async def open_port(self, *faults, max_frame_bytes=...):
            ...

No promise here depends on how long anything takes, so the clock may be real or not.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio.testing

from dspex_pool.errors import LocalFrameTooLargeError, PortClosedError, RemoteFrameTooLargeError
from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES, HEADER_BYTES
from dspex_pool.protocol.messages import Event, Failure, Success
from dspex_pool.transport.port import ExitStatus, WaitExpiredError
from dspex_testkit.server_faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.transport.port import Port

__all__ = ["PortContract"]

_Error = TypeVar("_Error", bound=Exception)

#: Seconds within which anything must have happened, on any machine.
SOON = 20.0

HELLO = {"initialization": True, "worker_id": "w-0", "protocol": 2, "events": []}


class _Client:
    """Requests and answers over a port."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._conversation = ClientConversation(peer="worker w-0")

    async def ask(self, command: str, **args: Any) -> Any:
        """Return the result, or the type of the error."""
        await self.say(command, **args)
        return await self.hear()

    async def say(self, command: str, **args: Any) -> int:
        """Send a request and return the length of its frame."""
        _, payload = self._conversation.request(command, args)
        await self.port.send(payload)
        return HEADER_BYTES + len(payload)

    async def hear(self) -> Any:
        """Return the next result, or the type of the error."""
        message = self._conversation.receive(await self.port.receive())
        assert message is not None
        assert not isinstance(message, Event)
        if isinstance(message, Success):
            return message.result
        assert isinstance(message, Failure)
        return message.error_info.type if message.error_info else message.error


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what a worker does by itself."""
    while not condition():
        await trio.sleep(0.001)


async def _error_of(kind: type[_Error], act: Callable[..., Awaitable[object]], *args: object) -> _Error:
    """Return the error of ``kind`` that ``act`` must raise."""
    try:
        await act(*args)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


class PortContract(ABC):
    """The promises. A subclass gives ``open_port``."""

    @abstractmethod
    def open_port(
        self, *faults: Fault, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> AbstractAsyncContextManager[Port]:
        """Open a port to a worker that answers the bridge's commands and has ``faults``.

        Nobody attends to it yet. When the block is left, the worker is ended and reaped.
        """

    @contextlib.asynccontextmanager
    async def connected(self, *faults: Fault, **settings: Any) -> AsyncIterator[_Client]:
        """Give a client whose worker has shaken hands; everything in the block must happen soon."""
        with trio.fail_after(SOON):
            async with self.open_port(*faults, **settings) as port:
                client = _Client(port)
                assert (await client.ask("ping", **HELLO))["status"] == "ok"
                yield client

    # --- frames --------------------------------------------------------------------------------------

    async def test_answers_come_in_the_order_of_the_requests(self) -> None:
        """Three requests at once, three answers in order."""
        async with self.connected() as client:
            for command in ("ping", "get_stats", "ping"):
                await client.say(command)
            assert [("status" in await client.hear()) for _ in range(3)] == [True, False, True]

    async def test_bytes_are_counted_with_their_headers(self) -> None:
        """What was handed to the worker is counted, and nothing of it is unread once it has answered."""
        async with self.connected() as client:
            before = client.port.bytes_sent
            size = await client.say("ping")
            assert client.port.bytes_sent == before + size
            await client.hear()
            assert client.port.bytes_unread in (0, None)

    async def test_long_frames_pass_both_ways(self) -> None:
        """A megabyte is one frame, there and back."""
        async with self.connected() as client:
            await client.ask("create_program", id="p", signature="question -> answer", session_id="s")
            question = "x" * 1_000_000
            async with trio.open_nursery() as nursery:
                inputs = {"question": question}
                nursery.start_soon(
                    lambda: client.say("execute_program", program_id="p", inputs=inputs, session_id="s")
                )
                answer = await client.hear()
            assert answer["outputs"]["answer"].endswith(question)

    async def test_frame_over_the_limit_is_not_sent(self) -> None:
        """The error says so before a byte is written."""
        async with self.connected(max_frame_bytes=1000) as client:
            before = client.port.bytes_sent
            error = await _error_of(LocalFrameTooLargeError, client.port.send, b"x" * 1001)
            assert (error.size, error.limit) == (1001, 1000)
            assert client.port.bytes_sent == before
            assert (await client.ask("ping"))["status"] == "ok"

    async def test_frame_over_the_limit_is_not_received(self) -> None:
        """The header is enough to refuse it."""
        async with self.connected(Fault("get_stats", "oversize"), max_frame_bytes=1000) as client:
            error = await _error_of(RemoteFrameTooLargeError, client.ask, "get_stats")
            assert (error.size, error.limit) == (1001, 1000)

    async def test_stray_text_is_shown(self) -> None:
        """What the worker printed is in the error."""
        async with self.connected(Fault("get_stats", "garbage")) as client:
            error = await _error_of(RemoteFrameTooLargeError, client.ask, "get_stats")
            assert "Traceback" in error.message

    async def test_cancelled_receiver_loses_nothing(self) -> None:
        """The answer that one receiver did not wait for is there for the next."""
        async with self.connected(Fault("get_stats", "hang")) as client:
            await client.say("get_stats")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.hear)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await self._interrupt_until_unread(client)
            assert await client.hear() == "Cancelled"

    async def test_expired_receiver_leaves_and_loses_nothing(self) -> None:
        """One that waits leaves at once, the answer is there for the next; where none waits, nothing happens.

        A port without ``expire`` leaves the time to cancel scopes, and is cancelled instead.
        """
        async with self.connected(Fault("get_stats", "hang")) as client:
            expire: Callable[[], None] | None = getattr(client.port, "expire", None)
            if expire is not None:
                expire()
            await client.say("get_stats")
            async with trio.open_nursery() as nursery:
                if expire is None:
                    nursery.start_soon(client.port.receive)
                else:
                    nursery.start_soon(_error_of, WaitExpiredError, client.port.receive)
                await trio.testing.wait_all_tasks_blocked()
                (expire or nursery.cancel_scope.cancel)()
            await self._interrupt_until_unread(client)
            assert await client.hear() == "Cancelled"

    async def test_cancelled_sender_writes_nothing_before_its_first_byte(self) -> None:
        """A sender that is cancelled already leaves the worker as it is."""
        async with self.connected() as client:
            before = client.port.bytes_sent
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.say("ping")
            assert scope.cancelled_caught
            assert client.port.bytes_sent == before

    async def test_second_receiver_is_refused(self) -> None:
        """Two tasks that wait for answers are a bug, and told so."""
        async with self.connected() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.port.receive)
            await trio.testing.wait_all_tasks_blocked()
            await _error_of(trio.BusyResourceError, client.port.receive)
            nursery.cancel_scope.cancel()

    # --- what waits ----------------------------------------------------------------------------------

    async def test_idle_worker_has_nothing_unread(self) -> None:
        """After the last answer was received nothing waits; the next answer does."""
        async with self.connected() as client:
            assert client.port.has_unread() is False
            await client.say("ping")
            await _until(client.port.has_unread)
            await client.hear()
            assert client.port.has_unread() is False

    async def test_interrupt_stops_the_command_and_the_worker_lives_on(self) -> None:
        """A hanging command answers ``Cancelled``, and the next one is served."""
        async with self.connected(Fault("get_stats", "hang")) as client:
            await client.say("get_stats")
            await self._interrupt_until_unread(client)
            assert await client.hear() == "Cancelled"
            assert (await client.ask("ping"))["status"] == "ok"

    async def _interrupt_until_unread(self, client: _Client) -> None:
        # The worker ignores an interrupt while it has not begun the command yet.
        while not client.port.has_unread():
            client.port.interrupt()
            await trio.sleep(0.001)

    # --- the end -------------------------------------------------------------------------------------

    async def test_end_of_stdin_ends_the_worker(self) -> None:
        """It leaves with status 0, its stream ends between two frames, and nothing can be sent."""
        async with self.connected() as client:
            client.port.send_eof()
            assert (await _error_of(PortClosedError, client.port.receive)).clean
            assert await client.port.attend() == ExitStatus(code=0)
            assert (await _error_of(PortClosedError, client.port.send, b"{}")).clean
            assert client.port.has_unread() is True

    async def test_terminate_ends_a_hanging_worker(self) -> None:
        """SIGTERM is obeyed, with status 0."""
        async with self.connected(Fault("get_stats", "deaf")) as client:
            await client.say("get_stats")
            client.port.terminate()
            assert await client.port.attend() == ExitStatus(code=0)

    async def test_kill_ends_a_hanging_worker(self) -> None:
        """SIGKILL shows in the exit status."""
        async with self.connected(Fault("get_stats", "deaf")) as client:
            await client.say("get_stats")
            client.port.kill()
            assert await client.port.attend() == ExitStatus(signal=9)

    async def test_worker_is_not_reaped_before_somebody_attends(self) -> None:
        """The exit status is known when ``attend`` returns, then for ever; signals do nothing any more."""
        async with self.connected() as client:
            client.port.kill()
            before = client.port.exit_status
            status = await client.port.attend()
            client.port.kill()
            client.port.interrupt()
            client.port.terminate()
            assert (before, client.port.exit_status) == (None, status)
            assert await client.port.attend() == status

    async def test_cancelled_attendant_leaves_the_worker_alone(self) -> None:
        """Attending can be given up and taken up again."""
        async with self.connected() as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.port.attend)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert (await client.ask("ping"))["status"] == "ok"

    async def test_last_answer_can_be_received_after_the_end(self) -> None:
        """What the worker wrote before it left is not lost when it is reaped first."""
        async with self.connected() as client:
            await client.say("shutdown")
            assert await client.port.attend() == ExitStatus(code=0)
            assert (await client.hear())["status"] == "shutting_down"
            assert (await _error_of(PortClosedError, client.port.receive)).clean

    async def test_death_in_a_frame_is_no_clean_end(self) -> None:
        """The error says how many bytes were missing."""
        async with self.connected(Fault("get_stats", "cut")) as client:
            await client.say("get_stats")
            error = await _error_of(PortClosedError, client.port.receive)
            assert not error.clean
            assert error.missing > 0
            assert await client.port.attend() == ExitStatus(code=1)

    async def test_last_words_are_kept(self) -> None:
        """What a dying worker wrote to stderr can be read."""
        async with self.connected(Fault("get_stats", "die")) as client:
            await client.say("get_stats")
            assert await client.port.attend() == ExitStatus(code=1)
            assert "dying, as ordered" in client.port.stderr_tail
