"""Measure the processor time of a simulated hour: 4 workers, 2 calls a second, a kill a minute, health checks."""

from __future__ import annotations

import argparse
import time

from dspex_testkit.simulation.steady import simulate_hours


def main() -> None:
    """Simulate, and print what it took. What the pool promises is checked on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="simulated hours (default: 1)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often; the least is the figure (default: 3)"
    )
    options = parser.parse_args()
    taken = []
    for _ in range(options.rounds):
        before = time.process_time()
        run = simulate_hours(options.hours)
        taken.append(time.process_time() - before)
    print(
        f"{options.hours:g} simulated hours, {len(run.outcomes)} calls, {run.met['Kill']} kills: "
        f"{min(taken):.2f} CPU s, the least of {', '.join(f'{one:.2f}' for one in taken)}"
    )


if __name__ == "__main__":
    main()
