"""The pytest plugin, run on small projects of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from dspex_testkit.plugin import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = ("-p", "no:faker", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Return a function that writes one test module and runs pytest on it, in this process or apart."""

    def run(
        code: str, *arguments: str, folder: str = "tests", ini: str = "", apart: bool = False
    ) -> pytest.RunResult:
        pytester.makefile(".ini", pytest=f"[pytest]\n{ini}\n")
        # Each run of a test gets another module: this process remembers the modules of the last one.
        module = pytester.path / folder / f"test_{Path(folder).name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(code, encoding="utf-8")
        if apart:
            return pytester.runpytest_subprocess(*QUIET, *arguments, timeout=60)
        return pytester.runpytest_inprocess(*QUIET, *arguments)

    return run


def text(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


# --- markers and folders --------------------------------------------------------------------------


def test_markers_of_all_layers_are_documented(project: Callable[..., pytest.RunResult]) -> None:
    """``pytest --markers`` explains the five layers and the budget."""
    result = project("", "--markers")
    wanted = [f"*@pytest.mark.{name}*" for name in ("fast", "protocol", "integration", "chaos", "stress")]
    result.stdout.fnmatch_lines([*wanted, "*@pytest.mark.budget(seconds)*"])


def test_layer_comes_from_the_longest_folder(project: Callable[..., pytest.RunResult]) -> None:
    """A folder gives its layer to its tests, a deeper one its own, and strict markers are content."""
    ini = "addopts = --strict-markers\ndspex_layers =\n    tests = integration\n    tests/unit = fast"
    code = "def test_it(): pass"
    project(code, "-m", "fast", folder="tests/unit/deeper", ini=ini).assert_outcomes(passed=1)
    project(code, "-m", "integration", folder="tests/unitary", ini=ini).assert_outcomes(
        passed=1, deselected=1
    )


def test_mark_by_hand_wins_over_the_folder(project: Callable[..., pytest.RunResult]) -> None:
    """A test in a fast folder that is marked integration may start a process."""
    code = """
        import subprocess, sys, pytest
        @pytest.mark.integration
        def test_it():
            subprocess.run([sys.executable, "-c", ""], check=True)
    """
    result = project(dedent(code), ini="dspex_layers = tests = fast")
    result.assert_outcomes(passed=1)


def test_two_layers_on_one_test_are_a_usage_error(project: Callable[..., pytest.RunResult]) -> None:
    """The error names the test and both layers."""
    code = """
        import pytest
        pytestmark = pytest.mark.fast
        @pytest.mark.chaos
        def test_it(): pass
    """
    result = project(dedent(code))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "tests/test_tests.py::test_it has 2 layers: chaos, fast" in text(result)


@pytest.mark.parametrize("name", ["budget", "hangs_after"])
@pytest.mark.parametrize("given", ["", "'x'", "-1", "float('inf')", "float('nan')", "True", "1, 2", "s=1"])
def test_marker_with_wrong_seconds_is_a_usage_error(
    name: str, given: str, project: Callable[..., pytest.RunResult]
) -> None:
    """Such a test failed with an ``IndexError`` or an error of the system's timer from within the plugin."""
    code = f"import pytest\n@pytest.mark.fast\n@pytest.mark.{name}({given})\ndef test_it(): pass"
    result = project(code, "-o", "dspex_enforce_budgets=fast")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"test_it: {name}(" in text(result)
    assert f"must be {name}(seconds), a number from 0 to 1000000000" in text(result)


def test_marker_takes_its_seconds_by_name(project: Callable[..., pytest.RunResult]) -> None:
    """As its description has it, ``budget(seconds)``; and a foreign marker of that name is left alone."""
    code = """
        import pytest
        @pytest.mark.fast
        @pytest.mark.budget(seconds=5)
        @pytest.mark.hangs_after(seconds=5)
        def test_it(): pass
        @pytest.mark.budget("of the year")
        def test_of_no_layer(): pass
    """
    result = project(dedent(code), "-o", "dspex_enforce_budgets=fast")
    result.assert_outcomes(passed=2)


def test_test_without_a_layer_is_refused_when_strict(
    project: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    """Strict projects forget no test; others may have tests without a layer."""
    pytester.mkdir("elsewhere")
    ini = "dspex_layers = elsewhere = fast"
    assert project("def test_it(): pass", ini=ini).ret == 0
    result = project("def test_it(): pass", ini=f"{ini}\ndspex_strict_layers = true", folder="more")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_it has no layer" in text(result)


@pytest.mark.parametrize("line", ["tests: fast", "tests = quick", "= fast"])
def test_unreadable_folder_setting_is_a_usage_error(
    line: str, project: Callable[..., pytest.RunResult]
) -> None:
    """A line that cannot be read is shown."""
    result = project("def test_it(): pass", ini=f"dspex_layers =\n    {line}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert line in text(result)


def test_folder_setting_that_names_no_folder_is_a_usage_error(
    project: Callable[..., pytest.RunResult],
) -> None:
    """It was taken, and the tests that it meant were held to nothing."""
    result = project("def test_it(): pass", ini="dspex_layers =\n    tests/unti = fast")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "dspex_layers: there is no tests/unti below " in text(result)


@pytest.mark.parametrize(
    ("contract", "lacks"),
    [
        ("session_store.SessionStoreContract", "make_store"),
        ("adapter.AdapterContract", "open_adapter"),
        ("port.PortContract", "open_port"),
        ("worker.WorkerContract", "command"),
    ],
)
def test_contract_that_does_not_say_what_is_under_test_is_refused(
    contract: str, lacks: str, project: Callable[..., pytest.RunResult]
) -> None:
    """Such a class is abstract, and pytest passed over it: where a hook was misspelt, nothing was tested."""
    module, _, name = contract.partition(".")
    code = f"from dspex_testkit.contracts.{module} import {name}\nclass TestMine({name}):\n    def mak_it(self):\n"
    code += "        return None\n"
    result = project(code)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    said = f"tests/test_tests.py::TestMine is a {name} without {lacks}: define it, or say __test__ = False"
    assert said in text(result)
    result = project(f"{code}    __test__ = False\ndef test_it(): pass", "again", folder="again")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "setting",
    [
        "dspex_budget_slack = x",
        "dspex_budget_fast = nan",
        "dspex_layer_budget_chaos = -1",
        "dspex_sleep_budget = inf",
        "dspex_timeout_fast = soon",
        "dspex_timeout_fast = -1",
        "dspex_timeout_chaos = 1e+300",
        "dspex_strict_layers = perhaps",
    ],
)
def test_setting_with_a_wrong_value_is_a_usage_error_that_names_it(
    setting: str, project: Callable[..., pytest.RunResult]
) -> None:
    """Of ``x`` only the conversion's error was told, and a limit below zero failed each test within the plugin."""
    result = project("import pytest\n@pytest.mark.fast\ndef test_it(): pass", ini=setting)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    name, _, value = setting.partition(" = ")
    assert f"{name} = {value} is refused: it must be " in text(result)


@pytest.mark.parametrize(("said", "failed"), [("true", 1), ("false", 0), ('["fast"]', 1), ("[]", 0)])
def test_budgets_are_enforced_as_toml_says(said: str, failed: int, pytester: pytest.Pytester) -> None:
    """TOML's own ``true`` reached the plugin as ``True``, which it took for the name of a layer."""
    settings = f"dspex_enforce_budgets = {said}\ndspex_budget_fast = 0.0001"
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{settings}\n")
    pytester.makepyfile("import pytest\n@pytest.mark.fast\ndef test_burns(): sum(range(1_000_000))")
    assert pytester.runpytest_inprocess(*QUIET).ret == failed


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest.toml came with pytest 9")
@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ('dspex_budget_fast = "x"', "dspex_budget_fast = x is refused: it must be a number from 0"),
        ("dspex_strict_layers = 1", "dspex_strict_layers = 1 is refused: it must be true or false"),
        ("dspex_budget_fast = true", "dspex_budget_fast = True is refused: it must be a number from 0"),
    ],
)
def test_value_of_another_type_of_toml_is_refused_by_name(
    setting: str, shown: str, pytester: pytest.Pytester
) -> None:
    """The refusal took its value out of the middle of pytest's message, and showed half of that."""
    pytester.makefile(".toml", pytest=f"[pytest]\n{setting}\n")
    result = pytester.runpytest_inprocess(*QUIET)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert shown in text(result)


