"""How a wrong command line is told: in one line, like all other errors."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperGroup

from dspex_pool.cli.problems import ExitCode, one_line, printing, reporting, say_error

__all__ = ["CommandGroup"]


class CommandGroup(TyperGroup):
    """Says what is wrong with a command line in one line, as all other errors are said."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        # What is printed before a command begins: help, and the version.
        with reporting(verbose=False), printing():
            try:
                code = super().main(*args, **kwargs)
            # Which package the exceptions of a wrong command line come from depends on typer's version.
            except Exception as error:
                text = getattr(error, "format_message", None)
                if text is None:
                    raise
                say_error(f"{one_line(text())} (see --help)")
                code = ExitCode.USAGE
        sys.exit(code or 0)
