"""Finder: the pool's pure core under random commands, drawn by a plain generator.

The commands, and what is checked after each, are those of ``PoolCoreMachine``. Hypothesis shrinks what it finds, and
pays for that with most of its time; here that something is found is enough.
"""

from __future__ import annotations

import random
from typing import Any, Final

from dspex_pool.core.records import Granted, Outcome
from dspex_testkit.pool_core_machine import PoolCoreMachine

__all__ = ["play"]

STEPS: Final = 100

#: Settings that a pool may have or not, on one coarse grid.
OPTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "max_overflow": (1, 2),
    "overflow_ttl": (5.0,),
    "min_idle": (0, 1),
    "max_starting": (1, 3),
    "breaker_after": (0.5, 2.0),
    "max_waiting": (1, 3),
    "codel_target": (1.0,),
    "idle_order": ("lifo", "fifo"),
    "health_check_interval": (2.0, 5.0),
    "max_idle_pings": (1,),
    "idle_timeout": (5.0,),
    "max_lifetime": ((30.0, 60.0),),
    "max_uses": (1, 3),
    "max_rss_bytes": (1000,),
    "lease_timeout": (10.0,),
    "leak_warning_after": (5.0,),
    "max_sessions": (1, 2),
    "session_ttl": (10.0,),
}
SECONDS: Final = (None, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
ENDS: Final = (*Outcome, *Outcome, "twice", "foreign", "reject", "claim")
ACTS: Final = ("drain", "suspend", "resume", "forget", "measure", "grow", "shrink", "close", "kill")


def play(seed: int) -> int:
    """Play the commands of one seed; raises what is wrong."""
    numbers = random.Random(seed)
    machine = PoolCoreMachine()
    settings = {name: numbers.choice(values) for name, values in OPTIONS.items() if numbers.random() < 0.3}
    settings |= {"pool_size": numbers.randint(1, 3), "lazy": numbers.random() < 0.4}
    machine.begin(options={"spawn_timeout": 10.0, "cancel_grace": 2.0} | settings, seed=seed)
    habits = [numbers.random() ** 2 for _ in _COMMANDS]
    commands = numbers.choices(_COMMANDS, habits, k=STEPS)
    if numbers.random() < 0.3:
        commands.insert(numbers.randrange(10, STEPS), _close)
    for command in commands:
        command(machine, numbers)
    machine.teardown()
    return 1


def _checkout(machine: PoolCoreMachine, numbers: random.Random) -> None:
    machine.checkout(
        session=numbers.choice((None, None, "a", "b", "c")),
        affinity=numbers.choice(("hint", "strict", "strict", "strict_nowait")),
        timeout=numbers.choice((1000.0, 1000.0, 0.0, 0.5, 2.0, 10.0)),
        wait=numbers.random() < 0.8,
    )


def _close(machine: PoolCoreMachine, numbers: random.Random) -> None:
    machine.returned += [Granted(0, 0, 0.0)] * 4
    machine.administer(act="close", pick=0)


_COMMANDS: Final = (
    _checkout,
    _checkout,
    lambda machine, numbers: machine.cancel(pick=numbers.randrange(8)),
    lambda machine, numbers: machine.end_lease(pick=numbers.randrange(8), how=numbers.choice(ENDS)),
    lambda machine, numbers: machine.finish_start(pick=numbers.randrange(8), ok=numbers.random() < 0.7),
    lambda machine, numbers: machine.finish_ping_or_drain(
        pick=numbers.randrange(8), ok=numbers.random() < 0.7
    ),
    lambda machine, numbers: machine.reap(pick=numbers.randrange(8)),
    lambda machine, numbers: machine.break_worker(pick=numbers.randrange(8), dies=numbers.random() < 0.5),
    lambda machine, numbers: machine.advance(seconds=numbers.choice(SECONDS)),
    lambda machine, numbers: machine.administer(act=numbers.choice(ACTS), pick=numbers.randrange(8)),
)
