"""Whether kinds of port differ: the same conversations on each, and what came of every turn laid side by side.

What is compared, turn by turn: whether it was answered; the answer, and after how many tries; or the error's class,
its text, and what it knows of the failure (type, code, status, retry, exit status and signal, whether the request was
sent). Afterwards: which commands were sent to which worker, and how many workers were started and lost.

What is not: times, process ids and versions, which no two workers share; a traceback, which a worker without a
process has not got; a worker's last words, which travel on a pipe of their own and may come after the error; when the
pool's housekeeping tells a worker to forget a session, which depends on the clock; and, for that reason, a
worker's own count of its commands.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_pool.errors import DspexPoolError
from dspex_testkit.ports.run import WANTED, BodyRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dspex_testkit.contracts.conversations import Turn
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.ports.run import MakePool

__all__ = ["DifferenceError", "Played", "compare", "of_programs", "play_all", "played_on"]

#: Settings of a pool in which each conversation has one course only.
ONE_WORKER: Final[Mapping[str, Any]] = {"pool_size": 1, "cancel_grace": 1.0, "terminate_grace": 0.2}

_FACTS: Final = (
    *("type", "code", "status", "retry_after", "retryable", "attempts", "request_sent"),
    *("exit_status", "signal", "session_id", "program_id", "argument"),
)
#: Fields of results that no two workers share.
_VOLATILE: Final = frozenset(
    (
        "timestamp",
        "uptime",
        "pid",
        "versions",
        "created_at",
        "last_executed",
        "execution_time",
        "memory_usage",
    )
) | {"commands_reset", "errors_reset", "command_count", "error_count"}
#: Fields of results that only DSPy can fill.
_OF_DSPY: Final = frozenset({"usage", "cost", "cost_reason", "state"})
_VOLATILE_TEXT: Final = (
    (re.compile(r"pid (?:\d+|None)"), "pid N"),
    (re.compile(r"\bid \d+"), "id N"),
    (re.compile(r"\d+(?:\.\d+)?(?:e-\d+)? s\b"), "T s"),
    # An answer's length, and its end, are those of its time stamp.
    (re.compile(r"\d+ bytes missing"), "N bytes missing"),
    (re.compile(r'"timestamp":[\d.]*'), '"timestamp":T'),
    (re.compile(r"\.? ?Its last words: .*", re.DOTALL), ""),
)


class DifferenceError(AssertionError):
    """Two kinds of port came to different ends."""


@dataclass(slots=True)
class Played:
    """What came of a conversation."""

    #: One line for each turn, and one for each call of a turn that is called several times.
    outcomes: list[Any] = field(default_factory=list)
    #: What was sent to workers, and what became of them.
    aftermath: dict[str, Any] = field(default_factory=dict)


def told(value: Any) -> Any:
    """Return a result without what no two workers share."""
    if isinstance(value, dict):
        return {name: told(inner) for name, inner in value.items() if name not in _VOLATILE}
    return [told(inner) for inner in value] if isinstance(value, list) else value


def text_of(error: DspexPoolError) -> str:
    """Return an error's text without what no two workers share."""
    text = str(error)
    for pattern, instead in _VOLATILE_TEXT:
        text = pattern.sub(instead, text)
    return text


def outcome_of(ended: Any) -> list[Any]:
    """Return what is compared of a call's answer or error."""
    if isinstance(ended, DspexPoolError):
        facts = {name: getattr(ended, name, None) for name in _FACTS}
        return [
            type(ended).__name__,
            text_of(ended),
            {name: fact for name, fact in facts.items() if fact is not None},
        ]
    return ["answered", told(ended.result), ended.attempts]


def of_programs(outcome: Any) -> Any:
    """Return what canned programs and DSPy's must have in common: all but the outputs' texts, cost and state."""
    if isinstance(outcome, dict):
        kept = {name: value for name, value in outcome.items() if name not in _OF_DSPY}
        if isinstance(outputs := kept.get("outputs"), dict):
            kept["outputs"] = {name: type(value).__name__ for name, value in outputs.items()}
        return kept
    return [of_programs(inner) for inner in outcome] if isinstance(outcome, list) else outcome


