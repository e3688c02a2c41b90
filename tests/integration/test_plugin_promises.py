"""The layers' promises, each broken on purpose: the test that breaks one fails, with the act and the line."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from textwrap import dedent

import pytest

from dspex_testkit.spending import Cost, Spending
from tests.cases import case

pytestmark = pytest.mark.integration

#: What breaks a promise: name of the test, its layer, the line that does it, and how the refusal begins.
BROKEN = {
    "process": ("fast", "subprocess.run(['true'])", "a fast test started a process (subprocess.Popen *"),
    "shell": ("fast", "os.system('true')", "a fast test started a process (os.system *"),
    "spawn": ("fast", "os.posix_spawn('/bin/true', ['true'], {})", "a fast test started a process *"),
    "fork": ("fast", "os.fork()", "a fast test forked (os.fork '')"),
    "socket": ("fast", "socket.socket()", "a fast test opened a socket"),
    "lookup": ("fast", "socket.create_connection(('127.0.0.1', 9))", "a fast test looked up a name *"),
    "sleep": ("fast", "time.sleep(0.06)", "a fast test slept 0.060 s of real time (time.sleep; *"),
    "trio_sleep": ("fast", "trio.run(trio.sleep, 0.08)", "a fast test slept 0.0* (a deadline on trio's *"),
    "dspy": ("fast", "import dspy", "a fast test imported dspy"),
    "swallowed": ("fast", "swallow(os.system, 'true')", "a fast test started a process (os.system *"),
    "burn": ("fast", "burn(0.2)", "took * CPU seconds, more than 3 times its budget of 0.050. *"),
    "dspy_on_the_wire": ("protocol", "from dspy import predict", "a protocol test imported dspy"),
    "network_on_the_wire": (
        "protocol",
        "socket.create_connection(('192.0.2.1', 9))",
        "a protocol test looked up a name beyond this machine (socket.getaddrinfo '192.0.2.1')",
    ),
    "network": (
        "integration",
        "socket.socket().connect(('192.0.2.1', 9))",
        "an integration test opened a connection beyond this machine (socket.connect ('192.0.2.1', 9))",
    ),
    "datagram": (
        "chaos",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
        "a chaos test sent a datagram beyond this machine *",
    ),
}

PROJECT = """
    import os, socket, subprocess, time
    import pytest, trio
    def swallow(act, *arguments):
        try: act(*arguments)
        except BaseException: pass
    def burn(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end: pass
    @pytest.mark.integration
    def test_loopback():
        with socket.create_server(("localhost", 0)) as server, socket.create_connection(server.getsockname()): pass
    @pytest.mark.stress
    def test_stress():
        with socket.socket(type=socket.SOCK_DGRAM) as sock: sock.connect(("192.0.2.1", 9))
"""


def test_every_broken_promise_is_named_with_its_line(pytester: pytest.Pytester) -> None:
    """Each act is refused and fails its test, by name and line; what a layer allows passes."""
    pytester.makepyfile(dspy="predict = None")
    tests = [
        f"@pytest.mark.{layer}\ndef test_{name}():\n    {line}\n" for name, (layer, line, _) in BROKEN.items()
    ]
    pytester.makepyfile(test_broken=dedent(PROJECT) + "\n".join(tests))
    arguments = ("-o", "pythonpath=.", "-o", "dspex_enforce_budgets=fast", "-W", "ignore::ResourceWarning")
    result = pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:randomly", *arguments, timeout=60)
    result.assert_outcomes(passed=2, failed=len(BROKEN))
    text = result.stdout.str()
    for name, (_, line, what) in BROKEN.items():
        with case(name):
            [block] = re.findall(rf"(?s)_ test_{name} _+\n(.*?)\n(?:__|==)", text)
            told = [found.group(1) for found in re.finditer(r"(?m)^E {7,}(.*)$", block)]
            said, *lines = [re.sub(r"^\S+Error: ", "", one.strip()) for one in told]
            assert fnmatch(said, what), told
            named = f"in test_{name}: {line}" if name != "burn" else "in test_burn"
            assert re.fullmatch(rf"(?:at|from) test_broken\.py:\d+ {re.escape(named)}", lines[-1]), told


def test_failed_test_is_not_accused_of_what_its_traceback_holds(pytester: pytest.Pytester) -> None:
    """What a failed test has open is open because its variables are shown; a process is a leak all the same."""
    code = """
        import os, subprocess, pytest
        @pytest.mark.integration
        def test_file():
            file = open("/dev/null")
            assert not file
        @pytest.mark.integration
        def test_process():
            assert not subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
    """
    pytester.makepyfile(dedent(code))
    result = pytester.runpytest_subprocess("-p", "no:faker", timeout=60)
    result.assert_outcomes(failed=2, errors=1)
    assert "child process" in result.stdout.str()
    assert "descriptor" not in result.stdout.str()


# --- budgets of layers -------------------------------------------------------------------------------------

BURN = """
    import time, pytest
    def burn(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end: pass
    @pytest.mark.fast
    @pytest.mark.parametrize("number", range(4))
    def test_it(number): burn(0.05)
    @pytest.mark.protocol
    def test_bytes(): pass
"""


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_layer_over_its_budget_fails_the_run(pytester: pytest.Pytester, workers: str) -> None:
    """CPU time counts, that of start-up and of xdist's workers included; the summary shows it beside the budget."""
    pytester.makepyfile(dedent(BURN))
    budget = ("-o", "dspex_layer_budget_fast=0.04", "-o", "dspex_budget_fast=0")
    result = pytester.runpytest_subprocess(
        *("-p", "no:faker", "-m", "fast", workers, "-o", "dspex_enforce_budgets=fast", *budget), timeout=60
    )
    result.assert_outcomes(passed=4, deselected=1 if workers == "-n0" else 0)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "fast * 4 tests * of 0.04 CPU s *",
            "start-up * CPU s, included",
            "layer fast took * CPU seconds, more than 3 times its budget of 0.04",
        ]
    )


