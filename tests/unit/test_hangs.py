"""What the picture of a hang shows and hides, without waiting for one."""

from __future__ import annotations

import signal
import sys

import pytest
import trio
import trio.testing

from dspex_testkit import run_watch
from dspex_testkit.hangs.alarm import Alarm, draw
from dspex_testkit.hangs.tasks import redacted, stack_lines, task_lines

pytestmark = pytest.mark.fast


def test_secrets_are_not_shown() -> None:
    """Values of fields that sound like secrets are masked, in JSON and in dicts; others are not."""
    assert redacted('{"api_key": "x", "question": "why"}') == '{"api_key": "***", "question": "why"}'
    assert redacted("{'password': 'x', 'n': 1}") == "{'password': '***', 'n': 1}"


def test_stack_shows_own_lines_with_locals_and_hides_secret_ones() -> None:
    """The innermost line comes last, pytest's own are left out."""
    api_token, depth = "sesame", 7
    *_, line, held = stack_lines(sys._getframe())
    assert "in test_stack_shows_own_lines_with_locals_and_hides_secret_ones: *_, line, held =" in line
    assert "api_token=***" in held
    assert f"depth={depth}" in held
    assert api_token not in held


@pytest.mark.parametrize("name", ["xdist/remote.py", "execnet/gateway_base.py", "_pytest/runner.py"])
def test_stack_hides_what_runs_the_tests(name: str) -> None:
    """In a process of xdist, nine lines of it stood above the one of the test."""
    told: list[str] = []
    code = compile("look()", f"/usr/lib/site-packages/{name}", "exec")
    exec(code, {"look": lambda: told.extend(stack_lines(sys._getframe()))})
    assert told
    assert not [line for line in told if f"{name}:" in line]


@pytest.mark.trio
async def test_tasks_show_where_each_of_them_waits(autojump_clock: trio.testing.MockClock) -> None:
    """Tasks stand below those that started them, each with the line that it waits at."""
    event = trio.Event()

    async def outer() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(wait, name="waiter")

    async def wait() -> None:
        await event.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer, name="parent")
        await trio.testing.wait_all_tasks_blocked()
        tree = task_lines()
        event.set()
    parent, waiter = tree.index(next(filter(lambda line: "'parent'" in line, tree))), tree[-3:]
    assert "task 'waiter'" in waiter[0]
    assert len(tree) - 3 > parent
    assert "in wait: await event.wait()" in waiter[1]


def test_picture_says_why_it_was_drawn() -> None:
    """Without tasks and pools the reason is still told."""
    assert draw("not done after 3 s", None) == "hang: not done after 3 s"


def test_hang_is_stopped_where_interrupts_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job that a script had started in the background, no hang was ever stopped: such jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patch:
            # The alarm around this very test would see the same.
            patch.setattr(run_watch, "WATCHERS", [])
            with pytest.raises(KeyboardInterrupt), Alarm(5.0) as alarm:
                trio.run(trio.sleep_forever, clock=trio.testing.MockClock(autojump_threshold=0))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert alarm.picture is not None
    assert "deadlock in virtual time" in alarm.picture
