"""Plays every bug against the finders, and writes the table of what found it: ``python -m tests.bugbench``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bugbench.catalogue import BUGS, planted
from tests.bugbench.finders import look_for
from tests.bugbench.simulated import play as play_seed
from tests.bugbench.verdict import QUICK_SECONDS, complaints, is_quick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.bugbench.finders import Finding
    from tests.bugbench.planting import Bug

__all__ = ["PAGE", "main", "rows_of"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "testkit" / "bugbench.md"
#: How much more time a bug gets that was not found in time.
SECOND_CHANCE: Final = 3.0
_TABLE: Final = re.compile(r"(<!-- bugbench -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD: Final = (
    "| Bug | What the pool does | Seen | Found by | Tries | CPU s |\n| --- | --- | --- | --- | --- | --- |\n"
)


def main(arguments: list[str]) -> int:
    """Run the bench; return the exit status: 1 if a bug is not found, or a correct pool is accused."""
    options = _parse(arguments)
    try:
        with _silence():
            if options.false_alarms:
                return _look_for_false_alarms(options.first, options.false_alarms)
            return _play([BUGS[name] for name in options.only or BUGS], writes=not options.only)
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hear nothing of what broken pools log and leave behind."""
    disabled, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        logging.disable(disabled)
        sys.unraisablehook = hook


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bugbench", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=BUGS, help="play this bug; may be repeated"
    )
    parser.add_argument("--false-alarms", type=int, metavar="N", help="play N seeds of the pool as it is")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="with --false-alarms: the first seed"
    )
    return parser.parse_args(arguments)


def _play(bugs: list[Bug], *, writes: bool) -> int:
    found: dict[str, Finding] = {}
    for number, which in enumerate(bugs, 1):
        finding = found[which.name] = _search_for(which)
        by = f"{finding.finder or 'nothing'}, {finding.tries} tries, {finding.cpu:.2f} CPU s"
        print(f"{number}/{len(bugs)} {which.name}: {by}  {finding.what[:90]}", file=sys.stderr, flush=True)
    lost = sum(not finding.finder for finding in found.values())
    quick = sum(map(is_quick, found.values()))
    print(
        f"{len(found) - lost} of {len(found)} bugs found, {quick} within {QUICK_SECONDS:g} CPU s without a process"
    )
    known = {row[0] for row in rows_of(PAGE.read_text(encoding="utf-8")) if row[3] != "nothing"}
    worse = complaints(found, known) if writes else _lost(found)
    if writes and not worse:
        _write(bugs, found)
    for complaint in worse:
        print(f"error: {complaint}", file=sys.stderr, flush=True)
    return int(bool(worse))


def _lost(found: Mapping[str, Finding]) -> list[str]:
    return [f"{name} is found by nothing" for name, finding in found.items() if not finding.finder]


def _search_for(which: Bug) -> Finding:
    """Look for a bug; for one that is late or not found once more, with more time: other load slows what we do."""
    with planted(which):
        finding = look_for()
        if not is_quick(finding) and finding.finder != "processes":
            again = look_for(scale=SECOND_CHANCE)
            finding = min(finding, again, key=lambda one: (not one.finder, one.cpu))
    return finding


def _write(bugs: Iterable[Bug], found: dict[str, Finding]) -> None:
    rows = "".join(
        f"| `{each.name}` | {each.sentence} | {each.seen} | {found[each.name].finder or 'nothing'} "
        f"| {found[each.name].tries} | {found[each.name].cpu:.1f} |\n"
        for each in bugs
    )
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda match: match[1] + _HEAD + rows + match[2], text), encoding="utf-8")


def rows_of(text: str) -> list[list[str]]:
    """Return the rows of the table in a page: name, sentence, where seen, finder, tries, CPU seconds."""
    match = _TABLE.search(text)
    lines = match[0].splitlines() if match is not None else []
    return [
        [cell.strip(" `") for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith("| `")
    ]


def _look_for_false_alarms(first: int, count: int) -> int:
    began, alarms = time.process_time(), 0
    for seed in range(first, first + count):
        try:
            play_seed(seed)
        except Exception as error:
            alarms += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
        if (seed - first + 1) % 500 == 0:
            spent = time.process_time() - began
            print(
                f"{seed - first + 1} seeds, {alarms} alarms, {spent:.0f} CPU s", file=sys.stderr, flush=True
            )
    print(
        f"{count} seeds from {first} of the pool as it is: {alarms} alarms, {time.process_time() - began:.0f} CPU s"
    )
    return int(bool(alarms))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
