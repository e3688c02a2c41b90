"""What is told of a class of failures: a text in Markdown that can be pasted into an issue as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex_testkit.fuzz.journal import Entry

__all__ = ["note_of"]


def note_of(entry: Entry) -> str:
    """Return the text about ``entry``: what broke, how to have it again, the smallest run, its picture, versions."""
    example = entry.example
    parts = [
        f"# {entry.failure.title} ({entry.test.rpartition('::')[2]})",
        *([_FLAKY.format(count=sum(entry.flaky.values()))] if entry.is_flaky else []),
        f"`{entry.test}` fails in {entry.failure.place or 'an unknown place'}:",
        fenced(example.text.strip() or entry.failure.error),
        "## To have it again",
        fenced(example.replay, "console"),
        "The smallest run so far:",
        fenced("\n".join(example.story)) if example.story else "",
        *(["## What happened", fenced(example.picture)] if example.picture else []),
        "## Seen",
        _seen(entry),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _seen(entry: Entry) -> str:
    passed = f"; the example passed at {entry.passed_at}" if entry.passed_at else ""
    versions = ", ".join(f"{name} {version}" for name, version in entry.example.versions.items())
    return (
        f"* by {sum(entry.seeds.values())} seeds in {len(entry.seeds)} runs of the fuzzer,\n"
        f"* first at {entry.first_seen}, last at {entry.last_seen}{passed},\n"
        f"* with {versions}."
    )


def fenced(text: str, language: str = "text") -> str:
    """Return a block of code that ``text`` cannot end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


_FLAKY = (
    "**Flaky**: {count} times the same seed, played again, ended in another way. A simulated run depends on its seed "
    "alone, so this is an error of the test or of the harness, and comes before all others."
)
