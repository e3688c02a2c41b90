"""Results as pictures: medians with their quartiles, one file for each case."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.figures import CaseResult, Metric

__all__ = ["draw"]

#: From this ratio of the largest value to the smallest on, the axis is logarithmic.
_WIDE = 20.0
_COLOURS = {"ours": "tab:blue", "raw": "black"}


def draw(results: Sequence[CaseResult], folder: Path) -> list[Path]:
    """Draw every case into an SVG file of its own; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    return [path for result in results if (path := _draw_case(result, folder)) is not None]


def _draw_case(result: CaseResult, folder: Path) -> Path | None:
    import matplotlib.pyplot as plt

    subjects = [name for name in reversed(result.samples) if name not in result.failures]
    if not subjects:
        return None
    columns = len(result.metrics)
    figure, axes = plt.subplots(
        1, columns, figsize=(4 + 3.2 * columns, 1.2 + 0.28 * len(subjects)), sharey=True, squeeze=False
    )
    for axis, metric in zip(axes[0], result.metrics, strict=True):
        _draw_metric(axis, result, metric, subjects)
    figure.suptitle(f"{result.letter}. {result.title}, {result.case}", x=0.01, ha="left")
    figure.tight_layout()
    path = folder / f"{result.letter}-{re.sub(r'[^a-z0-9]+', '-', result.case.lower()).strip('-')}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _draw_metric(axis: Any, result: CaseResult, metric: Metric, subjects: list[str]) -> None:
    """Draw one metric: a dot for each median, a line between the quartiles."""
    medians = []
    for height, subject in enumerate(subjects):
        figure = result.figure(subject, metric)
        if figure is None:
            continue
        low, high = figure.quartiles
        colour = _COLOURS.get(re.split("[ :]", subject)[0], "tab:gray")
        axis.plot([low, high], [height, height], color=colour, linewidth=2)
        axis.plot([figure.median], [height], "o", color=colour)
        medians.append(figure.median)
    if medians and min(medians) > 0 and max(medians) / min(medians) > _WIDE:
        axis.set_xscale("log")
    elif medians:
        axis.set_xlim(left=min(0.0, *medians))
    unit = {"s": "seconds", "B/s": "bytes a second"}.get(metric.unit, metric.unit.replace("/s", "a second"))
    better = "more is better" if metric.more_is_better else "less is better"
    axis.set_xlabel(f"{metric.name}, {unit} ({better})" if unit else metric.name)
    axis.set_yticks(range(len(subjects)), subjects)
    axis.grid(axis="x", alpha=0.3)