def test_layer_of_marks_alone_is_told_what_it_took(pytester: pytest.Pytester) -> None:
    """Without a setting and without ``-m`` the sum was shown before it was made: 0.00."""
    pytester.makepyfile("import pytest\n@pytest.mark.fast\ndef test_it(): pass")
    output = pytester.runpytest_subprocess("-p", "no:faker", "-p", "no:cacheprovider").stdout.str()
    took = re.search(r"^fast +1 tests +([\d.]+) CPU s", output, re.M)
    assert took, output
    assert float(took[1]) > 0.05


def test_budget_of_an_unknown_layer_is_a_usage_error(pytester: pytest.Pytester) -> None:
    """A misspelt name would enforce nothing."""
    result = pytester.runpytest_inprocess("-p", "no:faker", "-o", "dspex_enforce_budgets=fats")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'fats'* are no layers*"])


def test_layers_of_one_run_cost_what_their_tests_took() -> None:
    """A layer that runs alone pays for the start too; beside others it does not."""
    spending = Spending(workers_cpu=3.0)
    spending.add("fast", "a", Cost(9.0, 1.0))
    spending.add("fast", "a", Cost(9.0, 1.0))
    spending.note_end()
    assert spending.total("fast") == spending.whole.cpu > 3.0
    spending.add("chaos", "b", Cost(5.0, 0.0))
    assert (spending.total("fast"), spending.total("chaos"), spending.total("stress")) == (2.0, 5.0, 0)
    budgets = {"fast": 1.9, "chaos": 5.0}
    assert list(spending.over(budgets, frozenset({"chaos"}), 1.0)) == []
    [text] = spending.over(budgets, frozenset({"fast", "chaos"}), 1.0)
    assert text == "layer fast took 2.00 CPU seconds, more than 1 times its budget of 1.9"
