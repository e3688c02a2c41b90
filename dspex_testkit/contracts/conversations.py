"""Conversations with a pool, drawn from a seed: what is asked, in which trouble. Plain data."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dspex_testkit.plan import Plan
from dspex_testkit.plan_json import plan_to_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LIMIT", "Turn", "conversation", "program_conversation"]

#: Seconds of a call that is to end by its timeout; the same on every kind of port.
LIMIT: Final = 0.05

Dice: TypeAlias = random.Random


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that is asked of a pool, or done to it."""

    #: The command; ``kill`` ends the worker from outside, while it is idle.
    command: str
    args: dict[str, Any] = field(default_factory=dict)
    #: Whose call it is; ``None`` for nobody's.
    session: str | None = None
    #: Seconds for the call; ``None`` for as long as it takes.
    timeout: float | None = None
    #: Whether the call may be repeated.
    idempotent: bool = False
    #: How often it is called at once.
    times: int = 1


def conversation(seed: int, number: int, *, trouble: float = 0.1) -> list[Turn]:
    """Draw one conversation of three to eight turns.

    Args:
        seed: The seed of all.
        number: Which one of them.
        trouble: Share of the turns that cost a worker.
    """
    dice = random.Random(f"{seed}/{number}")
    sessions = [f"s{number}", f"t{number}"]
    turns = [Turn("reset_state")]
    for _ in range(dice.randint(3, 8)):
        kinds = _DEADLY if dice.random() < trouble else _HARMLESS
        turns.append(dice.choice(kinds)(dice, dice.choice(sessions)))
    return turns


def program_conversation(seed: int, number: int) -> list[Turn]:
    """Draw one conversation about programs alone, as every bridge for DSPy understands it."""
    dice = random.Random(f"{seed}/programs/{number}")
    sessions = [f"s{number}", f"t{number}"]
    # For all sessions: one that is cleaned up loses its own.
    model = Turn("configure_lm", dict(_MODEL))
    return [model, *(_program(dice, dice.choice(sessions)) for _ in range(dice.randint(6, 12)))]


#: A model that needs no network; see ``dspex_pool.bridge.extractive``.
_MODEL: Final = {"model": "dspex/extractive", "engine": "extractive"}


# --- values --------------------------------------------------------------------------------------------------


def _value(dice: Dice, depth: int = 2) -> Any:
    leaves: list[Callable[[], Any]] = [
        lambda: None,
        lambda: dice.random() < 0.5,
        lambda: dice.choice([0, 1, -1, 2**53, -(2**31), dice.randrange(10**6)]),
        lambda: dice.choice([0.5, -1e-9, 1e300]),
        lambda: dice.choice(["", "plain", "ü 語 🙂", 'quo"te\\', "line\nbreak", "\u0000", "x" * 3000]),
    ]
    if depth and dice.random() < 0.4:
        if dice.random() < 0.5:
            return [_value(dice, depth - 1) for _ in range(dice.randrange(4))]
        return {f"k{number}": _value(dice, depth - 1) for number in range(dice.randrange(4))}
    return dice.choice(leaves)()


# --- harmless turns --------------------------------------------------------------------------------------------


def _echo(dice: Dice, session: str) -> Turn:
    return Turn("echo", {"value": _value(dice)}, dice.choice([session, None]))


def _burst(dice: Dice, session: str) -> Turn:
    return Turn("echo", {"value": _value(dice)}, dice.choice([session, None]), times=dice.randint(2, 6))


def _failing(dice: Dice, session: str) -> Turn:
    kind = dice.choice(["ValueError", "KeyError", "RuntimeError", "TimeoutError", "OSError"])
    facts = {"code": "E7", "status": 429, "retry_after": 2.5, "retryable": True}
    chosen = {name: facts[name] for name in dice.sample(sorted(facts), dice.randrange(4))}
    return Turn(
        "raise_error", {"type": kind, "message": dice.choice(["no", "ü\n🙂"]), "facts": chosen}, session
    )


def _unanswerable(dice: Dice, session: str) -> Turn:
    kind = dice.choice(["nan", "set", "key", "object"])
    return Turn("nan" if kind == "nan" else "unencodable", {"kind": kind})


