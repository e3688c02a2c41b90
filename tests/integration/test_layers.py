"""The command that runs the layers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.integration


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
