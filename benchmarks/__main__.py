"""The command: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from rich.console import Console

from benchmarks import plots, tables
from benchmarks.arguments import at_least_one
from benchmarks.contenders import CONTENDERS, versions
from benchmarks.machine import describe_machine
from benchmarks.rounds import nothing_left, run_case
from benchmarks.stored import UnreadableResultsError, load_results, merged
from benchmarks.targets import targets_table
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from benchmarks.figures import CaseResult
    from benchmarks.workloads import Workload

__all__ = ["main"]

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).with_name("README.md")
STORED = "results.json"
#: The cases whose tables the README shows.
SHOWN = {
    ("A", "one processor"),
    ("B", "4 workers"),
    ("F", "4 workers"),
    ("G", "4 workers"),
    ("K", "10,000 of them"),
}
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)


def main(words: list[str]) -> int:
    """Measure and write; return 1 if a subject gave a wrong answer, failed or hung."""
    options = _parse(words)
    if options.list:
        for workload in WORKLOADS.values():
            print(f"{workload.letter}  {workload.title}: {', '.join(workload.cases)}")
        return 0
    wanted = _wanted(options)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        before = load_results(options.output / STORED)
    except (UnreadableResultsError, OSError) as error:
        return _refuse(f"{error}")
    if not wanted and not options.nothing:
        return _refuse(
            f"nothing is of --case {options.case!r} and --subjects {options.subjects!r}; see --list"
        )
    console, results = Console(), None
    facts = {"date": time.strftime("%Y-%m-%d"), **describe_machine(), **versions()}
    try:
        with nothing_left():
            results = trio.run(_measure, wanted, options, before, facts, console)
    except* KeyboardInterrupt:
        print("interrupted; finished cases are stored, nothing is left running", file=sys.stderr)
    if results is None:
        return 130
    everything = merged(before, results)
    _write(everything, facts, options.output)
    if options.readme:
        write_readme(everything, facts)
    _draw(results, options.output, console)
    return int(_report_failures(results, console))


def _refuse(reason: str) -> int:
    print(f"python -m benchmarks: {reason}", file=sys.stderr)
    return 2


def _letters(text: str) -> list[str]:
    letters = text.upper().split(",")
    if unknown := sorted(set(letters) - set(WORKLOADS)):
        raise argparse.ArgumentTypeError(f"there is no workload {', '.join(unknown)}; see --list")
    return letters


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the workloads and their cases")
    parser.add_argument(
        "--only", type=_letters, default=list(WORKLOADS), metavar="A,B", help="these workloads"
    )
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases whose name has this in it")
    parser.add_argument(
        "--subjects", default="", metavar="X,Y", help="only subjects whose names begin with one of these"
    )
    parser.add_argument("--rounds", type=at_least_one, metavar="N", help="so many rounds of each workload")
    parser.add_argument("--quick", action="store_true", help="few calls a round: to see that it works")
    parser.add_argument("--heavy", action="store_true", help="with contenders that are big")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds (default: 0)")
    parser.add_argument("--readme", action="store_true", help="write the targets into benchmarks/README.md")
    parser.add_argument("--nothing", action="store_true", help="measure nothing; write what is stored again")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="where results go")
    return parser.parse_args(words)


def _wanted(options: argparse.Namespace) -> list[tuple[Workload, str, list[str]]]:
    """Return what is to be measured: workloads, each with one of its cases and the subjects."""
    return [
        (workload, case, subjects)
        for workload in (WORKLOADS[letter] for letter in options.only if not options.nothing)
        for case in workload.cases
        if options.case in case and (subjects := _subjects(workload, options))
    ]


async def _measure(
    wanted: list[tuple[Workload, str, list[str]]],
    options: argparse.Namespace,
    before: list[CaseResult],
    facts: dict[str, Any],
    console: Console,
) -> list[CaseResult]:
    results: list[CaseResult] = []
    for workload, case, subjects in wanted:
        with console.status("") as status:
            result = await run_case(
                workload,
                case,
                subjects,
                rounds=options.rounds or (2 if options.quick else workload.rounds),
                quick=options.quick,
                seed=options.seed,
                tell=status.update,
            )
        console.print(tables.rich_table(result))
        results.append(result)
        _write(merged(before, results), facts, options.output)
    return results


def _subjects(workload: Workload, options: argparse.Namespace) -> list[str]:
    wanted = [part.strip() for part in options.subjects.split(",")]
    return [
        name
        for name in workload.subjects
        if any(name.startswith(part) for part in wanted)
        and (options.heavy or name not in CONTENDERS or not CONTENDERS[name].is_heavy)
    ]


def _write(results: list[CaseResult], facts: dict[str, Any], folder: Path) -> None:
    (folder / STORED).write_text(tables.as_json(results, facts), encoding="utf-8")
    text = tables.as_markdown(results, facts, targets_table(results))
    (folder / "results.md").write_text(text, encoding="utf-8")


def _draw(results: list[CaseResult], folder: Path, console: Console) -> None:
    try:
        drawn = plots.draw(results, folder)
    except ImportError as error:
        console.print(f"no plots: {error}")
        drawn = []
    console.print(f"written: {folder}/results.md, {STORED} and {len(drawn)} plots")


def write_readme(results: list[CaseResult], facts: dict[str, Any]) -> None:
    """Put the targets, and our path layer by layer, into the README, between its marks."""
    told_of = ", ".join(f"{name} {value}" for name, value in facts.items())
    shown = [each for each in results if (each.letter, each.case) in SHOWN]
    parts = [f"Measured with: {told_of}.\n", targets_table(results), f"{tables.LEGEND}\n"]
    parts += [f"**{each.title}, {each.case}**\n\n{tables.markdown_table(each)}" for each in shown]
    block = "\n".join(parts)
    text = _BLOCK.sub(lambda found: f"{found[1]}{block}{found[2]}", README.read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")


def _report_failures(results: list[CaseResult], console: Console) -> bool:
    """Tell which subjects have no figures; a missing one is no failure."""
    is_bad = False
    for result in results:
        for subject, reason in result.failures.items():
            is_missing = reason.startswith("missing: ")
            is_bad = is_bad or not is_missing
            console.print(f"{result.letter} {result.case}: {subject}: {reason}", markup=False)
    return is_bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
