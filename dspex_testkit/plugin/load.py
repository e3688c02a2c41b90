"""The fixture ``load``, and a page of each load that a test has put on a pool, whether the test passes or fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.plugin.report import report_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from dspex_testkit.load.profile import Profile
    from dspex_testkit.load.result import LoadResult
    from dspex_testkit.load.run import HasSessions

__all__: list[str] = []

#: Of a test: what its loads came to.
RESULTS = pytest.StashKey["list[LoadResult]"]()


@pytest.fixture
def load(
    request: pytest.FixtureRequest, dspex_seed: int
) -> Callable[[HasSessions, Profile], Awaitable[LoadResult]]:
    """``await load(pool, profile)``: run_load from the seed of this run, with a page where --dspex-report says."""
    from dspex_testkit.load.run import run_load

    results = request.node.stash.setdefault(RESULTS, [])

    async def run(pool: HasSessions, profile: Profile) -> LoadResult:
        result = await run_load(pool, profile, seed=dspex_seed)
        results.append(result)
        return result

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write a page of each load when the body is over."""
    report = yield
    results, folder = item.stash.get(RESULTS, []), report_folder(item.config)
    if call.when == "call" and results and folder is not None:
        from dspex_testkit.load.page import write_load_page

        error = call.excinfo.value if call.excinfo is not None and report.failed else None
        told = vars(report).setdefault("dspex_report", [])
        for result in results:
            try:
                told.append(str(write_load_page(result, folder, test=item.nodeid, error=error)))
            except OSError as failure:  # a page must not cost the test that it is of, nor those after it
                told.append(f"cannot write {failure.filename}: {failure.strerror}")
    return report
