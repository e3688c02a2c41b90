"""The shell commands: ``dspex-pool run``, ``doctor`` and ``config``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command that the shell asked for and exit with its code."""
    # Imported here so that importing the package, as the floors test does, costs nothing.
    from dspex_pool.cli.app import app

    app()
