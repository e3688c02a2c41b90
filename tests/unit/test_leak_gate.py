"""What a test left behind, and where it was opened."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.protocol.framing import encode_frame
from dspex_testkit import leak_gate
from dspex_testkit.descendants import descendants, end_processes, kernel_time, own_tag, tagged
from dspex_testkit.leak_gate import NOTHING, Before, Leaks, Resources, leaks_since
from dspex_testkit.mock_port import MockPort
from dspex_testkit.origins import Ledger
from dspex_testkit.sites import Sites

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger beside that of the plugin, which sees the same."""
    book = Ledger(Sites(ROOT), spared=())
    with book.keeping():
        yield book


def told(before: Before, ledger: Ledger) -> list[str]:
    return leaks_since(before, ledger, patience=0).describe(ledger)


def test_descriptors_are_leaks_with_the_line_until_they_are_closed(ledger: Ledger) -> None:
    """Whatever opened it, and though lower numbers were free in between, the right line is named."""
    before = Before.now()
    passing = os.open(os.devnull, os.O_RDONLY)
    kept = os.open(os.devnull, os.O_RDONLY)
    os.close(passing)
    ends = os.pipe()
    sock = socket.socket(socket.AF_UNIX)
    lines = {text.split(":")[0]: text for text in told(before, ledger)}
    for number, code in [(kept, "kept = os.open"), (ends[0], "os.pipe()"), (sock.fileno(), "socket.socket(")]:
        assert "opened at tests/unit/test_leak_gate.py:" in lines[f"descriptor {number}"]
        assert code in lines[f"descriptor {number}"]
        os.close(sock.detach() if number == sock.fileno() else number)
    os.close(ends[1])
    assert not told(before, ledger)


def test_thread_is_a_leak_with_the_line_until_it_ends(ledger: Ledger) -> None:
    """The thread is named, and where it was started; one that is just ending is waited for."""
    before, stop = Before.now(), threading.Event()
    thread = threading.Thread(target=stop.wait, name="lingering")
    thread.start()
    [text] = told(before, ledger)
    stop.set()
    assert text.startswith("thread 'lingering'\n    opened at tests/unit/test_leak_gate.py:")
    assert text.endswith("thread.start()")
    assert not leaks_since(before, ledger)


def test_temporary_file_is_a_leak_until_it_is_removed(ledger: Ledger) -> None:
    """A folder stands for what is in it."""
    before, folder = Before.now(), tempfile.mkdtemp()
    (Path(folder) / "inner").touch()
    [text] = told(before, ledger)
    assert text.startswith(f"temporary folder {folder}\n    opened at tests/unit/test_leak_gate.py:")
    (Path(folder) / "inner").unlink()
    Path(folder).rmdir()
    assert not told(before, ledger)


def test_task_that_outlives_the_runs_own_is_a_leak(ledger: Ledger) -> None:
    """Trio cancels it without a word; whoever spawned it should have waited."""

    async def linger() -> None:
        await trio.sleep_forever()

    async def spawn() -> None:
        trio.lowlevel.spawn_system_task(linger, name="lingering")
        trio.lowlevel.spawn_system_task(trio.lowlevel.checkpoint)
        await trio.testing.wait_all_tasks_blocked()

    before = Before.now()
    trio.run(spawn, clock=trio.testing.MockClock())
    [text] = told(before, ledger)
    assert text.startswith("task lingering, which outlived the run's own task\n    opened at tests/unit/")
    ledger.forget_since((0, 0, 0))
    for book in leak_gate_books():
        book.runs.clear()


def leak_gate_books() -> list[Ledger]:
    """Return the plugin's own ledgers too: what is planted here is no leak of this test."""
    from dspex_testkit.origins import kept

    return list(kept())


def test_frame_that_nobody_read_is_a_leak_of_the_port(ledger: Ledger) -> None:
    """Of a worker that still lives; bytes that are no frame are none."""

    async def ask_for_nothing() -> None:
        port = MockPort("w-7")
        port.inject(encode_frame(b"{}") + b"\xff\xff\xff\xff no frame")

    before = Before.now()
    trio.run(ask_for_nothing, clock=trio.testing.MockClock())
    [text] = told(before, ledger)
    assert text.startswith("1 unread frames of worker w-7, whose port was not closed\n    opened at ")
    assert 'MockPort("w-7")' in text
    for book in leak_gate_books():
        book.ports.clear()


def test_nothing_is_left_of_two_equal_looks() -> None:
    """Looking leaves nothing behind itself, and sums and differences are those of sets."""
    first, second = Resources.now(), Resources.now()
    assert not second - first
    assert (first | second) == first


def test_resources_that_went_meanwhile_are_still_described(ledger: Ledger) -> None:
    """A description never fails: what it is about may be gone."""
    gone = Resources(frozenset({2**22 + 1}), frozenset({99_999}), frozenset({-1}))
    assert Leaks(gone, frozenset({2**22 + 2})).describe(ledger) == [
        f"child process {2**22 + 1}: ended meanwhile",
        f"process of a process {2**22 + 2}: ended meanwhile",
        "descriptor 99999: closed meanwhile, or without a name",
        "thread -1",
    ]
    end_processes(gone.children)
    assert not Leaks(NOTHING)


def test_children_are_found_on_every_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the kernel does not list children, psutil finds them; here they are none."""
    assert leak_gate._listed_children() == frozenset()
    (tmp_path / "1").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(leak_gate, "_TASKS", str(tmp_path))
        assert leak_gate._listed_children() == frozenset()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Resources.now().children == frozenset()


def test_tags_of_nested_runs_are_all_kept() -> None:
    """A run within a run is found by both, and adds its tag once."""
    tag = own_tag()
    assert tagged({}, tag) == tag
    assert tagged({"DSPEX_TEST_RUN": f"1-1 {tag}"}, tag) == f"1-1 {tag}"
    assert descendants(tag, (), since=kernel_time() + 1) == {}
