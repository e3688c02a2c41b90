"""Puts a load on a pool: callers that wait for their answers, or calls that come when they come."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import trio

from dspex_pool.errors import DspexPoolError
from dspex_pool.telemetry import PREFIX
from dspex_testkit.load.profile import Closed
from dspex_testkit.load.result import LoadResult
from dspex_testkit.load.samples import Samples
from dspex_testkit.load.tally import NOT_MADE, WRONG_ANSWER, Tally
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.session_call import Reply
    from dspex_pool.session_pool import SessionPool
    from dspex_testkit.load.profile import Load, Open, Profile
    from dspex_testkit.load.tally import Stretch

__all__ = ["HasSessions", "run_load"]

#: Looks at the process for which there is room.
_MOST_LOOKS = 4000


class HasSessions(Protocol):
    """A ``PythonPool``, or what a test is handed in its place."""

    @property
    def sessions(self) -> SessionPool:
        """The session pool."""


async def run_load(
    pool: HasSessions,
    profile: Profile,
    *,
    seed: int = 0,
    on_stretch: Callable[[Stretch], object] | None = None,
) -> LoadResult:
    """Put the load of a profile on an open pool, and return what it came to.

    After the warm-up, a closed load is over with the last answer after ``seconds``, or after its calls; an open load
    with the last answer to what has arrived by then. The settings of the profile are not looked at here.

    Args:
        pool: The pool, open.
        profile: The load.
        seed: Arrivals are drawn from it.
        on_stretch: Called with each stretch of time that is over, a second or longer.

    Cancellation: All callers leave, and nothing is returned.
    """
    retired: Counter[str] = Counter()

    def note(event: tuple[str, ...], measurements: Mapping[str, float], about: Mapping[str, Any]) -> None:
        retired[about["reason"]] += 1

    warmup = _Run(pool, profile, seed, Tally(profile.warmup_seconds))
    if profile.warmup_calls:
        callers = profile.load.callers if isinstance(profile.load, Closed) else 16
        await warmup.closed(callers, profile.warmup_calls, profile.warmup_seconds)
    run = _Run(pool, profile, seed, Tally(profile.seconds, on_stretch=on_stretch))
    every = max(profile.look_every, profile.seconds / _MOST_LOOKS)
    samples = Samples(math.ceil(profile.seconds / every) + 2, collect=profile.collect)
    with pool.sessions.telemetry.attach((*PREFIX, "worker_retired"), note):
        seconds = await run.carry_out(profile.load, samples, every)
    return LoadResult(profile, seed, seconds, run.tally, samples, retired)


class _Run:
    """One load, or its warm-up."""

    def __init__(self, pool: HasSessions, profile: Profile, seed: int, tally: Tally) -> None:
        self.tally = tally
        self._pool = pool.sessions
        self._profile = profile
        self._random = random_of(seed, profile.name)
        self._begin = trio.current_time()
        self._made = 0
        self._under_way = 0
        self._args = dict(profile.args)
        if profile.payload_bytes:
            self._args["payload"] = "x" * profile.payload_bytes

    async def carry_out(self, load: Load, samples: Samples, every: float) -> float:
        """Make the calls, look at the process meanwhile, and return how long it took."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look, samples, every)
            if isinstance(load, Closed):
                await self.closed(load.callers, load.calls, self._profile.seconds)
            else:
                await self.open(load)
            nursery.cancel_scope.cancel()
        seconds = self._elapsed()
        samples.look(seconds)
        self.tally.finish(seconds)
        return seconds

    async def closed(self, callers: int, calls: int | None, seconds: float) -> None:
        """Have callers call until the calls are made or the time is over; the last answers are waited for."""

        async def caller() -> None:
            while self._elapsed() < seconds and (calls is None or self._made < calls):
                await self._call(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(caller)

    async def open(self, load: Open) -> None:
        """Make calls when they arrive, until the time is over; the last answers are waited for."""
        async with trio.open_nursery() as nursery:
            for at in load.arrivals.times(self._profile.seconds, self._random):
                intended = self._begin + at
                await trio.sleep_until(intended)
                if self._under_way < load.most_under_way:
                    self._under_way += 1
                    nursery.start_soon(self._arrived, intended)
                else:
                    self.tally.failed(self._elapsed(), 0.0, NOT_MADE, "too many calls are under way")

    async def _arrived(self, intended: float) -> None:
        self.tally.delay.record(trio.current_time() - intended)
        try:
            await self._call(intended)
        finally:
            self._under_way -= 1

    async def _call(self, intended: float) -> None:
        """Make one call, and count it from the moment at which it was meant to be made."""
        number, began = self._made, trio.current_time()
        self._made += 1
        try:
            reply = await self._execute(number)
        except DspexPoolError as error:
            # From the moment at which it was made: how late the load itself was says nothing of a refusal.
            took = trio.current_time() - began
            self.tally.failed(self._elapsed(), took, type(error).__name__, str(error))
            return
        took = trio.current_time() - intended
        if self._profile.is_echo and _number_of(reply.result) != number:
            text = f"call {number} was answered by {str(reply.result)[:200]}"
            self.tally.failed(self._elapsed(), took, WRONG_ANSWER, text)
        else:
            self.tally.answered(self._elapsed(), took)

    async def _execute(self, number: int) -> Reply:
        profile = self._profile
        args = {**self._args, "number": number} if profile.is_echo else self._args
        if not profile.sessions:
            return await self._pool.execute_anonymous(profile.command, args)
        session = f"load-{number % profile.sessions}"
        return await self._pool.execute_in_session(session, profile.command, args)

    async def _look(self, samples: Samples, every: float) -> None:
        looks = 0
        while True:
            samples.look(self._elapsed())
            self.tally.advance(self._elapsed())
            looks += 1
            await trio.sleep_until(self._begin + looks * every)

    def _elapsed(self) -> float:
        return trio.current_time() - self._begin


def _number_of(result: Any) -> Any:
    """Return the number of the call that an answer is for; a wrong answer may be anything."""
    return result.get("number") if isinstance(result, dict) else None
