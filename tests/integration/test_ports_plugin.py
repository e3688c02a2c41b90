"""The fixtures of the ports in somebody's project: with and without pytest-trio, beside fixtures of others."""

from __future__ import annotations

import inspect

import pytest

from dspex_pool.config import PoolConfig
from dspex_pool.config.settings import settings_of
from dspex_testkit.ports.handle import open_handle
from dspex_testkit.ports.names import FURTHER_SETTINGS
from dspex_testkit.ports.run import OF_KIND

pytestmark = pytest.mark.integration

BODIES = """
import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

@pytest.mark.ports("all")
async def test_on_all(pool):
    assert (await pool.call("echo", {"n": 1})).result == {"n": 1}
    await trio.sleep(0.01)

@pytest.mark.ports("sim", "server")
async def test_on_two(make_pool):
    pool = await make_pool(pool_size=1)
    assert pool.size == 1

@pytest.mark.fast
async def test_of_its_layer(pool):
    assert pool.port == "sim"

@pytest.mark.protocol
async def test_of_its_layer_too(pool):
    assert pool.port == "server"

async def test_adapter(adapter):
    assert (await adapter.ping())["status"] == "ok"

class TestInClass:
    async def test_method(self, pool):
        assert self.__class__.__name__ == "TestInClass"
        assert pool.size == 2

@pytest.mark.parametrize("n", [1, 2])
async def test_parametrized(pool, n, tmp_path):
    assert tmp_path.exists()
    assert (await pool.call("echo", {"n": n})).result == {"n": n}

seen = []

# The first example pays for what is loaded late, which on a busy machine looks like slow data.
@settings(max_examples=5, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 9))
async def test_given(pool, n):
    assert pool.statistics().counters.granted == 0, "each example has a pool of its own"
    await pool.call("echo", {"n": n})
    assert trio.current_time() < 1
    seen.append(n)

def test_examples_ran():
    assert len(seen) > 1
"""

FOREIGN = """
import pytest

@pytest.fixture
def pool():
    return "mine"

def test_own_fixture_of_that_name(pool):
    assert pool == "mine"
"""

TRIO = """
import pytest

@pytest.fixture
async def of_trio():
    import trio
    await trio.sleep(0)
    yield "theirs"

async def test_of_pytest_trio(of_trio, autojump_clock):
    import trio
    await trio.sleep(3600)
    assert of_trio == "theirs"

async def test_ours_beside_it(pool):
    assert (await pool.call("echo")).result == {}
"""

WRONG = """
import pytest

async def test_with_another_clock(pool, autojump_clock):
    pass

def test_that_is_no_coroutine(pool):
    pass

async def test_that_fails(pool):
    assert (await pool.call("echo")).result == 7
"""