# --- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "fails"),
    [
        ("fast", False),
        ("fast or protocol", True),
        ("protocol", True),
        ("not protocol", False),
        ("fast and not slow", False),
        ("slow or stress", True),
    ],
)
def test_run_fails_when_a_selected_layer_holds_no_test(
    expression: str, fails: bool, project: Callable[..., pytest.RunResult]
) -> None:
    """A layer named with -m must not be empty; a layer that is only excluded may be."""
    code = "import pytest\n@pytest.mark.fast\ndef test_it(): pass"
    result = project(code, "-m", expression)
    assert (result.ret != 0) is fails
    assert ("without any test" in text(result)) is fails


def test_trusted_folders_are_not_even_read(
    project: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    """Where folders are trusted, a layer's run does not import the tests of the others."""
    (pytester.mkdir("dear") / "test_dear.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    ini = "dspex_trust_folders = true\ndspex_layers =\n    tests = fast\n    dear = integration"
    project("def test_it(): pass", "-m", "fast", ini=ini).assert_outcomes(passed=1)
    project("def test_it(): pass", "-m", "fast or slow", ini=ini, folder="more").assert_outcomes(errors=1)


def test_trusted_folder_holds_tests_of_its_own_layer_only(
    project: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    """A mark by hand that a trusting run would overlook is refused, one of a layer without a folder is not."""
    pytester.mkdir("dear")
    ini = "dspex_trust_folders = true\ndspex_layers =\n    tests = fast\n    dear = integration"
    code = "import pytest\n@pytest.mark.{}\ndef test_it(): pass"
    project(code.format("stress"), ini=ini).assert_outcomes(passed=1)
    result = project(code.format("integration"), ini=ini, folder="tests/more")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is marked integration, but its folder is for fast" in text(result)


# --- what a fast test may not do ------------------------------------------------------------------


FAST = "import os, socket, subprocess, sys, time, pytest\npytestmark = pytest.mark.fast\n"


def test_fast_test_fails_also_when_the_refusal_is_swallowed(project: Callable[..., pytest.RunResult]) -> None:
    """Code that catches everything does not hide what it did, nor does a fixture or a finalizer."""
    code = """
        def act():
            try:
                os.system("true")
            except BaseException:
                pass
        @pytest.fixture
        def set_up(): act()
        @pytest.fixture
        def tear_down():
            yield
            act()
        def test_call(): act()
        def test_set_up(set_up): pass
        def test_tear_down(tear_down): pass
    """
    result = project(FAST + dedent(code))
    result.assert_outcomes(failed=1, errors=2, passed=1)


def test_fast_test_may_sleep_a_little(project: Callable[..., pytest.RunResult]) -> None:
    """Sleeps count in sum, and the sum is a setting."""
    code = f"{FAST}\ndef test_it():\n    for _ in range(4): time.sleep(0.01)\n"
    project(code).assert_outcomes(passed=1)
    project(code, "-o", "dspex_sleep_budget=0.035", folder="again").assert_outcomes(failed=2)


@pytest.mark.with_trio
def test_fast_test_may_not_sleep_in_trio_on_the_real_clock(project: Callable[..., pytest.RunResult]) -> None:
    """Deadlines that pass in real time count as sleep; virtual time, threads and short waits do not."""
    code = """
        import trio, trio.testing
        def test_real(): trio.run(trio.sleep, 0.08)
        def test_virtual(): trio.run(trio.sleep, 80, clock=trio.testing.MockClock(autojump_threshold=0))
        def test_short(): trio.run(trio.sleep, 0.001)
        @pytest.mark.trio
        async def test_plugin(): await trio.sleep(0.08)
        @pytest.mark.trio
        async def test_plugin_virtual(autojump_clock): await trio.sleep(80)
    """
    result = project(FAST + dedent(code))
    result.assert_outcomes(failed=2, passed=3)
    assert "a deadline on trio's system clock" in text(result)


def test_fast_test_ignores_what_other_threads_do(
    project: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    """A thread that was there before the first test may sleep; one that a test starts may not."""
    plugin = """
        import threading, time
        stop = threading.Event()
        def nap():
            while not stop.is_set():
                time.sleep(0.03)
        def pytest_sessionstart(session):
            session.napper = threading.Thread(target=nap)
            session.napper.start()
        def pytest_sessionfinish(session):
            stop.set()
            session.napper.join()
    """
    code = """
        import conftest, threading
        def test_quiet():
            began = time.monotonic()
            while time.monotonic() < began + 0.2: pass
        def test_loud():
            thread = threading.Thread(target=conftest.nap)
            thread.start()
            thread.join(0.2)
            conftest.stop.set()
            thread.join()
    """
    # The refusal raises in the thread; pytest's warning about that is not the subject here.
    ini = "filterwarnings = ignore::pytest.PytestUnhandledThreadExceptionWarning\npythonpath = ."
    pytester.makeconftest(dedent(plugin))
    result = project(FAST + dedent(code), ini=ini)
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize("layer", ["fast", "protocol", "integration"])
def test_module_that_imports_dspy_fails_the_tests_of_the_cheap_layers(
    layer: str,
    project: Callable[..., pytest.RunResult],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An import at the top of the module counts as the tests' own."""
    monkeypatch.delitem(sys.modules, "dspy", raising=False)
    pytester.makepyfile(dspy="")
    code = f"import dspy, pytest\n@pytest.mark.{layer}\ndef test_it(): pass"
    result = project(code, ini="pythonpath = .")
    result.assert_outcomes(**{"passed" if layer == "integration" else "errors": 1})


def test_protocol_test_may_start_processes_but_not_import_dspy(
    project: Callable[..., pytest.RunResult], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle layer is for real bytes."""
    monkeypatch.delitem(sys.modules, "dspy", raising=False)
    pytester.makepyfile(dspy="")
    code = FAST.replace("fast", "protocol") + dedent("""
        def test_process(): subprocess.run([sys.executable, "-c", ""], check=True)
        def test_import(): import dspy
    """)
    project(code, ini="pythonpath = .").assert_outcomes(passed=1, failed=1)


def test_tests_without_a_layer_are_left_alone(project: Callable[..., pytest.RunResult]) -> None:
    """In a project that knows nothing of layers the plugin neither forbids nor reports anything."""
    code = """
        import os, subprocess, threading, time
        def test_it():
            time.sleep(0.06)
            os.open("/dev/null", os.O_RDONLY)
    """
    result = project(dedent(code), apart=True)
    result.assert_outcomes(passed=1)
    assert "layers" not in text(result)


# --- budgets --------------------------------------------------------------------------------------


def test_budget_fails_a_test_only_when_it_is_enforced(project: Callable[..., pytest.RunResult]) -> None:
    """CPU time counts for fast, wall time for the others; a test may have a budget of its own."""
    code = """
        import time, pytest
        def burn():
            end = time.process_time() + 0.05
            while time.process_time() < end: pass
        @pytest.mark.fast
        def test_burns(): burn()
        @pytest.mark.fast
        @pytest.mark.budget(1)
        def test_may_burn(): burn()
        @pytest.mark.protocol
        def test_waits(): time.sleep(0.05)
        @pytest.mark.stress
        def test_has_no_budget(): burn()
    """
    ini = "dspex_budget_fast = 0.01\ndspex_budget_protocol = 0.01\ndspex_budget_slack = 2"
    project(dedent(code), ini=ini).assert_outcomes(passed=4)
    result = project(dedent(code), "-o", "dspex_enforce_budgets=true", ini=ini, folder="again")
    result.assert_outcomes(passed=4, failed=4)
    result.stdout.fnmatch_lines(["*took 0.05* CPU seconds, more than 2 times its budget of 0.010*"])


def test_summary_shows_each_layer(project: Callable[..., pytest.RunResult]) -> None:
    """Number of tests, their time, and the slowest."""
    code = """
        import time, pytest
        @pytest.mark.fast
        def test_one(): pass
        @pytest.mark.fast
        def test_two():
            end = time.process_time() + 0.02
            while time.process_time() < end: pass
        @pytest.mark.chaos
        def test_three(subtests):
            with subtests.test("part"): pass
    """
    result = project(dedent(code))
    result.stdout.fnmatch_lines(
        [
            "*= layers =*",
            "fast * 2 tests *test_tests.py::test_two",
            "chaos * 1 tests *test_tests.py::test_three",
        ]
    )


# --- leaks ----------------------------------------------------------------------------------------


def test_leak_fails_the_test_that_left_it(project: Callable[..., pytest.RunResult]) -> None:
    """A child, a descriptor and a thread are named, and the child is ended."""
    code = """
        import os, subprocess, sys, threading, pytest
        pytestmark = pytest.mark.integration
        kept = []
        def test_child():
            kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        def test_child_is_gone():
            assert kept[0].wait(10) is not None
            kept[0].stdin.close()
        def test_descriptor(): kept.append(os.open("/dev/null", os.O_RDONLY))
        def test_thread():
            kept.append(threading.Event())
            threading.Thread(target=kept[-1].wait, name="forgotten", daemon=True).start()
        def test_innocent(): pass
        def test_end(): kept[-1].set()
    """
    result = project(dedent(code), "-p", "no:randomly", apart=True)
    result.assert_outcomes(passed=6, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*test_child left behind:",
            "*child process *: *python* -c input()",
            "*test_descriptor left behind:",
            "*descriptor *: /dev/null",
            "*test_thread left behind:",
            "*thread 'forgotten'",
        ]
    )


def test_what_is_held_by_wider_fixtures_and_garbage_is_no_leak(
    project: Callable[..., pytest.RunResult],
) -> None:
    """A session's server may live on, and unreachable objects are collected before anybody is accused."""
    code = """
        import os, subprocess, sys, threading, pytest, trio
        pytestmark = pytest.mark.integration
        @pytest.fixture(scope="module")
        def server():
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            yield
            child.stdin.close()
            child.wait()
        def test_server(server): pass
        def test_server_again(server): pass
        def test_garbage():
            class Holder: pass
            holder = Holder()
            holder.itself = holder
            holder.file = os.fdopen(os.open("/dev/null", os.O_RDONLY), closefd=True)
            holder.file.close
        def test_idle_thread_of_trio(): trio.run(trio.to_thread.run_sync, int)
    """
    project(dedent(code), "-W", "ignore::ResourceWarning").assert_outcomes(passed=4)


# --- beside other plugins -------------------------------------------------------------------------


def test_layer_without_failures_is_not_missed_with_last_failed(pytester: pytest.Pytester) -> None:
    """Files in which nothing had failed are not read with --lf: their layers seemed empty, and the run failed."""
    broken, mended = (
        "import pytest\n@pytest.mark.fast\ndef test_it(): assert " + end for end in ("0", "1 # !")
    )
    path = pytester.makepyfile(test_one=broken)
    pytester.makepyfile(test_two="import pytest\n@pytest.mark.stress\ndef test_it(): pass")
    words = ("-p", "no:faker", "-m", "fast or stress")
    pytester.runpytest_subprocess(*words).assert_outcomes(passed=1, failed=1)
    path.write_text(mended, encoding="utf-8")
    result = pytester.runpytest_subprocess(*words, "--lf")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_plugin_works_with_xdist(pytester: pytest.Pytester) -> None:
    """Layers, refusals, the summary and the empty layer come through to the controller."""
    pytester.makefile(".ini", pytest="[pytest]\ndspex_layers = tests = fast\n")
    code = """
        import os, pytest
        @pytest.mark.parametrize("n", range(4))
        def test_it(n):
            if n == 3: os.system("true")
    """
    (pytester.mkdir("tests") / "test_it.py").write_text(dedent(code), encoding="utf-8")
    result = pytester.runpytest_subprocess(*QUIET, "-n", "2", "-m", "fast or stress", timeout=60)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*a fast test started a process*", "fast * 4 tests *", "*without any test: stress"]
    )
    result = pytester.runpytest_subprocess(
        *QUIET, "-n", "2", "-m", "fast or stress", "-k", "not 3", timeout=60
    )
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_plugin_tells_usage_errors_under_xdist(pytester: pytest.Pytester) -> None:
    """A test without a layer stops a strict run there too."""
    pytester.makefile(".ini", pytest="[pytest]\ndspex_strict_layers = true\n")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess(*QUIET, "-n", "1", timeout=60)
    assert result.ret != 0
    assert "test_it has no layer" in text(result)


#: What of the test kit a run loads that does not use it. Each module costs about half a millisecond: see
#: ``python -m tests.startup_cost``.
LOADED = {
    "layers", "ports", "ports.names", "seeds", "settings", "sites",
    *(f"plugin{part}" for part in ("", ".stash", ".late", *(f".{name}" for name in PARTS))),
}  # fmt: skip


def test_plugin_is_cheap_to_load(pytester: pytest.Pytester) -> None:
    """A run that uses no layer loads a few small modules of ours through the plugin, and of libraries none."""
    code = f"""
        import sys
        def test_it():
            assert not {{"trio", "psutil", "msgspec", "dspex_pool", "hypothesis", "faker"}} & sys.modules.keys()
            ours = {{name for name in sys.modules if name.startswith("dspex_testkit.")}}
            assert ours <= {{f"dspex_testkit.{{name}}" for name in {LOADED}}}
    """
    pytester.makepyfile(dedent(code))
    arguments = ("--disable-plugin-autoload", "-p", "dspex_testkit.plugin")
    pytester.runpytest_subprocess(*arguments, timeout=60).assert_outcomes(passed=1)


# --- the seed ---------------------------------------------------------------------------------------------

DRAWING = """
    import pytest
    pytestmark = pytest.mark.chaos
    @pytest.mark.parametrize("number", range(4))
    def test_it(dspex_seed, dspex_random, number):
        with open(f"drawn-{number}", "a") as file:
            file.write(f"{dspex_seed} {dspex_random.random()}\\n")
        assert number != 3
"""


def drawn(pytester: pytest.Pytester) -> list[list[str]]:
    """Return what the tests of ``DRAWING`` drew in each run."""
    return [(pytester.path / f"drawn-{number}").read_text("utf-8").splitlines() for number in range(4)]


def test_seed_replays_what_was_drawn(
    project: Callable[..., pytest.RunResult], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed of a failure gives each test its numbers again, by option or variable, in any order and process."""
    monkeypatch.delenv("DSPEX_SEED", raising=False)
    first = project(dedent(DRAWING))
    first.stdout.fnmatch_lines(["*- dspex seed -*", "seed *; replay with --dspex-seed=* or DSPEX_SEED=*"])
    seed = drawn(pytester)[0][0].split()[0]
    project(dedent(DRAWING), f"--dspex-seed={seed}", "-n2", "--dist=load", apart=True)
    monkeypatch.setenv("DSPEX_SEED", seed)
    project(dedent(DRAWING), "-k", "3 or 1")
    project(dedent(DRAWING), f"--dspex-seed={int(seed) + 1}")
    runs = drawn(pytester)
    assert all(lines[0] == lines[1] != lines[-1] for lines in runs)
    assert runs[1][2] == runs[1][0]
    assert len({lines[0] for lines in runs}) == 4


def test_seed_is_shown_at_the_start(project: Callable[..., pytest.RunResult]) -> None:
    """In the header of those who use the test kit, and in a quiet chaos run, which may hang and show nothing else."""
    line = "dspex: seed 7; replay with --dspex-seed=7 or DSPEX_SEED=7"
    code, seed = dedent(DRAWING), "--dspex-seed=7"
    assert line in text(project(code, seed, ini="dspex_layers = tests = chaos"))
    assert line in text(project(code, seed, "-q", "-m", "chaos"))
    assert line not in text(project(code, seed))
    assert line not in text(project(code, seed, "-q"))


def test_seed_that_is_no_number_is_a_usage_error(
    project: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before any test runs."""
    monkeypatch.setenv("DSPEX_SEED", "abc")
    result = project("def test_it(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "DSPEX_SEED must be a whole number, not 'abc'" in text(result)


# --- its page -----------------------------------------------------------------------------------------------


def test_everything_that_pytest_shows_of_us_is_on_the_page(pytester: pytest.Pytester) -> None:
    """Options, settings, markers and fixtures, as pytest itself lists them; those of parts to come too."""
    page = (Path(__file__).parents[2] / "docs" / "testkit" / "plugin.md").read_text(encoding="utf-8")
    texts = [
        [text(pytester.runpytest_inprocess(*QUIET, *left_out, show)) for show in ("--help", "--markers")]
        for left_out in ((), ("-p", "no:dspex"))
    ]
    patterns = (r"(?m)^ +(--\w[\w-]*|\w+(?= \(\w+\):))", r"(?m)^@pytest\.mark\.(\w+)")
    ours = [
        name
        for pattern, with_us, without in zip(patterns, *texts, strict=True)
        for name in {*re.findall(pattern, with_us)} - {*re.findall(pattern, without)}
    ]
    assert len(ours) > 20
    assert not [name for name in ours if f"`{name}" not in page], "run: python -m tests.documents"
    shown = text(pytester.runpytest_inprocess(*QUIET, "--fixtures"))
    fixtures = re.findall(r"(?m)^(\w+)(?: \[.*\])? -- .*dspex_testkit/plugin/", shown)
    assert len(fixtures) >= 5
    assert not [name for name in fixtures if f"| `{name}` |" not in page], "run: python -m tests.documents"