def _unknown(dice: Dice, session: str) -> Turn:
    return Turn(dice.choice(["no_such_command", "", "Echo", "ü"]), {}, dice.choice([session, None]))


def _program(dice: Dice, session: str) -> Turn:
    program = dice.choice(["p", "p", "q", "never made"])
    signature = dice.choice(["a -> b", "a, c -> b: int, d", "question -> answer", "nonsense", "", 7])
    inputs: Any = dice.choice([{"a": "x"}, {"a": "x", "c": "y"}, {"question": "why?"}, {}, {"z": 1}, "text"])
    choices: list[tuple[str, dict[str, Any]]] = [
        ("create_program", {"id": program, "signature": signature}),
        ("create_program", {"id": program, "signature": "a -> b", "program_type": "chain_of_thought"}),
        ("create_program", {"id": program, "signature": "a -> b", "program_type": "divination"}),
        ("create_program", {"signature": "a -> b"}),
        ("execute_program", {"program_id": program, "inputs": inputs}),
        ("execute_program", {"program_id": program, "inputs": {"a": "x"}}),
        ("list_programs", {}),
        ("get_program_info", {"program_id": program}),
        ("delete_program", {"program_id": program}),
        ("dump_program", {"program_id": program}),
        ("load_program", {"program_id": program, "definition": {"signature": "a -> c"}}),
        ("load_program", {"program_id": program}),
        ("configure_lm", dict(_MODEL)),
        ("configure_lm", {}),
        ("cleanup_session", {}),
    ]
    command, args = dice.choice(choices)
    return Turn(command, args, session)


def _made(dice: Dice, session: str) -> Turn:
    return Turn("create_program", {"id": "p", "signature": "a -> b"}, session)


def _planned(plan: Plan, **options: Any) -> Turn:
    return Turn("do", {"steps": plan_to_json(plan)}, **options)


def _well(dice: Dice, session: str) -> Turn:
    plans = [
        Plan().reply(_value(dice)),
        Plan().fail("as planned", type=dice.choice(["ValueError", "RateLimitError"]), status=429),
        Plan().after(0.01).reply("late"),
        Plan().event("progress", {"done": 1}).event("chunk", {"text": "a"}).reply("told"),
        Plan().stderr("a word\n").reply(None),
    ]
    return _planned(dice.choice(plans))


def _slow(dice: Dice, session: str) -> Turn:
    """A call that is given up in time, and stopped by an interrupt: the worker lives on."""
    return dice.choice(
        [Turn("sleep", {"seconds": 60}, timeout=LIMIT), _planned(Plan().stall(), timeout=LIMIT)]
    )


# --- turns that cost a worker ----------------------------------------------------------------------------------


def _killed(dice: Dice, session: str) -> Turn:
    return Turn("kill")


def _dying(dice: Dice, session: str) -> Turn:
    ways = [
        Turn("exit", {"code": dice.choice([0, 1, 3, 42])}),
        Turn("crash", {}, session),
        _planned(Plan().send_partial_frame(10, "half").die(code=1)),
        _planned(Plan().send_partial_frame(2).die(signal=9)),
        Turn("crash", {}, session, idempotent=True),
    ]
    return dice.choice(ways)


def _broken(dice: Dice, session: str) -> Turn:
    ways = [
        Plan().garbage(),
        Plan().garbage(b"\0\0\0\x05nope!"),
        Plan().oversize(2**32 - 1),
        Plan().reply("wrong", request_id=2**31),
        Plan().reply("once").duplicate(),
        Plan().reply("once").garbage(b"!"),
    ]
    return _planned(dice.choice(ways))


def _deaf(dice: Dice, session: str) -> Turn:
    return _planned(dice.choice([Plan().stall(deaf=True), Plan()]), timeout=LIMIT)


_HARMLESS: Final = (_echo, _burst, _failing, _unanswerable, _unknown, _program, _program, _made, _well, _slow)
_DEADLY: Final = (_killed, _dying, _broken, _deaf)
