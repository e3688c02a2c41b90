"""What a test left behind."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from dspex_testkit import leak_gate
from dspex_testkit.leak_gate import Resources, end_children, leaks_since

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_descriptor_is_a_leak_until_it_is_closed() -> None:
    """The descriptor is named by what it is open on, even when it took a free low number."""
    before = Resources.now()
    opened = os.open(os.devnull, os.O_RDONLY)
    try:
        leaked = leaks_since(before, patience=0)
        assert leaked.descriptors == {opened}
        assert leaked.describe() == [f"descriptor {opened}: {os.devnull}"]
    finally:
        os.close(opened)
    assert not leaks_since(before)


def test_thread_is_a_leak_until_it_ends() -> None:
    """The thread is named."""
    before, stop = Resources.now(), threading.Event()
    thread = threading.Thread(target=stop.wait, name="lingering")
    thread.start()
    try:
        assert leaks_since(before, patience=0).describe() == ["thread 'lingering'"]
    finally:
        stop.set()
        thread.join()
    assert not leaks_since(before)


def test_thread_that_is_ending_is_waited_for() -> None:
    """What goes by itself within a moment is no leak."""
    before, go = Resources.now(), threading.Event()
    thread = threading.Thread(target=go.wait, args=(0.01,))
    thread.start()
    assert not leaks_since(before)
    thread.join()


def test_nothing_is_left_of_two_equal_looks() -> None:
    """Looking leaves nothing behind itself, and sums and differences are those of sets."""
    first, second = Resources.now(), Resources.now()
    assert not second - first
    assert (first | second) == first


def test_resources_that_went_meanwhile_are_still_described() -> None:
    """A description never fails: what it is about may be gone."""
    gone = Resources(frozenset({2**22 + 1}), frozenset({99_999}), frozenset({-1}))
    assert gone.describe() == [
        f"child process {2**22 + 1}: ended meanwhile",
        "descriptor 99999: closed meanwhile, or without a name",
        "thread -1",
    ]
    end_children(gone)


def test_children_are_found_on_every_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the kernel does not list children, psutil finds them; here they are none."""
    assert leak_gate._listed_children() == frozenset()
    (tmp_path / "1").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(leak_gate, "_TASKS", str(tmp_path))
        assert leak_gate._listed_children() == frozenset()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Resources.now().children == frozenset()
