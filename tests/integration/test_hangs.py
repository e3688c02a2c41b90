"""Planted hangs: each fails with a picture that names what is waited for, and the run goes on."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.integration

PLANTED = """
import os, signal, threading, time
import pytest, trio, trio.testing
from dspex_testkit.mock_port import MockPortFactory

fast, integration = pytest.mark.fast, pytest.mark.integration
LONG = 1e9
WORD = "".join(["ses", "ame"])


@fast
async def test_lease_is_not_returned(make_pool):
    pool = await make_pool(pool_size=1, checkout_timeout=LONG)
    async with pool.workers.checkout():
        await pool.call("echo")


@fast
async def test_worker_is_silent(pool):
    await pool.call("hang_in_c", {"about": "nothing"})


@fast
@pytest.mark.trio
async def test_nobody_sets_the_event(autojump_clock):
    never = trio.Event()
    await never.wait()


@fast
async def test_pool_is_suspended(pool):
    pool.workers.suspend()
    async with pool.workers.checkout(timeout=LONG):
        pass


@fast
async def test_two_callers_want_two_workers_each(make_pool):
    pool = await make_pool(pool_size=2, checkout_timeout=LONG)

    async def greedy():
        async with pool.workers.checkout():
            await trio.testing.wait_all_tasks_blocked()
            async with pool.workers.checkout():
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greedy, name="left")
        nursery.start_soon(greedy, name="right")


@fast
async def test_start_never_ends(make_pool):
    pool = await make_pool(ports=MockPortFactory(hang_starts=9), spawn_timeout=LONG, is_ready=False)
    await pool.workers.wait_ready()


@pytest.fixture
def began():
    return time.monotonic()


@integration
@pytest.mark.pool_settings(terminate_grace=0.1, cancel_grace=0.1)
@pytest.mark.hangs_after(50)
async def test_process_is_stopped(began, pool):
    # Its processes start when the machine lets them: the limit counts from here.
    signal.setitimer(signal.ITIMER_REAL, 0.6, 0.1)
    print(f"pool was up after {time.monotonic() - began:.2f} s")
    for worker in pool.workers.workers():
        os.kill(worker.port.pid, signal.SIGSTOP)
    await pool.call("echo", {"api_key": WORD})


@integration
@pytest.mark.hangs_after(0.3)
def test_sleeps():
    time.sleep(60)


@fast
@pytest.mark.hangs_after(0.3)
def test_lock_is_never_released():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@fast
@pytest.mark.hangs_after(0.3)
async def test_loop_never_ends(pool):
    while True:
        pass


@fast
def test_the_run_goes_on():
    pass
"""

#: What the picture of each hang says, as patterns.
SAYS = {
    "lease_is_not_returned": (r"w-1 .* is leased for 4\d\d s, lent to task", r"waits in line for 4\d\d s"),
    "worker_is_silent": (r"is leased for", r'to the worker: .*"hang_in_c".*nothing'),
    "nobody_sets_the_event": (
        r"deadlock in virtual time",
        r"in test_nobody_sets_the_event: await never\.wait\(\)",
    ),
    "pool_is_suspended": (r"pool of 2, suspended: 2 idle, 1 waiting",),
    "two_callers_want_two_workers_each": (
        r"lent to task 'left'",
        r"lent to task 'right'",
        r"task 'left' waits in line",
        r"task 'right' waits in line",
    ),
    "start_never_ends": (
        r"is starting for 4\d\d s",
        r"in test_start_never_ends: await pool\.workers\.wait_ready",
    ),
    "process_is_stopped": (r"process \d+: stopped", r'to the worker: .*"echo"', r'"api_key":"\*\*\*"'),
    "sleeps": (r"in test_sleeps: time\.sleep\(60\)",),
    "lock_is_never_released": (r"in test_lock_is_never_released: lock\.acquire\(\)", "lock=<locked"),
    "loop_never_ends": (r"running:", r"in test_loop_never_ends: (while True:|pass)"),
}


@pytest.mark.with_trio
def test_each_planted_hang_is_named_and_the_run_goes_on(pytester: pytest.Pytester) -> None:
    """Ten hangs fail with who holds what and which line waits; keys are not shown; the next test runs."""
    pytester.makepyfile(PLANTED)
    result = pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:cacheprovider", "--durations=0", "-vv")
    result.assert_outcomes(failed=len(SAYS), passed=1)
    output = result.stdout.str()
    pictures = dict(re.findall(r"^_+ test_(\w+?)(?:\[\w+\])? _+\n(.*?)(?=^_+ test_|^=)", output, re.M | re.S))
    missing = [
        (name, pattern)
        for name, patterns in SAYS.items()
        for pattern in ("^hang: ", *patterns)
        if not re.search(pattern, pictures.get(name, ""))
    ]
    assert not missing, f"{missing}\n{output}"
    assert "sesame" not in output
    took = {name: float(s) for s, name in re.findall(r"([\d.]+)s call +\S+::test_(\w+)", output)}
    assert took.keys() >= SAYS.keys()
    started = re.search(r"^pool was up after ([\d.]+) s$", pictures["process_is_stopped"], re.M)
    assert started, output
    took["process_is_stopped"] -= float(started[1])
    # In virtual time nobody waits; in real time for the limit, and for the processes to end.
    assert not [name for name, seconds in took.items() if seconds > 5.0]


def test_limits_come_from_layers_and_markers(pytester: pytest.Pytester) -> None:
    """A layer's setting holds for its tests, zero means never, and a test without a layer is left alone."""
    pytester.makeini("[pytest]\ndspex_timeout_fast = 0.2\ndspex_timeout_integration = 0\n")
    pytester.makepyfile("""
        import threading, pytest
        def wait(): threading.Event().wait(0.6)
        @pytest.mark.fast
        def test_fast(): wait()
        @pytest.mark.integration
        def test_integration(): wait()
        def test_of_no_layer(): wait()
    """)
    result = pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["hang: not done after 0.2 s"])


