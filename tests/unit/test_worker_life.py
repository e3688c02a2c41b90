"""One worker process from its start until it is reaped, on the mock port."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio

from dspex_pool.errors import DspexPoolError, WorkerStartError
from dspex_pool.worker_life import REAP_TIMEOUT, WorkerLife
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from dspex_pool.transport.port import PortFactory

pytestmark = pytest.mark.trio


class Owner:
    """Starts one life, as the pool does, and takes down what it hears of it."""

    def __init__(self, ports: PortFactory | None = None, *, grace: float = 4.0) -> None:
        self.ports = ports or MockPortFactory()
        self.started: list[int] = []
        self.failed: list[DspexPoolError] = []
        self.exit: str | None = "not yet"
        self.has_started = trio.Event()
        self.life = WorkerLife(
            1, "w-1", ports=self.ports, grace=grace, on_started=self._on_started, on_failed=self._on_failed
        )

    def _on_started(self, number: int) -> None:
        self.started.append(number)
        self.has_started.set()

    def _on_failed(self, number: int, error: DspexPoolError) -> None:
        assert number == 1
        self.failed.append(error)
        # The pool's core retires what could not be started, at once.
        self.life.end(polite=False)

    async def run(self) -> None:
        self.exit = await self.life.run()

    @property
    def port(self) -> MockPort:
        """The port of the process."""
        assert isinstance(self.ports, MockPortFactory)
        return self.ports.ports[0]


def with_reactions(**reactions: float | None) -> MockPortFactory:
    """Return a factory of workers that react so."""

    def behave(port: MockPort) -> None:
        for name, delay in reactions.items():
            setattr(port.reactions, name, delay)

    return MockPortFactory(behave)


# --- starting ---------------------------------------------------------------------------------------------


async def test_life_shakes_hands_serves_and_ends(autojump_clock: MockClock) -> None:
    """Started, the worker can be used; told to end politely, it leaves by the end of its stdin."""
    owner = Owner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        await owner.has_started.wait()
        assert owner.life.worker is not None
        assert owner.life.worker.hello.protocol == 2
        owner.life.end(polite=True)
    assert (owner.started, owner.failed, owner.exit) == ([1], [], "exit status 0")
    assert owner.port.signals[0] == "eof"
    assert owner.life.worker.exited.is_set()


async def test_life_without_a_process_has_no_end_to_tell(autojump_clock: MockClock) -> None:
    """A factory's refusal is handed on as it is."""
    owner = Owner(MockPortFactory(fail_starts=1))
    await owner.run()
    assert (owner.exit, owner.started, owner.life.worker) == (None, [], None)
    assert [str(error) for error in owner.failed] == ["worker w-1 could not be started: ordered by the test"]


class Faulty:
    """A factory with a bug."""

    async def open(self, *, worker_id: str, incarnation: int) -> NoReturn:
        """Fail in a way that no factory should.

        Cancellation: Nothing was started.
        """
        raise ZeroDivisionError("in the factory")


