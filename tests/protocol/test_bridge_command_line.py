"""The worker's command line: what is read at once is what argparse would have read."""

from __future__ import annotations

import pytest

from dspex_pool.bridge import command_line
from dspex_pool.bridge.command_line import parse_arguments
from tests.cases import case

EVERYTHING = (
    *("--mode", "pool-worker", "--worker-id", "w-1", "--handler", "a.b:C"),
    *("--allow", "x", "--allow", "y.z", "--max-frame-bytes", "2048"),
)
PLAIN: tuple[tuple[str, ...], ...] = (
    (),
    EVERYTHING,
    ("--worker-id", ""),
    ("--worker-id", "a=b c"),
    ("--mode", "pool-worker", "--mode", "standalone"),
    ("--max-frame-bytes", "1024"),
    ("--max-frame-bytes", "4294967295"),
)


def without_argparse() -> None:
    """Stand in for what only a command line of another form may ask for."""
    raise AssertionError("argparse was asked")


def test_plain_command_line_is_read_as_argparse_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way in which the pool writes it, and all that it may write, without argparse."""
    for words in PLAIN:
        with case(words):
            thorough = vars(command_line._parse(words))
            with monkeypatch.context() as patch:
                patch.setattr(command_line, "_parser", without_argparse)
                assert vars(parse_arguments(words)) == thorough


def test_plain_command_line_says_everything() -> None:
    """Each option arrives, the repeated one with all its values."""
    assert vars(parse_arguments(EVERYTHING)) == {
        "mode": "pool-worker",
        "worker_id": "w-1",
        "handler": "a.b:C",
        "allow": ["x", "y.z"],
        "max_frame_bytes": 2048,
    }


def test_other_forms_are_read_too() -> None:
    """People write ``--name=value``, and shorten names."""
    told = parse_arguments(["--mode=pool-worker", "--worker", "w-1", "--allow=x", "--max-frame-bytes=2048"])
    assert (told.mode, told.worker_id, told.allow, told.max_frame_bytes) == (
        "pool-worker",
        "w-1",
        ["x"],
        2048,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--mode",),
        ("--mode", "other"),
        ("--handler", "--mode", "x", "standalone"),
        ("--max-frame-bytes", "1023"),
        ("--max-frame-bytes", "4294967296"),
        # It was a ValueError with a traceback: too many digits for a number.
        ("--max-frame-bytes", "9" * 5000),
        ("--nothing", "x"),
        ("stray",),
    ],
)
def test_wrong_command_line_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """By argparse, in its words and with its status."""
    with pytest.raises(SystemExit) as caught:
        parse_arguments(words)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err