@pytest.mark.with_trio
@pytest.mark.parametrize("words", [(), ("-p", "no:trio")], ids=["with", "without"])
def test_bodies_run_with_and_without_pytest_trio(pytester: pytest.Pytester, words: tuple[str, ...]) -> None:
    """Each body runs once for each kind of port that it is for, in classes, with parameters, under Hypothesis."""
    pytester.makepyfile(test_bodies=BODIES, test_foreign=FOREIGN)
    result = pytester.runpytest_subprocess("-v", *words, "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=3 + 2 + 1 + 1 + 1 + 1 + 2 + 1 + 1 + 1)
    result.stdout.fnmatch_lines(["*test_on_all[[]sim] PASSED*", "*test_on_all[[]process] PASSED*"])


def test_option_chooses_among_the_kinds_that_a_body_is_for(pytester: pytest.Pytester) -> None:
    """``--dspex-port`` cuts markers down and replaces the layer's kind; what is left without a kind is skipped."""
    pytester.makepyfile(test_bodies=BODIES)
    result = pytester.runpytest_subprocess(
        "-q", "--collect-only", "--dspex-port=server", "-p", "no:cacheprovider"
    )
    result.stdout.fnmatch_lines(
        ["*test_on_all[[]server]", "*test_on_two[[]server]", "*test_method[[]server]"]
    )
    result.stdout.no_fnmatch_line("*[[]sim]*")
    result.stdout.no_fnmatch_line("*[[]process]*")


def test_body_that_is_not_for_the_chosen_kind_is_skipped(pytester: pytest.Pytester) -> None:
    """One body that cannot run on the kind of ``--dspex-port`` ended the whole run with an internal error."""
    pytester.makeini("[pytest]\ndspex_strict_layers = true\n")
    pytester.makepyfile("""
        import pytest
        @pytest.mark.ports("sim")
        async def test_simulated(pool): pass
        @pytest.mark.ports("all")
        async def test_on_all(pool): pass
    """)
    result = pytester.runpytest_subprocess("-rs", "--dspex-port=server", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*not made for --dspex-port=server, only for sim"])


@pytest.mark.with_trio
def test_trio_mode_and_its_fixtures_go_on_as_before(pytester: pytest.Pytester) -> None:
    """In ``trio_mode`` tests of pytest-trio keep their fixtures and clocks, and ours run beside them."""
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    pytester.makepyfile(test_trio=TRIO)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error").assert_outcomes(passed=2)


def test_seed_of_the_run_decides_who_runs_first_where_all_is_simulated(pytester: pytest.Pytester) -> None:
    """A failure that hung on the order of tasks came and went, with the seed that it had been shown with."""
    pytester.makepyfile(
        """
        import trio

        async def test_race(pool):
            seen = []

            async def call(n):
                await pool.call("echo", {"n": n})
                seen.append(n)

            async with trio.open_nursery() as nursery:
                for n in range(8):
                    nursery.start_soon(call, n)
            told = lambda event, measured, about: seen.append(measured["delay"])
            with pool.workers.telemetry.attach((), told, names=("worker_start_failed",)):
                pool.ports.fail_starts = 1
                pool.kill()
                await pool.steady()
            assert len(seen) == 8, f"came as {seen}"
        """
    )

    def order(seed: int) -> str:
        said = pytester.runpytest_subprocess("-q", f"--dspex-seed={seed}").stdout
        said.fnmatch_lines([f"seed {seed}; replay with --dspex-seed={seed} *"])
        return next(line for line in said.lines if "AssertionError: came as" in line)

    assert order(7) == order(7) != order(8)


@pytest.mark.with_trio
def test_what_cannot_be_is_refused_with_the_reason(pytester: pytest.Pytester) -> None:
    """Another clock, a plain function and an unknown kind are named; a failing assertion is shown as itself."""
    pytester.makepyfile(test_wrong=WRONG)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*autojump_clock does not go with pool*",
            "*a test that uses pool, make_pool or adapter is an async function*",
            "*assert {} == 7*",
        ]
    )
    result.stdout.no_fnmatch_line("*ExceptionGroup*")
    pytester.makepyfile(
        test_wrong='import pytest\n@pytest.mark.ports("moon")\nasync def test_it(pool): pass\n'
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*no kind of port*moon*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("ports", 'ports(*names) takes names, such as ports("all"); there are sim, server, process, all'),
        ("ports(['sim'])", "no kind of port [['sim']]; there are sim, server, process, all"),
        ("ports(names='all')", "ports(*names) takes names"),
        ("pool_settings({'pool_size': 3})", "pool_settings takes its settings by name, such as pool_size=4"),
        (
            "pool_settings(pool_sise=3)",
            "there is no setting pool_sise (from pool_settings); did you mean pool_size?",
        ),
        ("pool_settings(zzz=3)", "there is no setting zzz (from pool_settings); known are affinity, allow, "),
        (
            "pool_settings(pool_size=0)",
            "pool_size = 0 (from pool_settings) is refused: it must be a whole number",
        ),
        (
            "pool_settings(worker_cwd='/')",
            "worker_cwd (from pool_settings) has no effect here: the kind of port starts the workers",
        ),
        (
            "pool_settings(handler='tally')",
            "handler = 'tally' (from pool_settings) is refused: it must be a class",
        ),
        ("pool_settings(commands=5)", "commands = 5 is refused: it must be functions of the arguments"),
        ("pool_settings(commands={'a': 5})", "commands = {'a': 5} is refused: it must be functions"),
        ("pool_settings(ports=5)", "ports = 5 is refused: it must start workers, such as MockPortFactory()"),
    ],
)
def test_marker_with_wrong_words_is_told_in_one_line(
    marker: str, said: str, pytester: pytest.Pytester
) -> None:
    """Markers without names ended the run with an internal error; settings that have none were not heeded.

    Those that do not exist were a TypeError out of the depth, and wrong values an error of each test or of a worker.
    Those about the start of processes were ignored.
    """
    pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\nasync def test_it(pool): pass\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert f"test_it: {said}" in result.stdout.str()
    result.stdout.no_fnmatch_line("*plugin/ports.py*")


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("ports('server')", "ports on a parameter has no effect, so this would run on sim"),
        ("integration", "the layer integration of a parameter chooses no port, so this would run on sim"),
    ],
)
def test_parameter_that_cannot_choose_the_port_is_refused(
    mark: str, said: str, pytester: pytest.Pytester
) -> None:
    """A case that was marked to run on processes passed on simulated workers, under the name of its layer."""
    pytester.makepyfile(f"""
        import pytest
        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.{mark})])
        async def test_it(pool, n): pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"test_it[sim-1]: {said}; mark the test" in result.stderr.str()


def test_layer_of_a_parameter_goes_with_its_port(pytester: pytest.Pytester) -> None:
    """Where the test says its ports, or the layer has the port of the case anyway, a case has its own layer."""
    pytester.makepyfile("""
        import pytest
        marks = pytest.mark.stress
        @pytest.mark.ports("sim")
        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=marks)])
        async def test_with_ports(pool, n): pass
        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.fast)])
        async def test_of_that_port(pool, n): pass
        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.chaos)])
        async def test_without_a_pool(n): pass
        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.pool_settings(pool_size=1))])
        async def test_settings(pool, n): assert pool.size == 1
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "not without")
    result.assert_outcomes(passed=4, deselected=1)