async def test_bug_of_a_factory_is_a_failed_start(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises counts as a failed start; the log keeps the traceback."""
    owner = Owner(Faulty())
    await owner.run()
    assert isinstance(owner.failed[0], WorkerStartError)
    assert "ZeroDivisionError" in str(owner.failed[0])
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    ("handshake", "says"),
    [
        (Plan().stderr("no dspy here\n").die(code=3), "exit status 3; its last words: no dspy here"),
        (Plan().fail("not today"), "not today"),
        (Plan().reply(request_id=5), "never asked"),
        (Plan().garbage(), "print to stdout"),
        (Plan().reply({}).garbage(b"?"), "unread_bytes right after the handshake"),
        (Plan().reply(7), "answered its first ping with 7"),
    ],
)
async def test_failed_handshake_ends_the_process_and_tells_why(
    handshake: Plan, says: str, autojump_clock: MockClock
) -> None:
    """The half-started process is killed and reaped; the error carries its reason and its stderr."""
    owner = Owner(MockPortFactory(lambda port: port.answer_handshake(handshake)))
    await owner.run()
    [error] = owner.failed
    assert isinstance(error, WorkerStartError)
    assert says in str(error)
    assert (error.worker_id, error.stderr_tail) == ("w-1", owner.port.stderr_tail)
    assert owner.started == []
    assert owner.port.exit_status is not None


async def test_start_that_is_given_up_leaves_no_process(autojump_clock: MockClock) -> None:
    """Ended while it opens, there is never a process; ended in its handshake, the process is killed."""
    opening = Owner(MockPortFactory(hang_starts=1))
    greeting = Owner(MockPortFactory(lambda port: port.answer_handshake(Plan().stall(deaf=True))))
    async with trio.open_nursery() as nursery:
        for owner in (opening, greeting):
            nursery.start_soon(owner.run)
        await trio.sleep(1.0)
        for owner in (opening, greeting):
            owner.life.end(polite=False)
    assert trio.current_time() == 1.0
    assert (opening.exit, opening.life.worker) == (None, None)
    assert greeting.port.exit_status is not None
    assert opening.failed == greeting.failed == []


async def test_life_that_is_ended_before_it_began_starts_nothing(autojump_clock: MockClock) -> None:
    """The pool may change its mind before the task of the life has run at all."""
    owner = Owner()
    owner.life.end(polite=False)
    await owner.run()
    assert (owner.exit, owner.life.worker) == (None, None)


class Unstoppable(MockPortFactory):
    """A factory that has the process before it notices a cancellation."""

    async def open(self, *, worker_id: str, incarnation: int) -> MockPort:
        """Start one.

        Cancellation: Comes too late.
        """
        port = None
        with trio.CancelScope(shield=True):
            port = await super().open(worker_id=worker_id, incarnation=incarnation)
        assert port is not None
        return port


async def test_process_that_came_too_late_is_ended_without_a_handshake(autojump_clock: MockClock) -> None:
    """A start that could not be stopped any more is nobody's: it is killed and reaped."""
    owner = Owner(Unstoppable(start_delay=1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        await trio.sleep(0.5)
        owner.life.end(polite=False)
    assert owner.started == []
    assert owner.port.exit_status is not None
    assert owner.port.received == []


# --- ending -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reactions", "signals", "takes"),
    [
        ({"eof": 1.0}, ["eof", "kill"], 1.0),
        ({"eof": None, "terminate": 1.0}, ["eof", "terminate", "kill"], 3.0),
        ({"eof": None, "terminate": None}, ["eof", "terminate", "kill"], 4.0),
        ({"eof": None, "terminate": None, "kill": 1.0}, ["eof", "terminate", "kill"], 5.0),
    ],
)
async def test_polite_end_escalates_within_its_grace(
    reactions: dict[str, Any], signals: list[str], takes: float, autojump_clock: MockClock
) -> None:
    """End of stdin, then SIGTERM after half the grace, then SIGKILL at its end."""
    owner = Owner(with_reactions(**reactions), grace=4.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        await owner.has_started.wait()
        owner.life.end(polite=True)
    assert trio.current_time() == takes
    assert [name for name in owner.port.signals if name in signals][: len(signals)] == owner.port.signals
    assert owner.port.exit_status is not None


async def test_impatience_cuts_a_polite_end_short(autojump_clock: MockClock) -> None:
    """Told to end at once while it ends politely, the process is killed there and then."""
    owner = Owner(with_reactions(eof=None, terminate=None), grace=100.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        await owner.has_started.wait()
        owner.life.end(polite=True)
        await trio.sleep(1.0)
        owner.life.end(polite=False)
    assert (trio.current_time(), owner.exit) == (1.0, "killed by signal 9")


async def test_worker_that_dies_by_itself_ends_its_life(autojump_clock: MockClock) -> None:
    """Nobody needs to tell it to end."""
    owner = Owner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        await owner.has_started.wait()
        owner.port.die(signal=11)
    assert owner.exit == "killed by signal 11"


async def test_end_interrupts_what_the_pool_was_doing_with_the_worker(autojump_clock: MockClock) -> None:
    """A ping or a drain under way is cancelled when the worker is ended."""
    owner = Owner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run)
        await owner.has_started.wait()
        owner.life.care = trio.CancelScope()
        owner.life.end(polite=True)
        with owner.life.care:
            await trio.sleep_forever()
    assert owner.life.care.cancelled_caught


# --- cancellation and worse -------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 2.5])
async def test_cancelled_life_kills_and_reaps_first(after: float, autojump_clock: MockClock) -> None:
    """Cancelled while it opens, greets, serves or ends: no process is left when the cancellation leaves."""

    def behave(port: MockPort) -> None:
        port.reactions.eof, port.reactions.kill = None, 0.25
        port.answer_handshake(Plan().after(1.0).reply({}))

    owner = Owner(MockPortFactory(behave, start_delay=0.25))
    with trio.move_on_after(after) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.run)
            await trio.sleep(2.0)
            owner.life.end(polite=True)
    assert scope.cancelled_caught
    assert isinstance(owner.ports, MockPortFactory)
    assert (owner.ports.live, owner.ports.starting) == ([], 0)
    assert trio.current_time() <= after + 0.25


async def test_process_that_cannot_be_reaped_holds_a_cancellation_up_for_a_bounded_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When even SIGKILL does not help, the life gives up after ``REAP_TIMEOUT`` and says so."""
    owner = Owner(with_reactions(eof=None, kill=1_000.0))
    with trio.move_on_after(1.0), caplog.at_level(logging.ERROR):
        await owner.run()
    assert trio.current_time() == 1.0 + REAP_TIMEOUT
    assert "could not be reaped" in caplog.text


class Unattended(MockPort):
    """A port whose attending fails once."""

    failures = 1

    async def attend(self) -> Any:
        """Fail, then do it.

        Cancellation: As ever.
        """
        if self.failures:
            self.failures -= 1
            raise OSError("cannot wait for it")
        return await super().attend()


async def test_failure_to_attend_kills_and_reaps(autojump_clock: MockClock) -> None:
    """An error of the port in the middle of a life is told to its owner, and the process is not left behind."""
    port = Unattended("w-1", 1)

    class Factory:
        async def open(self, *, worker_id: str, incarnation: int) -> MockPort:
            return port

    owner = Owner(Factory())
    with pytest.raises(ExceptionGroup):
        await owner.run()
    assert port.exit_status is not None


async def test_events_of_the_owner_come_in_order(autojump_clock: MockClock) -> None:
    """``on_failed`` is called before the process is reaped, so that no second start counts on its slot."""
    order: list[str] = []
    owner = Owner(with_reactions(eof=None))

    def note(what: str, then: Callable[..., None]) -> Callable[..., None]:
        def noted(*args: Any) -> None:
            order.append(f"{what} {'reaped' if owner.port.exit_status else 'alive'}")
            then(*args)

        return noted

    owner.life._on_failed = note("failed", owner._on_failed)
    assert isinstance(owner.ports, MockPortFactory)
    owner.ports.behaviour = lambda port: port.answer_handshake(Plan().fail("no"))
    await owner.run()
    assert order == ["failed alive"]
    assert owner.port.exit_status is not None
