"""The options of the commands: types, names and help texts."""

# The annotations are read at run time by typer: they must not become strings.

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dspex_testkit.settings import MOST_SECONDS

__all__ = [
    "JOURNAL",
    "Args",
    "Budget",
    "CalledCommand",
    "Callers",
    "Canary",
    "Command",
    "ExpectedFailures",
    "FuzzSeed",
    "FuzzedTests",
    "Github",
    "HandlerClass",
    "Html",
    "Install",
    "JournalFolder",
    "Json",
    "Junit",
    "Known",
    "Layers",
    "List",
    "ListProfiles",
    "LoadProfile",
    "MaxFrameBytes",
    "Merge",
    "NoCanary",
    "Only",
    "Players",
    "ProfileFile",
    "PythonVersion",
    "Rate",
    "Report",
    "Seconds",
    "Seed",
    "Tests",
    "Timeout",
    "Verbose",
    "Version",
    "Workers",
]


def _named(text: str) -> Path:
    """Read a path. An empty text, as of a variable that is not set, would be the working directory."""
    if not text:
        raise typer.BadParameter("it is an empty text: name a file or folder, or leave the option out")
    return Path(text)


def _said(text: str) -> str:
    """Read a name. An empty text, as of a variable that is not set, would be as if nothing was said."""
    if not text:
        raise typer.BadParameter("it is an empty text: say which, or leave it out")
    return text


# Far more than a pool answers, and few enough to be drawn.
_MOST_CALLS = 1e5

Command: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND...", help="What starts the worker, after two dashes."),
]
ProfileFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--profile", parser=_named, metavar="FILE", help="What is known of the worker, as TOML."),
]
Known: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--command",
        metavar="ROLE=NAME [JSON]",
        help="A command of the worker for the role echo, slow, failing, printing, big, nan or progress.",
    ),
]
MaxFrameBytes: TypeAlias = Annotated[
    int | None, typer.Option(min=1024, help="Largest payload that the worker was started for.")
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0.1, max=MOST_SECONDS, help="Seconds for what should happen at once [default: 5]."),
]
Version: TypeAlias = Annotated[
    int | None, typer.Option(min=1, max=2, help="Version to be spoken [default: what the worker speaks].")
]
Only: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="CLAUSE", help="Hold it to this clause only, such as F03 or G*.")
]
ExpectedFailures: TypeAlias = Annotated[
    Path | None,
    typer.Option(parser=_named, metavar="FILE", help="Clauses that are known to be broken, one id a line."),
]
Junit: TypeAlias = Annotated[
    Path | None, typer.Option(parser=_named, metavar="FILE", help="Write the verdicts as JUnit XML.")
]
Html: TypeAlias = Annotated[
    Path | None, typer.Option(parser=_named, metavar="FILE", help="Write what is printed as a page, too.")
]
List: TypeAlias = Annotated[bool, typer.Option("--list", help="Print the clauses and end.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Show also what was kept.")]

LoadProfile: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="[PROFILE]", help="Name of the profile; --list shows them.")
]
Seconds: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0.1, max=MOST_SECONDS, help="Seconds of load, however many calls that are."),
]
HandlerClass: TypeAlias = Annotated[
    str | None,
    typer.Option("--handler", metavar="MODULE:CLASS", help="What serves in the workers [default: an echo]."),
]
CalledCommand: TypeAlias = Annotated[
    str | None, typer.Option("--command", metavar="NAME", help="Command that is called.")
]
Args: TypeAlias = Annotated[str | None, typer.Option(metavar="JSON", help="Its arguments, a JSON object.")]
Workers: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Workers of the pool.")]
Callers: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Closed load: callers, each of whom waits for its answer.")
]
Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0.1, max=_MOST_CALLS, help="Open load: calls a second, whatever becomes of them."),
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Arrivals are drawn from it.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Report: TypeAlias = Annotated[
    Path | None,
    typer.Option(parser=_named, metavar="FOLDER", help="Write a page with latency and memory over time."),
]
ListProfiles: TypeAlias = Annotated[bool, typer.Option("--list", help="Print the profiles and end.")]
Tests: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        parser=_said, metavar="[TESTS]...", help="Explored tests as for pytest; with --merge, folders."
    ),
]
Budget: TypeAlias = Annotated[str, typer.Option(metavar="TIME", help="How long to explore: 30s, 10m, 2h.")]
JournalFolder: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--journal", parser=_named, metavar="DIR", help="Where what is found is kept, and was kept before."
    ),
]
FuzzSeed: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", help="What all cases are drawn from [default: DSPEX_SEED, else drawn]."),
]
Players: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes that play at a time [default: one for each CPU]."),
]
Canary: TypeAlias = Annotated[
    str | None,
    typer.Option(
        parser=_said, metavar="MODULE:FUNCTION", help="A function that plants the bug that must be found."
    ),
]
NoCanary: TypeAlias = Annotated[bool, typer.Option("--no-canary", help="Plant no bug that must be found.")]
Merge: TypeAlias = Annotated[
    bool,
    typer.Option("--merge", help="Explore nothing: merge the journals in the named folders into --journal."),
]
#: The journal, if no other is named.
JOURNAL = Path("dspex-fuzz")
Github: TypeAlias = Annotated[bool, typer.Option("--github", help="For GitHub Actions.")]
Layers: TypeAlias = Annotated[
    list[str] | None, typer.Option("--layer", help="A layer of which there are tests [default: all].")
]
Install: TypeAlias = Annotated[str, typer.Option(metavar="WHAT", help="What pip installs.")]
PythonVersion: TypeAlias = Annotated[
    str, typer.Option("--python", metavar="VERSION", help="Version of Python.")
]
FuzzedTests: TypeAlias = Annotated[
    str,
    typer.Option("--fuzz", metavar="TESTS", help="Explored tests that are fuzzed at night, for --budget."),
]
