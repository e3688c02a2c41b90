"""The shell command ``dspex-testkit``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command that the shell asked for and exit with its code."""
    # Imported here so that importing the package costs nothing.
    from dspex_pool.cli import fill_standard_descriptors
    from dspex_pool.cli.signals import stoppable

    fill_standard_descriptors()
    with stoppable():
        from dspex_testkit.cli.app import app

        app()
