"""Measure the processor time of a simulated hour: 4 workers, 2 calls a second, a kill a minute, health checks.

Processor seconds are those of this machine at this moment. What can be compared is their ratio to a checkpoint of
trio, measured between the rounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time

import trio

from benchmarks.arguments import at_least_one
from dspex_testkit.simulation.steady import simulate_hours

#: Processor seconds of a checkpoint on the machine on which 1.5 seconds for an hour were asked for.
REFERENCE = 3.5e-6
_CHECKPOINTS = 30_000


async def checkpoint_seconds() -> float:
    """Return the processor seconds that one checkpoint of trio takes."""
    before = time.process_time()
    for _ in range(_CHECKPOINTS):
        await trio.lowlevel.checkpoint()
    return (time.process_time() - before) / _CHECKPOINTS


def main() -> None:
    """Simulate, and print what it took. What the pool promises is checked on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=_hours, default=1.0, help="simulated hours (default: 1)")
    parser.add_argument(
        "--rounds", type=at_least_one, default=5, help="how often; the least is the figure (default: 5)"
    )
    options = parser.parse_args()
    try:
        _measure(options.hours, options.rounds)
    except KeyboardInterrupt:
        sys.exit(130)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no time that can be simulated")
    return hours


def _measure(hours: float, rounds: int) -> None:
    taken: list[float] = []
    ratios: list[float] = []
    for _ in range(rounds):
        checkpoint = trio.run(checkpoint_seconds)
        before = time.process_time()
        run = simulate_hours(hours)
        taken.append(time.process_time() - before)
        checkpoint = (checkpoint + trio.run(checkpoint_seconds)) / 2
        ratios.append(taken[-1] / checkpoint)
    print(
        f"{hours:g} simulated hours, {len(run.outcomes)} calls, {run.met['Kill']} kills: "
        f"{min(taken):.2f} CPU s, the least of {', '.join(f'{one:.2f}' for one in taken)}"
    )
    ratio = statistics.median(ratios)
    print(
        f"as much as {ratio:,.0f} checkpoints of trio (median), which is {ratio * REFERENCE:.2f} CPU s "
        f"where a checkpoint takes {REFERENCE * 1e6:g} µs"
    )


if __name__ == "__main__":
    main()
