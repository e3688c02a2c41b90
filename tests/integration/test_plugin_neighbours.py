"""The plugin beside other plugins, in a project that uses it and in one that does not know of it."""

from __future__ import annotations

import importlib.metadata
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration

#: A project of somebody else: coroutine functions and async fixtures of two plugins, and names that are ours too.
FOREIGN = """
    import asyncio, os, random, subprocess, sys, threading, time, pytest, pytest_asyncio

    @pytest_asyncio.fixture
    async def loop_fixture():
        await asyncio.sleep(0)
        yield asyncio.get_running_loop()

    @pytest.mark.asyncio
    async def test_asyncio(loop_fixture):
        assert loop_fixture is asyncio.get_running_loop()

    @pytest.fixture
    def anyio_backend(): return "trio"

    @pytest.fixture
    async def trio_fixture():
        import trio
        await trio.sleep(0)
        yield trio.lowlevel.current_root_task()

    @pytest.mark.anyio
    async def test_anyio(trio_fixture):
        import trio
        assert trio_fixture is trio.lowlevel.current_root_task()

    @pytest.fixture
    async def pool():
        yield "a pool of somebody else"

    @pytest.mark.anyio
    async def test_fixture_of_our_name(pool):
        assert pool == "a pool of somebody else"

    @pytest.mark.timeout(30)
    def test_without_a_layer():
        time.sleep(0.06)
        os.open("/dev/null", os.O_RDONLY)
        subprocess.run([sys.executable, "-c", ""], check=True)

    def test_nothing_was_replaced():
        assert "DSPEX_TEST_RUN" not in os.environ
        functions = (os.pipe, threading.Thread.start, subprocess.Popen.__init__)
        assert not [function for function in functions if hasattr(function, "__wrapped__")]
"""

#: A project of ours beside the same neighbours.
OURS = """
    import asyncio, os, pytest, trio
    @pytest.mark.fast
    async def test_pool(pool):
        assert (await pool.call("echo", {"x": 1})).result == {"x": 1}
    @pytest.mark.fast
    @pytest.mark.asyncio
    async def test_asyncio(): await asyncio.sleep(0)
    @pytest.mark.fast
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["trio"])
    async def test_anyio(anyio_backend): await trio.lowlevel.checkpoint()
    @pytest.mark.fast
    def test_process(): os.system("true")
    @pytest.mark.protocol
    def test_leak(): KEPT.append(open("/dev/null"))
    KEPT = []
"""

#: What the last test of ours leaves, and what the others may not do.
OUTCOMES = {"passed": 4, "failed": 1, "errors": 1}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Return a function that runs code with all plugins that are installed."""
    # In our own runs the neighbours are left out.
    for name in ("PYTEST_ADDOPTS", "DSPEX_TEST_RUN"):
        monkeypatch.delenv(name, raising=False)

    def run_code(code: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=dedent(code))
        return pytester.runpytest_subprocess("-p", "no:faker", "--cov=test_it", *arguments, timeout=60)

    return run_code


def test_neighbours_are_there() -> None:
    """Otherwise the other tests would show nothing."""
    names = {entry.name for entry in importlib.metadata.entry_points(group="pytest11")}
    assert names >= {"dspex", "anyio", "asyncio", "randomly", "timeout", "pytest_cov", "xdist"}


@pytest.mark.parametrize(
    "arguments", [("-p", "no:dspex"), (), ("-n2",)], ids=["without_us", "with_us", "xdist"]
)
def test_foreign_project_is_left_alone(
    run: Callable[..., pytest.RunResult], arguments: tuple[str, ...]
) -> None:
    """Coroutines and async fixtures of two plugins, also of our names, end as without us; nothing is replaced."""
    result = run(FOREIGN, *arguments)
    result.assert_outcomes(passed=5)
    assert "= layers =" not in result.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "fast"),
    # anyio's own tests do not go with the automatic mode of pytest-asyncio, without us too.
    [(("-p", "no:cacheprovider"), 4), (("-n2", "-o", "asyncio_mode=auto", "-k", "not anyio"), 3)],
    ids=["alone", "xdist"],
)
def test_layers_hold_beside_other_plugins(
    run: Callable[..., pytest.RunResult], arguments: tuple[str, ...], fast: int
) -> None:
    """Each coroutine goes to whom its marks name, ours to us; promises, leaks and the summary are as ever."""
    result = run(OURS, *arguments, "--timeout=30")
    result.assert_outcomes(passed=fast, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*a fast test started a process*"])
    result.stdout.fnmatch_lines(["*opened at test_it.py:* in test_leak: def test_leak(): KEPT.append*"])
    result.stdout.fnmatch_lines([f"fast * {fast} tests *", "protocol * 1 tests *"])


@pytest.mark.parametrize("name", ["debugging", "logging", "capture", "tmpdir", "terminal"])
def test_tests_run_without_a_part_of_pytest(run: Callable[..., pytest.RunResult], name: str) -> None:
    """Bug: without pytest's debugging every test of a layer failed on an option that was not there."""
    result = run(
        "import pytest\npytestmark = pytest.mark.fast\nasync def test_it(pool): pass", "-p", f"no:{name}"
    )
    assert result.ret == 0, result.stdout.str()


@pytest.mark.with_trio
@pytest.mark.parametrize(
    ("code", "is_wanted"),
    [("", False), ("from hypothesis import given, strategies as st\n", True)],
    ids=["nobody asks", "a module asks"],
)
def test_hypothesis_is_imported_only_for_those_who_ask(
    pytester: pytest.Pytester, code: str, is_wanted: bool
) -> None:
    """With ``dspex_testkit.late_hypothesis`` pytest-trio does without; who asks for it gets all of it."""
    used = "given(st.integers())(lambda number: None)()" if is_wanted else "pass"
    body = f"""
        import sys
        import pytest

        @pytest.mark.trio
        async def test_it():
            {used}
            assert ("hypothesis" in sys.modules) is {is_wanted}
    """
    pytester.makepyfile(code + dedent(body))
    late = ("-p", "no:hypothesispytest", "-p", "dspex_testkit.late_hypothesis")
    pytester.runpytest_subprocess(*late).assert_outcomes(passed=1)