@pytest.fixture
def beside_timeout(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project beside pytest-timeout, where that is installed: our own runs leave it out."""
    pytest.importorskip("pytest_timeout")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def test_limits_of_pytest_timeout_outlive_no_test(beside_timeout: pytest.Pytester) -> None:
    """Its limit draws our picture; a marker of ours goes before it, and no timer of its own is left behind."""
    beside_timeout.makepyfile("""
        import threading, pytest
        def wait(): threading.Event().wait(0.5)
        @pytest.mark.fast
        @pytest.mark.hangs_after(0)
        def test_never_hung(): pass
        @pytest.mark.fast
        def test_fast(): wait()
        @pytest.mark.timeout(0)
        def test_goes_on(): wait()
    """)
    options = ("--timeout=0.3", "--timeout-method=thread", "-p", "no:randomly")
    result = beside_timeout.runpytest_subprocess(*options)
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["hang: not done after 0.3 s"])


AROUND = """
    import threading, pytest
    pytestmark = pytest.mark.fast
    def wait(): threading.Event().wait(60)

    @pytest.fixture(scope="session")
    def hung(): wait()
    def test_before(hung): pass
    def test_before_again(hung): pass

    @pytest.fixture
    def leaving(tmp_path):
        yield
        (tmp_path / "left").touch()
    @pytest.fixture
    def hung_after(leaving):
        yield
        wait()
    def test_after(hung_after, tmp_path_factory): pass

    @pytest.fixture
    def slow(): threading.Event().wait(0.4)
    @pytest.mark.hangs_after(0.1)
    def test_short_beside_a_slow_fixture(slow): pass
    @pytest.mark.hangs_after(0)
    def test_of_endless_patience(slow): pass

    def test_goes_on(tmp_path_factory):
        assert list(tmp_path_factory.getbasetemp().glob("test_after*/left"))
"""


def test_fixtures_that_hang_are_named_and_the_run_goes_on(pytester: pytest.Pytester) -> None:
    """Nobody watched what comes before a test and after it: the run never ended.

    A fixture that hung is not tried again, others are torn down, and a test's own short limit is not theirs.
    """
    pytester.makeini("[pytest]\ndspex_timeout_fast = 0.8\n")
    pytester.makepyfile(AROUND)
    result = pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(passed=4, errors=3)
    output = result.stdout.str()
    for told in ("at setup of test_before", "at setup of test_before_again", "at teardown of test_after"):
        picture = output.partition(f"ERROR {told} _")[2]
        assert "hang: not done after 0.8 s" in picture[:300], output
    assert re.search(r"in hung: (def hung\(\): )?wait\(\)", output)
    assert re.search(r"in hung_after: wait\(\)", output)


def test_limits_of_pytest_timeout_hold_for_fixtures(beside_timeout: pytest.Pytester) -> None:
    """They were taken over and kept for the test alone, so that a fixture which hung was watched by nobody."""
    beside_timeout.makepyfile("""
        import threading, pytest
        @pytest.fixture
        def hung(): threading.Event().wait(60)
        @pytest.mark.fast
        def test_fast(hung): pass
    """)
    result = beside_timeout.runpytest_subprocess("--timeout=0.3", "-p", "no:randomly", timeout=60)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["hang: not done after 0.3 s"])


HANDLERS = """
import signal

import pytest

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job that a script starts in the background


@pytest.fixture
def heard():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("SIGINT"))
    yield heard
    signal.signal(signal.SIGINT, before)


@pytest.mark.fast
def test_handler_of_a_fixture_is_there(heard):
    signal.raise_signal(signal.SIGINT)
    assert heard == ["SIGINT"]


def test_others_are_let_alone():
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""


def test_handler_of_a_fixture_stays_where_interrupts_are_ignored(pytester: pytest.Pytester) -> None:
    """The alarm around a fixture took back what the fixture had set: in a background job its test was interrupted."""
    pytester.makepyfile(HANDLERS)
    pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:cacheprovider").assert_outcomes(passed=2)
