"""The options of the commands: types, names and help texts."""

# The annotations are read at run time by typer: they must not become strings.

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "Command",
    "ExpectedFailures",
    "Html",
    "Junit",
    "Known",
    "List",
    "MaxFrameBytes",
    "Only",
    "ProfileFile",
    "Timeout",
    "Verbose",
    "Version",
]

Command: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND...", help="What starts the worker, after two dashes."),
]
ProfileFile: TypeAlias = Annotated[
    Path | None, typer.Option("--profile", metavar="FILE", help="What is known of the worker, as TOML.")
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
    float | None, typer.Option(min=0.1, help="Seconds for what should happen at once [default: 5].")
]
Version: TypeAlias = Annotated[
    int | None, typer.Option(min=1, max=2, help="Version to be spoken [default: what the worker speaks].")
]
Only: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="CLAUSE", help="Hold it to this clause only, such as F03 or G*.")
]
ExpectedFailures: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Clauses that are known to be broken, one id a line.")
]
Junit: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the verdicts as JUnit XML.")
]
Html: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write what is printed as a page, too.")
]
List: TypeAlias = Annotated[bool, typer.Option("--list", help="Print the clauses and end.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Show also what was kept.")]
