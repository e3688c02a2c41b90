"""How a picture travels from where a run failed to where it is told: with the error, drawn only if somebody asks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_testkit.report.timeline import Timeline

__all__ = ["carried", "carry"]

_NAME: Final = "__dspex_timeline__"


def carry(error: BaseException, draw: Callable[[], Timeline]) -> None:
    """Let ``error`` carry a timeline, which ``draw`` makes when it is asked for."""
    with contextlib.suppress(AttributeError):  # an error with slots carries nothing
        setattr(error, _NAME, draw)


def carried(error: BaseException | None) -> Timeline | None:
    """Return the timeline that ``error``, or an error that led to it, carries; ``None`` if none does."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if (draw := getattr(error, _NAME, None)) is not None:
            timeline: Timeline = draw()
            return timeline
        error = error.__cause__ or error.__context__
    return None
