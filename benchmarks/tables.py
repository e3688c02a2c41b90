"""Results as tables: on the terminal, in Markdown and in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import CaseResult, Figure, Metric

__all__ = ["LEGEND", "as_json", "as_markdown", "markdown_table", "rich_table", "told"]

#: How the tables are read.
LEGEND = (
    "Median of the rounds ± half of the distance between its quartiles. A ratio is the median of the ratios to the "
    "first line, each taken within one round."
)

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def told(value: float, unit: str) -> str:
    """Return a value with three figures and a unit that fits its size."""
    if unit in ("bytes", "B/s"):
        scale, name = next((each for each in _BYTES if abs(value) >= each[0]), _BYTES[-1])
        return f"{value / scale:.3g} {name}{'/s' if unit == 'B/s' else ''}"
    if unit == "s":
        scale, name = next((each for each in _SECONDS if abs(value) >= each[0]), _SECONDS[-1])
        return f"{_three(value / scale)} {name}"
    return f"{_three(value)}{unit}"


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(figure: Figure | None, metric: Metric, rounds: int) -> list[str]:
    if figure is None:
        return [metric.absent, ""] if metric.has_ratio else [metric.absent]
    low, high = figure.quartiles
    spread = f" ± {50 * (high - low) / figure.median:.0f} %" if figure.median and metric.unit else ""
    if len(figure.values) < rounds:
        spread += f", in {len(figure.values)} of {rounds}"
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
    return [f"{told(figure.median, metric.unit)}{spread}", *([ratio] if metric.has_ratio else [])]


def _rows(result: CaseResult) -> list[list[str]]:
    rows = []
    for subject in result.samples:
        if subject in result.failures:
            reason = result.failures[subject].splitlines()[0][:100]
            rows.append([subject, reason, *[""] * (len(_columns(result)) - 2)])
        else:
            rounds = len(result.samples[subject])
            figures = [(result.figure(subject, each), each, rounds) for each in result.metrics]
            rows.append([subject, *(cell for each in figures for cell in _cells(*each))])
    return rows


def _columns(result: CaseResult) -> list[str]:
    told_of = [(each.name, "ratio") if each.has_ratio else (each.name,) for each in result.metrics]
    return ["subject", *(name for names in told_of for name in names)]


def _head(result: CaseResult) -> str:
    return f"{result.letter}. {result.title}, {result.case}"


def rich_table(result: CaseResult) -> Table:
    """Return the table of one case for a terminal."""
    table = Table(title=_head(result), title_justify="left")
    for number, name in enumerate(_columns(result)):
        table.add_column(name, no_wrap=not number)
    for row in _rows(result):
        table.add_row(*row)
    return table


def as_markdown(results: Sequence[CaseResult], facts: dict[str, Any], targets: str = "") -> str:
    """Return the tables of all cases as a Markdown document."""
    lines = ["# Results", "", ", ".join(f"{name} {value}" for name, value in facts.items()) + ".", ""]
    lines += [LEGEND, ""]
    lines += ["## What it should be", "", targets] if targets else []
    lines += [f"## {_head(result)}\n\n{markdown_table(result)}" for result in results]
    return "\n".join(lines)


def markdown_table(result: CaseResult) -> str:
    """Return the table of one case in Markdown."""
    head = _columns(result)
    lines = [head, ["---"] * len(head), *_rows(result)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_json(results: Sequence[CaseResult], facts: dict[str, Any]) -> str:
    """Return all samples, and the figures made of them, as JSON; times in seconds, sizes in bytes."""
    document = {"facts": facts, "results": [_result_json(result) for result in results]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _result_json(result: CaseResult) -> dict[str, Any]:
    subjects = {
        subject: {each.name: _figure_json(result, subject, each) for each in result.metrics}
        for subject in result.samples
        if subject not in result.failures
    }
    return {
        "workload": result.letter,
        "title": result.title,
        "case": result.case,
        "reference": result.reference,
        "subjects": subjects,
        "failures": result.failures,
        "samples": result.samples,
    }


def _figure_json(result: CaseResult, subject: str, metric: Metric) -> dict[str, Any] | None:
    figure = result.figure(subject, metric)
    if figure is None:
        return None
    low, high = figure.quartiles
    return {
        "unit": metric.unit,
        "values": figure.values,
        "median": figure.median,
        "quartiles": [low, high],
        "ratio": figure.ratio,
    }
