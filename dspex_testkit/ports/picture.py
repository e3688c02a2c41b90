"""The picture of a body's run that failed: what its recorder kept of its pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_testkit.hangs.tasks import redacted
from dspex_testkit.report.timeline import Timeline, Verdict
from dspex_testkit.report.weaving import Weaver

if TYPE_CHECKING:
    from dspex_testkit.report.recorder import Recorder

__all__ = ["timeline_of_body"]


def timeline_of_body(recorder: Recorder, error: BaseException, *, port: str) -> Timeline:
    """Draw up the timeline of a body that failed.

    Args:
        recorder: What was recorded.
        error: What the body ended with.
        port: Name of the kind of port that it ran on.
    """
    weaver = Weaver(recorder.zero)
    weaver.feed(recorder.entries)
    at = weaver.now if weaver.failed_at is None else weaver.failed_at
    return weaver.timeline(
        "",
        Verdict(type(error).__name__, redacted(str(error)), at),
        notes=(f"on the port {port!r}, whose time is {'virtual' if port == 'sim' else 'real'}",),
        is_simulated=port == "sim",
        is_cut=recorder.is_cut,
    )
