"""The command that runs the layers."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tests import layers

pytestmark = pytest.mark.integration


def options(profile: str | None = None) -> argparse.Namespace:
    """Return the command's options, with a profile of searches or without."""
    return argparse.Namespace(pytest_arguments=[], coverage=False, hypothesis_profile=profile)


def ignored(part: tuple[str, ...]) -> set[str]:
    """Return the modules that a part leaves out."""
    return {word.removeprefix("--ignore=") for word in part if word.startswith("--ignore=")}


def test_each_module_runs_in_one_half() -> None:
    """What one half leaves out, the other runs; whoever imports Hypothesis is in the half that has it."""
    fast = layers.LAYERS["fast"]
    modules = {
        str(path.relative_to(layers.ROOT))
        for folder in fast.halved
        for path in (layers.ROOT / folder).glob("test_*.py")
    }
    searching, plain = layers.parts_of(fast, options())
    assert ignored(searching) | ignored(plain) == modules
    assert not ignored(searching) & ignored(plain)
    assert "tests/unit/test_pool_state_machine.py" in ignored(plain)
    assert "no:hypothesispytest" in plain
    assert "no:hypothesispytest" not in searching


def test_profile_of_searches_is_known_in_both_halves() -> None:
    """Its option is that of Hypothesis' plugin, without which pytest refuses it."""
    assert not [part for part in layers.parts_of(layers.LAYERS["fast"], options("nightly")) if "-p" in part]


def test_end_of_the_command_ends_its_pytest() -> None:
    """Bug: SIGTERM to the command alone, as a job's time limit sends it, left pytest running for minutes."""
    code = """
        import sys
        from tests import layers
        waiting = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
        layers.pytest_command = lambda *_: waiting
        sys.exit(layers.main(["protocol"]))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as command:
        try:
            assert command.stdout is not None
            pid = next(int(line) for line in command.stdout if line.strip().isdigit())
            command.send_signal(signal.SIGTERM)
            assert command.wait(20) == 128 + signal.SIGTERM
            assert not _is_alive(pid)
        finally:
            command.kill()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
