"""The seed of a test run: where it comes from, and what is drawn from it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SEED_VARIABLE", "chosen_seed", "how_to_replay", "random_of"]

#: Environment variable with the seed to replay.
SEED_VARIABLE = "DSPEX_SEED"

# Long enough that two runs hardly ever share one, short enough to be typed.
_SEEDS = 10**9


def chosen_seed(given: int | None, environ: Mapping[str, str]) -> int:
    """Return the seed that was given, else that of the environment, else one that nobody can foresee.

    Args:
        given: What the command line says.
        environ: Environment variables by name.

    Raises:
        ValueError: The variable holds something else than a whole number.
    """
    if given is not None:
        return given
    text = environ.get(SEED_VARIABLE, "").strip()
    if not text:
        return random.SystemRandom().randrange(_SEEDS)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{SEED_VARIABLE} must be a whole number, not {text!r}") from None


def random_of(seed: int, name: str) -> random.Random:
    """Return a source of random numbers for one user of a seed.

    It depends on both arguments and nothing else: not on who else draws, in what order, or in which process.
    """
    return random.Random(f"{seed}/{name}")


def how_to_replay(seed: int) -> str:
    """Say in one line how a run with this seed is repeated."""
    return f"seed {seed}; replay with --dspex-seed={seed} or {SEED_VARIABLE}={seed}"
