"""The pool's log: nobody's handler or filter of logging hurts the pool."""

from __future__ import annotations

import logging

import pytest

from dspex_pool.logs import PoolLog
from tests.broken_logging import broken_logging

__all__ = ["broken_logging"]

pytestmark = pytest.mark.fast


@pytest.mark.usefixtures("broken_logging")
def test_broken_filter_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """What it raises is on stderr with its traceback, the first time, and reaches nobody."""
    log = PoolLog("dspex_pool")
    for _ in range(2):
        log.warning("a worker died")
    told = capsys.readouterr().err
    assert told.count("LookupError: no request here") == 1
    assert "'dspex_pool' raised" in told
    assert "in filter" in told


def test_record_is_that_of_a_plain_logger(caplog: pytest.LogCaptureFixture) -> None:
    """It names the function that logged, and has what was given along, and the traceback where one is asked for."""
    log = PoolLog("dspex_pool.test")
    with caplog.at_level(logging.INFO, logger="dspex_pool.test"):
        log.info("%s is up", "w-1", extra={"worker_id": "w-1"})
        try:
            raise KeyError("lost")
        except KeyError:
            log.exception("it failed")
        log.debug("not heard")
    up, failed = caplog.records
    assert (up.getMessage(), up.module, up.funcName) == ("w-1 is up", "test_logs", failed.funcName)
    assert failed.funcName == "test_record_is_that_of_a_plain_logger"
    assert vars(up)["worker_id"] == "w-1"
    assert failed.exc_info is not None
    assert failed.exc_info[0] is KeyError
