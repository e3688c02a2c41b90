"""The fuzz journal: classes of failures, merging, ranking, budgets."""

from __future__ import annotations

import itertools
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.fuzz.budget import in_words, seconds_of
from dspex_testkit.fuzz.failure import Failure, failure_of, plain_text
from dspex_testkit.fuzz.files import read_journal, write_entry, write_run
from dspex_testkit.fuzz.fuzzer import Asked, Fuzzer
from dspex_testkit.fuzz.hunter import Hunter
from dspex_testkit.fuzz.journal import Entry, Example, Journal, RunRecord
from dspex_testkit.fuzz.messages import Checked, Found, Order, decode
from dspex_testkit.fuzz.note import note_of
from dspex_testkit.simulation.explore import Explorer
from dspex_testkit.simulation.run import Setup
from dspex_testkit.simulation.schedulers import Schedule
from dspex_testkit.simulation.workload import Case, to_token

if TYPE_CHECKING:
    from pathlib import Path

    from dspex_testkit.simulation.world import World


def entry(
    text: str, size: tuple[int, ...], day: int, seeds: dict[str, int], *, flaky: int = 0, passed: int = 0
) -> Entry:
    """Return an entry as a run of one day left it."""
    return Entry(
        failure=Failure("AssertionError", text, "pool.py in checkin"),
        test="tests/test_pool.py::test_pool",
        example=Example(size=size, token="S1.x", replay='pytest "t" --dspex-replay=S1.x', text="a\n```\nb"),
        first_seen=f"2026-11-{day:02}T00:00:00Z",
        last_seen=f"2026-11-{day:02}T00:00:00Z",
        seeds=seeds,
        flaky={run: flaky for run in seeds if flaky},
        passed_at=f"2026-11-{passed:02}T00:00:00Z" if passed else "",
    )


def run(name: str, seconds: float) -> RunRecord:
    """Return the record of a run."""
    return RunRecord(run=name, began="", seed=1, seconds=seconds, cpu=1.0, played={"t": int(seconds)})


def contents(journal: Journal) -> tuple[object, ...]:
    """Return all that is in a journal."""
    return dict(sorted(journal.entries.items())), dict(sorted(journal.runs.items()))


def test_merge_comes_to_the_same_in_any_order_and_however_often() -> None:
    """The smallest example stays, times span all, and what was counted on two machines is added once."""
    journals = [
        Journal([entry("a", (3, 1, 0), 4, {"r-1": 2})], [run("r-1", 5.0)]),
        Journal([entry("a", (2, 9, 9), 2, {"r-2": 5}), entry("b", (1,), 1, {"r-2": 1})], [run("r-2", 9.0)]),
        Journal([entry("a", (4,), 8, {"r-1": 3}, flaky=1)], [run("r-1", 7.0)]),
    ]

    def merged(*parts: Journal) -> Journal:
        whole = Journal()
        for part in parts:
            whole.merge(part)
        return whole

    first = merged(*journals)
    for order in itertools.permutations(journals):
        one, two, three = order
        assert contents(merged(one, merged(two, three), one)) == contents(first)
    same = next(each for each in first.entries.values() if each.failure.text == "a")
    assert (same.example.size, same.first_seen[:10], same.last_seen[:10]) == (
        (2, 9, 9),
        "2026-11-02",
        "2026-11-08",
    )
    assert same.seeds == {"r-1": 3, "r-2": 5}
    assert first.runs["r-1"].seconds == 7.0


def test_flaky_failures_come_first_and_mended_ones_last() -> None:
    """The same seed with two outcomes is an error of the harness, which makes all other findings doubtful."""
    journal = Journal(
        [
            entry("mended", (1,), 1, {"r": 99}, passed=9),
            entry("rare", (1,), 1, {"r": 1}),
            entry("often", (1,), 1, {"r": 50}),
            entry("flaky", (9,), 1, {"r": 1}, flaky=1),
        ]
    )
    assert [each.failure.text for each in journal.ranked()] == ["flaky", "often", "rare", "mended"]
    assert "comes before all others" in note_of(journal.ranked()[0])


def test_failure_seen_again_after_it_passed_is_open_again() -> None:
    """That an example passed says nothing about what was found later."""
    passed = entry("a", (1,), 1, {"r": 1}, passed=3)
    assert not passed.is_open
    assert passed.merged(entry("a", (1,), 5, {"s": 1})).is_open


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "worker 3 is lent to call 4 while call 5 has it",
            "worker 11 is lent to call 40 while call 1 has it",
        ),
        ("overtaken in line: Call(number=1) by 2", "overtaken in line: Call(number=7, at=3) by 9"),
        ("Q1: a worker is not settled\nassert 1 == 0", "Q1: a worker is not settled\nassert 2 == 0"),
    ],
)
def test_failures_of_one_class_say_the_same_beside_figures(one: str, other: str) -> None:
    """Numbers, names of calls and compared values differ by seed and make no class of their own."""
    assert plain_text(one) == plain_text(other)


