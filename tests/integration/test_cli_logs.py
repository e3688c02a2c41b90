"""The pool's log is shown where it helps, and what workers print only when asked for."""

from __future__ import annotations

import logging

import pytest

from dspex_pool.cli.logs import logs_on_screen

pytestmark = pytest.mark.integration


def write_all() -> None:
    """Write what a run may write."""
    for name in ("dspex_pool", "dspex_pool.worker.stderr"):
        for level in (logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "%s\nat %s", name, logging.getLevelName(level))


@pytest.mark.parametrize(
    ("is_verbose", "lines"),
    [
        (False, ["dspex_pool at WARNING"]),
        (
            True,
            [
                "dspex_pool at INFO",
                "dspex_pool at WARNING",
                "dspex_pool.worker.stderr at INFO",
                "dspex_pool.worker.stderr at WARNING",
            ],
        ),
    ],
)
def test_log_is_said_in_lines(is_verbose: bool, lines: list[str]) -> None:
    """Warnings of the pool always; information and the workers' own words with --verbose."""
    said: list[str] = []
    with logs_on_screen(said.append, is_verbose=is_verbose):
        write_all()
    assert said == lines


def test_log_is_as_before_afterwards() -> None:
    """A host program's own logging is not changed for good."""
    log = logging.getLogger("dspex_pool")
    before = log.level, log.propagate, list(log.handlers)
    with logs_on_screen(print, is_verbose=True):
        assert not log.propagate
    assert (log.level, log.propagate, list(log.handlers)) == before
