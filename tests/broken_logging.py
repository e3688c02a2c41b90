"""A program whose logging is broken: a filter of its own raises at whatever the pool logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["broken_logging"]

LOGGERS = ("dspex_pool", "dspex_pool.worker")


class NeedsARequest(logging.Filter):
    """Looks for what only records of a web server's requests have."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise LookupError("no request here")


@pytest.fixture
def broken_logging() -> Iterator[None]:
    """Have the filter raise at all that the pool and its workers log."""
    loggers, broken = [logging.getLogger(name) for name in LOGGERS], NeedsARequest()
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addFilter(broken)
        logger.setLevel(logging.DEBUG)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeFilter(broken)
        logger.setLevel(level)