def test_classes_are_told_apart_by_invariant_by_named_error_and_by_place() -> None:
    """Two invariants, two errors that a call met, and two places are two classes each; their files have two names."""
    texts = [
        "Q1: somebody still waits",
        "Q1: a worker is not settled",
        "unlawfully: 'WorkerDiedError'",
        "unlawfully: 'CallTimeoutError'",
    ]
    assert len({plain_text(text) for text in texts}) == len(texts)

    def place(function: str) -> Failure:
        scope: dict[str, object] = {}
        exec(compile(f"def {function}(): raise KeyError(28)", "shop/pool.py", "exec"), scope)
        with pytest.raises(KeyError) as caught:
            exec(f"{function}()", scope)
        return failure_of(caught.value)

    assert place("checkin") == place("checkin") == Failure("KeyError", "#", "shop/pool.py in checkin")
    assert place("checkin").key != place("checkout").key


def test_note_says_how_to_have_it_again_and_cannot_be_broken_by_its_text() -> None:
    """The text of an issue has a title, the line to type, and fences that no message closes."""
    note = note_of(entry("lost", (1,), 1, {"r": 1}))
    assert note.startswith("# AssertionError: lost (test_pool)\n")
    assert '```console\npytest "t" --dspex-replay=S1.x\n```' in note
    assert "````text\na\n```\nb\n````" in note


def test_budget_is_a_time_with_a_unit() -> None:
    """Seconds, minutes, hours; anything else is refused with an example of what is meant.

    A number that is too large for a float was taken for a budget without end, which no process could be told.
    """
    assert [seconds_of(text) for text in ("90", "30s", "10m", "1.5h")] == [90.0, 30.0, 600.0, 5400.0]
    assert [in_words(seconds) for seconds in (0.5, 30.0, 600.0, 5400.0)] == ["0.5 s", "30 s", "10 m", "1.5 h"]
    for text in ("", "soon", "-3m", "0s", "10d", "3m5s", "9" * 400):
        with pytest.raises(ValueError, match="30s, 10m or 2h"):
            seconds_of(text)


def test_journal_that_cannot_be_written_is_told_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told when the budget was used up, and what had been found was lost."""
    played: list[int] = []

    async def lane(_: Fuzzer, number: int) -> None:
        played.append(number)

    monkeypatch.setattr(Fuzzer, "_lane", lane)
    journal = tmp_path / "journal"
    journal.symlink_to(tmp_path / "gone" / "away")
    asked = Asked(tests=(), budget=60.0, journal=journal, seed=1, workers=1, canary="")
    with pytest.raises(OSError, match="journal"):
        trio.run(Fuzzer(asked).fuzz)
    assert not played


def test_full_disk_is_told_with_the_file_and_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The error said that no space was left, and not where; half a file stayed on the full disk."""
    write_run(tmp_path, run("r", 1.0))
    part = tmp_path / "runs" / "r.json.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_run(tmp_path, run("r", 2.0))
    assert caught.value.filename == str(tmp_path / "runs" / "r.json")
    assert read_journal(tmp_path).runs["r"].seconds == 1.0
    assert not part.is_symlink()


def test_example_that_fails_in_another_way_has_not_passed(tmp_path: Path) -> None:
    """What it fails by is a finding of its own, and what it failed by before stays open.

    It was told to pass since then, and the run, if no other case came to that failure, to have found nothing.
    """

    async def fail_once(world: World) -> None:
        if world.case.seed == 7:
            raise LookupError("in another way")

    known = entry("before", (0, 0, 0), 1, {"r": 1})
    token = to_token(Case(seed=7))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as told:
        with os.fdopen(writer, "wb", 0):
            order = Order(descriptor=writer, seed=1, until=0.0, examples={known.test: {known.key: token}})
            asked: Any = SimpleNamespace(nodeid=known.test)
            Hunter(order)(Explorer(Setup(fail_once), range(1)), asked)
        messages = [decode(line) for line in told]
    fuzzer = Fuzzer(Asked(tests=(), budget=1.0, journal=tmp_path, seed=1, workers=1, canary=""))
    fuzzer.journal.note(known)
    for message in messages:
        fuzzer._hear(message, 0)
    assert [type(message) for message in messages[:2]] == [Checked, Found]
    assert {one.failure.error: one.is_open for one in fuzzer.journal.entries.values()} == {
        "AssertionError": True,
        "LookupError": True,
    }
    assert len(fuzzer.found) == 1


@pytest.mark.parametrize("token", ["S1.eNqb", "S0.x", to_token(Case(schedule=Schedule("luck")))])
def test_example_that_no_process_could_play_is_told_with_its_file(tmp_path: Path, token: str) -> None:
    """A run of the fuzzer ended with the traceback of a process that tried, and did not say which file to look at."""
    bad = entry("bad", (0,), 1, {"r": 1})
    write_entry(tmp_path, replace(bad, example=replace(bad.example, token=token)))
    with pytest.raises(InvalidArgumentError, match=rf"{bad.key}\.json cannot be played: "):
        read_journal(tmp_path)
