"""The shell commands: ``dspex-pool run``, ``doctor`` and ``config``."""

from __future__ import annotations

import os
import sys

from dspex_pool.bridge.importing import importing

__all__ = ["fill_standard_descriptors", "main"]


def main() -> None:
    """Run the command that the shell asked for and exit with its code."""
    # Imported here so that importing the package, as the floors test does, costs nothing.
    from dspex_pool.cli.signals import stoppable

    fill_standard_descriptors()
    with stoppable():
        # The collector would take a tenth of the time of --help.
        with importing():
            from dspex_pool.cli.app import app
        app()


def fill_standard_descriptors() -> None:
    """Open the null device where a standard stream is closed.

    Otherwise the next file opened, a journal say, would get its number, and whatever is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open until the end