def test_setting_of_another_pool_that_does_not_exist_is_told(pytester: pytest.Pytester) -> None:
    """Python's own error said neither what there is nor what was meant."""
    pytester.makepyfile("async def test_it(make_pool): await make_pool(pool_sise=3)")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E  *InvalidConfigError: there is no setting pool_sise (from argument); did you mean pool_size[?]"
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            "await make_pool(commands=5)",
            "ValueError: commands = 5 is refused: it must be functions of the arg*",
        ),
        ("await make_pool(ports=5)", "ValueError: ports = 5 is refused: it must start workers*"),
        ("(await make_pool()).kill(9)", "IndexError: there is no worker 9, counted from 0: 2 live"),
    ],
)
def test_what_a_test_gives_wrongly_is_named(wrong: str, said: str, pytester: pytest.Pytester) -> None:
    """It was an error out of the depth, and of ports that start nothing the test hung."""
    pytester.makepyfile(f"async def test_it(make_pool): {wrong}")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E  *{said}"])


def test_body_is_not_blamed_for_the_import_of_trio(pytester: pytest.Pytester) -> None:
    """Where nobody had imported trio, the first simulated body did, and that import runs a program."""
    pytester.makepyfile("""
        import pytest
        @pytest.mark.ports("all")
        async def test_it(pool): pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:trio")
    result.assert_outcomes(passed=3)


def test_handler_that_does_not_exist_is_told_at_once(pytester: pytest.Pytester) -> None:
    """Such a test hung for as long as its layer allows, on every kind of port, starting workers all the while."""
    pytester.makepyfile("""
        import pytest
        @pytest.mark.ports("all")
        @pytest.mark.hangs_after(20)
        @pytest.mark.pool_settings(handler="nowhere_at_all:Handler")
        async def test_it(pool): pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=3)
    assert result.stdout.str().count("WorkerStartError: worker w-") >= 3
    result.stdout.fnmatch_lines(["*No module named 'nowhere_at_all'*"])
    result.stdout.no_fnmatch_line("hang: *")


SLOW_HANDLER = """
import time
from dspex_pool.bridge.handler import Handler, command

class Slow(Handler):
    @command
    def work(self, args):
        time.sleep(args["seconds"])
        return args
"""


def test_command_that_never_comes_back_keeps_no_run_from_ending(pytester: pytest.Pytester) -> None:
    """On a mock server it sleeps in a thread, which nobody can kill, and pytest waited for it when all was told."""
    pytester.makepyfile(
        slow_handler=SLOW_HANDLER,
        test_it="""
            import pytest
            @pytest.mark.ports("server")
            @pytest.mark.hangs_after(1)
            @pytest.mark.pool_settings(
                handler="slow_handler:Slow", pool_size=1, terminate_grace=0.1, close_timeout=0.5
            )
            async def test_it(pool):
                await pool.call("work", {"seconds": 3600})
        """,
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*thread 'mock server w-1'*"])


def test_command_that_takes_long_is_given_as_a_plan(pytester: pytest.Pytester) -> None:
    """Where no process runs it, the plan stands for what the handler would do, in the port's own time."""
    pytester.makepyfile(
        slow_handler=SLOW_HANDLER,
        test_it="""
            import pytest
            from dspex_pool.errors import CallTimeoutError
            from dspex_testkit.plan import Plan

            @pytest.mark.ports("all")
            @pytest.mark.pool_settings(
                handler="slow_handler:Slow", commands={"work": lambda args: Plan().after(args["seconds"]).reply(args)}
            )
            async def test_it(pool):
                with pytest.raises(CallTimeoutError):
                    await pool.call("work", {"seconds": 3600}, timeout=pool.unit)
                await pool.steady()
                assert pool.statistics().counters.starts == pool.size
        """,
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_settings_beside_those_of_the_pool_are_what_opens_one_takes() -> None:
    """Their names are kept by hand, so that no run of pytest must import what opens pools to refuse others."""
    taken = {
        name for name, of in inspect.signature(open_handle).parameters.items() if of.kind != of.VAR_KEYWORD
    }
    ours = (taken - {"numbers", "started_by"}).union(OF_KIND)
    assert sorted(FURTHER_SETTINGS) == sorted(ours.difference(settings_of(PoolConfig)))


def test_settings_of_several_markers_hold_together(pytester: pytest.Pytester) -> None:
    """Those of a module, a class and a test add up, and the nearest wins; only the nearest marker held."""
    pytester.makepyfile(
        """
        import pytest
        from dspex_testkit.plan import Plan

        pytestmark = pytest.mark.pool_settings(pool_size=3, commands={"one": lambda args: Plan().reply(1)})

        class TestIt:
            pytestmark = pytest.mark.pool_settings(max_starting=1)

            @pytest.mark.pool_settings(pool_size=1)
            async def test_nearest(self, pool):
                assert (await pool.call("one")).result == 1
                assert (pool.size, pool.workers.options.max_starting) == (1, 1)

        async def test_of_the_module(pool):
            assert pool.size == 3
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
