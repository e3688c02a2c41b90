"""Plays one test's cases until its time is over, in the process that pytest has prepared for it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from typing import TYPE_CHECKING, Final

from dspex_testkit.fuzz.failure import Failure, failure_of
from dspex_testkit.fuzz.journal import Example, key_of
from dspex_testkit.fuzz.limit import NeverEndsError, limited
from dspex_testkit.fuzz.messages import Checked, Found, Played, encode
from dspex_testkit.report.ascii_lanes import ascii_picture
from dspex_testkit.simulation.explore import Explored, NotDeterministicError
from dspex_testkit.simulation.picture import timeline_of
from dspex_testkit.simulation.shrink import Shrinker, size_of
from dspex_testkit.simulation.telling import describe, quoted
from dspex_testkit.simulation.workload import of_token, to_token

if TYPE_CHECKING:
    from dspex_testkit.fuzz.messages import Message, Order
    from dspex_testkit.planting import Planting
    from dspex_testkit.simulation.explore import Asked, Explorer
    from dspex_testkit.simulation.run import Run
    from dspex_testkit.simulation.workload import Case

__all__ = ["Hunter", "StuckError", "name_of_test", "versions"]

#: CPU seconds after which one case counts as endless.
ENDLESS: Final = 20.0
#: Seconds between two messages that count.
TELL_EVERY: Final = 0.5
#: Cases below which it means nothing that a kind of fault has not happened.
ENOUGH: Final = 50
#: Failures of one class of which each process tries to make a smaller example.
TRIES: Final = 3


class StuckError(Exception):
    """A case never ended. Its process is of no use any more: what was interrupted may be anything."""


class Hunter:
    """Plays cases and tells what it finds.

    Args:
        order: What to play.
        planting: The canary, planted; ``None`` if there is none.
    """

    def __init__(self, order: Order, planting: Planting | None = None) -> None:
        #: What to play.
        self.order = order
        #: Until when the current test is played, in seconds since 1970.
        self.until = order.until
        #: Until when all tests together are.
        self.end = order.until
        #: Whether the canary was found.
        self.is_done = False
        self._planting = planting
        self._known = dict(order.known)
        self._tries: dict[str, int] = {}
        self._count, self._cpu, self._told = 0, time.process_time(), time.monotonic()

    def __call__(self, explorer: Explorer, asked: Asked) -> Explored:
        """Play cases of a test.

        Raises:
            StuckError: A case never ended.
            VacuousError: All cases together have shown nothing.
        """
        test = name_of_test(asked.nodeid)
        self._check_examples(explorer, test)
        explored = Explored()
        number = self.order.first.get(test, 0) + self.order.lane
        while not self.is_done:
            case = explorer.case(number, number, asked.nodeid, self.order.seed)
            self._play(explorer, case, test, explored, number)
            number += self.order.lanes
            if time.time() >= self.until:
                break
        self._tell_played(test)
        if explored.runs >= ENOUGH:
            explored.check()
        return explored

    # --- one case ----------------------------------------------------------------------------------------

    def _play(self, explorer: Explorer, case: Case, test: str, explored: Explored, number: int) -> None:
        run = self._run(explorer, case)
        explored.add(run)
        self._count += 1
        if time.monotonic() - self._told > TELL_EVERY:
            self._tell_played(test)
        if run.error is not None:
            self._fail(explorer, run, case, test)
        elif explorer.compare_every and number // self.order.lanes % explorer.compare_every == 0:
            again = self._run(explorer, case)
            if difference := run.difference(again):
                error = NotDeterministicError(f"of two runs of one case, {difference}")
                self._tell_found(
                    test, failure_of(error), self._example(run, case, test, str(error)), flaky=True
                )

    @staticmethod
    def _run(explorer: Explorer, case: Case) -> Run:
        with limited(ENDLESS):
            return explorer.setup.play(case)

    def _fail(self, explorer: Explorer, run: Run, case: Case, test: str) -> None:
        assert run.error is not None
        failure = failure_of(run.error)
        if isinstance(run.error, NeverEndsError):
            self._tell_found(test, failure, self._example(run, case, test, str(run.error)))
            raise StuckError(str(run.error))
        again = self._run(explorer, run.case)
        if again.error is None or failure_of(again.error) != failure:
            text = f"{run.error!r}; and played again it ended with {again.error!r}"
            self._tell_found(test, failure, self._example(run, case, test, text), flaky=True)
            return
        self._tries[failure.key] = self._tries.get(failure.key, 0) + 1
        example = None
        if self._tries[failure.key] <= TRIES:
            best = Shrinker(
                explorer.setup.play, again, seconds=explorer.shrink_seconds, tell_apart=_class_of
            ).shrink()
            example = self._example(best, best.case, test, str(best.error))
        if self._planting is not None:
            self._judge_canary(explorer, test, failure, example)
        else:
            self._tell_found(test, failure, example)

    def _judge_canary(self, explorer: Explorer, test: str, failure: Failure, example: Example | None) -> None:
        """Tell whether it was the canary: without it the same run passes."""
        assert self._planting is not None
        if example is None:
            return
        with self._planting.lifted():
            passes = self._run(explorer, of_token(example.token)).error is None
        self._tell_found(test, failure, example, canary=passes)
        self.is_done = passes

    def _check_examples(self, explorer: Explorer, test: str) -> None:
        """Play what failed in earlier runs."""
        for key, token in self.order.examples.get(test, {}).items():
            case = of_token(token)
            run = self._run(explorer, case)
            failure = None if run.error is None else failure_of(run.error)
            self._tell(Checked(key, failure))
            if failure is not None and key_of(test, failure) != key:
                self._fail(explorer, run, case, test)

    # --- what is told --------------------------------------------------------------------------------------

    def _example(self, run: Run, case: Case, test: str, text: str) -> Example:
        replay = replay_line(test, to_token(case))
        story = describe(run.case)
        timeline = timeline_of(run, test, replay=replay, notes=story) if run.error is not None else None
        return Example(
            size=size_of(run.case),
            token=to_token(case),
            replay=replay,
            text=text,
            story=tuple(story),
            picture=ascii_picture(timeline) if timeline is not None and timeline.lanes else "",
            versions=versions(),
        )

    def _tell_found(
        self,
        test: str,
        failure: Failure,
        example: Example | None,
        *,
        flaky: bool = False,
        canary: bool = False,
    ) -> None:
        if example is not None and not flaky:
            key = key_of(test, failure)
            if key in self._known and self._known[key] <= example.size:
                example = None
            else:
                self._known[key] = example.size
        self._tell(Found(test, failure, example, flaky, canary))

    def _tell_played(self, test: str) -> None:
        cpu = time.process_time()
        self._tell(Played(test, self._count, cpu - self._cpu))
        self._count, self._cpu, self._told = 0, cpu, time.monotonic()

    def _tell(self, message: Message) -> None:
        data = encode(message)
        try:
            while data:
                data = data[os.write(self.order.descriptor, data) :]
        except BrokenPipeError:
            # Nobody reads any more: the fuzzer has gone, by whatever end.
            os._exit(1)


def _class_of(run: Run) -> object:
    return None if run.error is None else failure_of(run.error)


def name_of_test(nodeid: str) -> str:
    """Return a test's name as pytest is given it; a world of the test kit goes by its module."""
    path, separator, name = nodeid.partition("::")
    if path.endswith("dspex_testkit/fuzz/worlds.py"):
        return f"dspex_testkit.fuzz.worlds{separator}{name}"
    return nodeid


def replay_line(test: str, token: str) -> str:
    """Return the line that repeats a run."""
    module = "--pyargs " if test.startswith("dspex_testkit.fuzz.worlds::") else ""
    return f"pytest {module}{quoted(test)} --dspex-replay={token}"


def versions() -> dict[str, str]:
    """Return the versions on which a run depends, by name."""
    names = ("dspex-pool", "trio")
    return {
        **{name: importlib.metadata.version(name) for name in names},
        "Python": platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
    }