async def play(pool: PoolHandle, turns: Sequence[Turn]) -> Played:
    """Have one conversation with a pool of one worker.

    Cancellation: The conversation ends.
    """
    played = Played()
    before = Counter(_numbers(pool))
    pool.ports.forget_heard()
    for turn in turns:
        if turn.command == "kill":
            await _kill(pool)
            continue
        options = {"session": turn.session, "timeout": turn.timeout, "idempotent": turn.idempotent}
        for _ in range(turn.times if turn.times == 1 else 0):
            played.outcomes.append(await _call(pool, turn, options))
        if turn.times > 1:
            ended = await pool.call_many(turn.times, turn.command, turn.args, callers=turn.times, **options)
            played.outcomes += [outcome_of(each) for each in ended]
    await pool.until(lambda: pool.statistics().idle == 1 == pool.statistics().processes, "the worker is back")
    lost = {name: count - before[name] for name, count in _numbers(pool).items() if count != before[name]}
    sent = [line for line in pool.ports.heard if not line.endswith("cleanup_session")]
    played.aftermath = {"sent": sent, "workers": lost}
    return played


async def _call(pool: PoolHandle, turn: Turn, options: Mapping[str, Any]) -> list[Any]:
    try:
        return outcome_of(await pool.call(turn.command, turn.args, **options))
    except DspexPoolError as error:
        return outcome_of(error)


async def _kill(pool: PoolHandle) -> None:
    await pool.until(lambda: pool.statistics().idle == 1, "the worker is idle")
    reaped = pool.statistics().counters.reaped
    pool.kill()
    await pool.until(lambda: pool.statistics().counters.reaped > reaped, "the killed worker is reaped")


def _numbers(pool: PoolHandle) -> dict[str, int]:
    counters = pool.statistics().counters
    names = ("starts", "start_failures", "reaped")
    return {name: getattr(counters, name) for name in names}


def play_all(
    port: str, conversations: Sequence[Sequence[Turn]], *, lanes: int = 4, **settings: Any
) -> list[Played]:
    """Have conversations on one kind of port, on several pools of one worker each.

    Args:
        port: Name of the kind.
        conversations: What is asked; a pool has every ``lanes``-th of them.
        lanes: How many pools there are, side by side.
        settings: Further settings of the pools, and of their workers.
    """
    played: dict[int, Played] = {}

    async def lane(pool: PoolHandle, first: int) -> None:
        for number in range(first, len(conversations), lanes):
            played[number] = await play(pool, conversations[number])
        pool.ports.assert_clean()

    async def body(make_pool: MakePool) -> None:
        async with trio.open_nursery() as nursery:
            for first in range(min(lanes, len(conversations))):
                nursery.start_soon(lane, await make_pool(**{**ONE_WORKER, **settings}), first)

    BodyRun(port, hung_after=600.0).run(body, {"make_pool": WANTED["make_pool"]})
    return [played[number] for number in range(len(conversations))]


def played_on(ports: Sequence[str], conversations: Sequence[Sequence[Turn]]) -> dict[str, list[Played]]:
    """Have the same conversations on several kinds of port."""
    return {port: play_all(port, conversations) for port in ports}


def compare(
    conversations: Sequence[Sequence[Turn]],
    played: Mapping[str, Sequence[Played]],
    *,
    view: Callable[[Any], Any] = lambda outcome: outcome,
) -> int:
    """Lay side by side what came of the same conversations; return how many turns were compared.

    Args:
        conversations: What was asked.
        played: What came of it, by kind of port.
        view: What of each outcome is compared.

    Raises:
        DifferenceError: Something differs; with the conversation and both outcomes.
        ValueError: There are no conversations, or fewer than two kinds of port.
    """
    if len(played) < 2 or not conversations:
        where = ", ".join(played) or "no port"
        raise ValueError(f"{len(conversations)} conversations on {where}: nothing is laid side by side")
    first, *others = played
    compared = 0
    for number, turns in enumerate(conversations):
        reference = played[first][number]
        compared += len(reference.outcomes)
        for other in others:
            _compare_one(number, turns, (first, reference), (other, played[other][number]), view)
    return compared


def _compare_one(
    number: int,
    turns: Sequence[Turn],
    left: tuple[str, Played],
    right: tuple[str, Played],
    view: Callable[[Any], Any],
) -> None:
    pairs = [
        *zip(left[1].outcomes, right[1].outcomes, strict=True),
        (left[1].aftermath, right[1].aftermath),
    ]
    for mine, theirs in pairs:
        if view(mine) != view(theirs):
            asked = "\n".join(f"  {turn}" for turn in turns)
            raise DifferenceError(
                f"conversation {number} differs:\n{asked}\n  on {left[0]}: {mine}\n  on {right[0]}: {theirs}"
            )
