"""The picture of a run for a terminal: a lane a line, time from left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dspex_testkit.report.axis import Axis
from dspex_testkit.report.story import seconds, story_of
from dspex_testkit.report.thinning import lanes_that_matter, thinned
from dspex_testkit.report.timeline import ANSWERED

if TYPE_CHECKING:
    from dspex_testkit.report.timeline import Lane, Timeline

__all__ = ["ascii_picture"]

#: Columns of the picture, names of lanes included.
WIDTH: Final = 108
#: Lanes of one group that are drawn at the most.
_LANES: Final = 16

_STROKES: Final = {
    "starting": ".", "idle": "-", "pinging": "?", "leased": "=", "draining": "~", "retiring": "x",
    "waiting": ".", "holding": "=",
}  # fmt: skip
_LEGEND: Final = "workers: . starts  - idle  ? pinged  = lent  ~ drained  x ended   callers: . waits  = holds"
_MARKS: Final = (
    "! fault   % a task held back or put first   + answered   E ended with an error   ^ failed here"
)


def ascii_picture(timeline: Timeline, *, width: int = WIDTH) -> str:
    """Draw ``timeline``: its lanes, and below them what failed, after which faults, and who held what."""
    drawn = thinned(timeline)
    lanes = lanes_that_matter(drawn, _LANES)
    margin = max([len(lane.title) for lane in lanes] + [6]) + 2
    canvas = _Canvas(drawn, margin, max(24, width - margin - 1))
    lines = [canvas.ruler(), *(canvas.lane(lane) for lane in lanes), *canvas.of_nobody()]
    lines += [canvas.pointer(), _LEGEND, _MARKS]
    left_out = len(timeline.lanes) - len(lanes)
    if left_out:
        lines.append(f"{left_out} more lanes are left out")
    if canvas.axis.cuts:
        lines.append("pauses in which nothing happens are cut short")
    return "\n".join([*lines, "", *_told(timeline)])


def _told(timeline: Timeline) -> list[str]:
    story = story_of(timeline)
    lines = [f"failed {story.where}: {story.failed}"]
    for title, told in (
        ("faults before it, the latest first:", story.faults),
        ("who held what then:", story.holders),
        ("calls without an answer:", story.unanswered),
    ):
        if told:
            lines += [title, *(f"  {line}" for line in told)]
    return lines


class _Canvas:
    """Puts times into columns."""

    def __init__(self, timeline: Timeline, margin: int, columns: int) -> None:
        self.axis = Axis.of(timeline)
        self._timeline = timeline
        self._margin = margin
        self._columns = columns

    def column(self, at: float) -> int:
        return round(self.axis.place(at) * (self._columns - 1))

    def ruler(self) -> str:
        cells = [" "] * (self._columns + 12)
        free = 0
        for tick in self.axis.ticks(max(2, self._columns // 12)):
            label, column = f"{tick:.3f}".rstrip("0").rstrip("."), self.column(tick)
            if column >= free and column + len(label) <= self._columns + 4:
                cells[column : column + len(label)] = label
                free = column + len(label) + 2
        return ("time s".ljust(self._margin) + "".join(cells)).rstrip()

    def pointer(self) -> str:
        column = self.column(self._timeline.verdict.at)
        return " " * (self._margin + column) + "^ " + seconds(self._timeline.verdict.at)

    def lane(self, lane: Lane) -> str:
        cells = [" "] * (self._columns + 1)
        for span in self._timeline.spans:
            if span.lane == lane.key:
                begin, end = self.column(span.begin), self.column(span.end)
                cells[begin : end + 1] = _STROKES.get(span.kind, "=") * (end + 1 - begin)
                self._write(
                    cells, begin, end, _short(span.label) if span.kind in ("leased", "holding") else ""
                )
        told = ""
        for mark in self._timeline.marks:
            if mark.lane != lane.key:
                continue
            if mark.kind == "fault":
                cells[self.column(mark.at)] = "!"
                told += f" {mark.label}"
            elif mark.kind == "end":
                cells[self.column(mark.at)] = "+" if mark.label == ANSWERED else "E"
                told += "" if mark.label == ANSWERED else f" {mark.label}"
        return (lane.title.ljust(self._margin) + "".join(cells)).rstrip() + told[:48]

    def of_nobody(self) -> list[str]:
        """Draw what happened in no lane: faults of the whole pool, and the decisions of the scheduler."""
        lines = []
        for title, kind, sign in (("pool", "fault", "!"), ("order", "turn", "%")):
            marks = [mark for mark in self._timeline.marks if mark.kind == kind and not mark.lane]
            cells = [" "] * (self._columns + 1)
            for mark in marks:
                cells[self.column(mark.at)] = sign
            told = ", ".join(dict.fromkeys(mark.label for mark in marks))
            if marks:
                lines.append((title.ljust(self._margin) + "".join(cells)).rstrip() + f" {told}"[:48])
        return lines

    @staticmethod
    def _write(cells: list[str], begin: int, end: int, label: str) -> None:
        """Write the name of who is at the other end into a span, if there is room for it."""
        if label and len(label) <= end - begin - 1:
            cells[begin + 1 : begin + 1 + len(label)] = label


def _short(label: str) -> str:
    return label.removeprefix("call ").removeprefix("caller ").partition(" (")[0].replace(" ", "")
