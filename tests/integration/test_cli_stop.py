"""Ctrl-C and SIGTERM, which end every command of both programs in the same way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest
import trio
import trio.testing

from dspex_pool.cli.problems import ExitCode
from dspex_pool.cli.signals import CODES, Stopped
from dspex_pool.cli.stop import Stop
from tests.bounded_waits import wait_until
from tests.faulty_workers import faulty_command
from tests.integration.cli_shell import signals_as_before

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

#: A worker that never says a word.
MUTE: Final = [sys.executable, "-c", "import sys; sys.stdin.read()"]

#: Commands that start workers and would go on for a minute.
COMMANDS: Final = {
    "conform": [
        *("dspex_testkit.cli", "conform", "--timeout", "60", "--only", "G*"),
        *("--command", 'slow=sleep {"seconds": 60}', "--", *faulty_command("uncancellable")),
    ],
    "load": ["dspex_testkit.cli", "load", "echo", "--seconds", "60", "--workers", "2"],
    "doctor": ["dspex_pool.cli", "doctor", "--set", f"command={json.dumps(MUTE)}"],
}

SAID: Final = {signal.SIGINT: "error: interrupted\n", signal.SIGTERM: "error: stopped by SIGTERM\n"}


@pytest.mark.parametrize("number", CODES)
def test_signal_cancels_what_trio_runs_and_more_of_them_change_nothing(number: int) -> None:
    """What was begun ends in its own time, is told by the first signal's status, and nothing strikes afterwards."""
    ended = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await trio.sleep_forever()
        finally:
            signal.raise_signal(signal.SIGINT)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            ended.append("ended")

    with signals_as_before():
        with pytest.raises(Stopped) as caught:
            Stop().run(work)
        assert {signal.getsignal(one) for one in CODES} == {signal.SIG_IGN}
    assert ended == ["ended"]
    assert caught.value.code == CODES[number]


def test_signal_before_trio_begins_is_taken_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was to cancel what trio did not run yet, and was a RuntimeError instead."""

    def begin(*args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return run(*args)

    run = trio.run
    monkeypatch.setattr(trio, "run", begin)
    with signals_as_before(), pytest.raises(Stopped) as caught:
        Stop().run(trio.sleep_forever)
    assert caught.value.code == ExitCode.TERMINATED


def test_signals_do_what_they_did_before_once_a_run_has_ended_by_itself() -> None:
    """A run that no signal has stopped leaves no trace, and gives what came of it."""
    before = [signal.getsignal(one) for one in CODES]

    async def work() -> str:
        assert before != [signal.getsignal(one) for one in CODES]
        return "done"

    assert Stop().run(work) == "done"
    assert before == [signal.getsignal(one) for one in CODES]


@contextlib.contextmanager
def working(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Run a command; enter when it has started workers, with these."""
    with subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            me = psutil.Process(process.pid)
            wait_until(me.children, "a worker is there")
            yield process, me.children(recursive=True)
        finally:
            process.kill()


@pytest.mark.parametrize("number", SAID)
@pytest.mark.parametrize("name", COMMANDS)
def test_many_signals_end_a_command_as_one_does(name: str, number: signal.Signals) -> None:
    """Of several Ctrl-C in a row one struck on the way out: a traceback, or the status of a killed program."""
    with working(COMMANDS[name]) as (process, workers):

        def strike() -> bool:
            process.send_signal(number)
            return process.poll() is not None

        wait_until(strike, "the end of the command")
        said = process.communicate()
    assert process.returncode == 128 + number, said
    assert said == ("", SAID[number])
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []


def test_signal_while_a_program_is_still_imported_is_told_like_any_other() -> None:
    """A Ctrl-C before the command had begun was a traceback out of an import."""
    program = "import os, signal, sys; sys.meta_path.insert(0, Finder()); from {}.cli import main; main()"
    for package in ("dspex_pool", "dspex_testkit"):
        lines = [
            "class Finder:",
            "    def find_spec(self, name, path, target=None):",
            "        if name == 'typer':",
            "            os.kill(os.getpid(), signal.SIGINT)",
            program.format(package),
        ]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines), "config"],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", SAID[signal.SIGINT])
