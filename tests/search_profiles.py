"""How long Hypothesis searches: profiles by name, chosen by ``--hypothesis-profile``; ``fast`` unless told otherwise.

Examples that failed are kept in ``.hypothesis`` and tried first the next time, in every profile.
"""

from __future__ import annotations

from hypothesis import settings

__all__ = ["chosen", "depth"]

#: Steps of the state machine that one example holds at most.
STEPS_PER_EXAMPLE = 50

# Busy machines make single steps slow now and then; the budget of the layer holds for the whole test.
# One failure at a time: finding out whether there are two takes as long again.
settings.register_profile(
    "fast",
    max_examples=2_000 // STEPS_PER_EXAMPLE,
    stateful_step_count=STEPS_PER_EXAMPLE,
    deadline=None,
    report_multiple_bugs=False,
    derandomize=False,
)
settings.register_profile("nightly", settings.get_profile("fast"), max_examples=100_000 // STEPS_PER_EXAMPLE)
# On a busy machine single examples take long now and then: no run of ours has Hypothesis' own deadline.
settings.load_profile("fast")


def chosen() -> settings:
    """Return the profile that this run was started with; ``fast`` where pytest's plugin has loaded none."""
    loaded = settings.get_current_profile_name()
    return settings.get_profile(loaded if loaded == "nightly" else "fast")


def depth(fast: int, nightly: int) -> int:
    """Return how often to do what is worth doing more often at night."""
    return nightly if chosen().max_examples >= settings.get_profile("nightly").max_examples else fast
