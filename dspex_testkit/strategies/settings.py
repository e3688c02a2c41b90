"""Settings of a pool: valid ones, invalid ones with what is wrong about them, and small ones for simulations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from dspex_pool.config import PoolConfig, PoolOptions
from dspex_pool.config.rules import (
    LONGEST_SECONDS,
    Choice,
    Flag,
    Pairs,
    Rule,
    Seconds,
    SecondsRange,
    Text,
    Whole,
    Words,
)
from dspex_pool.config.settings import Setting, settings_of
from dspex_pool.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Invalid",
    "invalid_settings",
    "pool_configs",
    "pool_options",
    "pool_settings",
    "simulated_settings",
]

_TEXTS_BY_FORM = {
    "any": ["python3", "a b", "ü", "-"],
    "class": ["my.work:Handler", "m:C", "m.n:Outer.Inner"],
    "store": ["memory", "sqlite:a.db", "sqlite:/a b/c.db"],
}


@dataclass(frozen=True, slots=True)
class Invalid:
    """Settings of which at least one must be refused."""

    #: The settings.
    settings: Mapping[str, Any]
    #: The settings of which one is to blame.
    keys: tuple[str, ...]
    #: What is wrong: ``type``, ``range``, ``missing``, ``conflict`` or ``unknown``.
    reason: str


# --- valid --------------------------------------------------------------------------------------------------


def _whole(rule: Whole) -> st.SearchStrategy[Any]:
    high = rule.high if rule.high is not None else 2**63
    return st.integers(rule.low, min(high, rule.low + 20)) | st.sampled_from([rule.low, high])


def _seconds(_: Rule) -> st.SearchStrategy[Any]:
    edges = st.sampled_from([0.5, 1, 2.0, 10, 30.0, 3600.0, LONGEST_SECONDS, 5e-324])
    return edges | st.floats(0, LONGEST_SECONDS, exclude_min=True)


def _words(rule: Words) -> st.SearchStrategy[Any]:
    return st.lists(st.sampled_from(_TEXTS_BY_FORM["any"]), min_size=rule.least, max_size=3).map(tuple)


#: Values by the kind of rule, all of which it takes.
_VALID: dict[type[Rule], Any] = {
    Flag: lambda rule: st.booleans(),
    Whole: _whole,
    Seconds: _seconds,
    SecondsRange: lambda rule: st.tuples(_seconds(rule), _seconds(rule)).map(lambda two: tuple(sorted(two))),
    Choice: lambda rule: st.sampled_from(rule.words),
    Text: lambda rule: st.sampled_from(_TEXTS_BY_FORM[rule.form]),
    Words: _words,
    Pairs: lambda rule: st.dictionaries(
        st.sampled_from(["A", "HTTP_PROXY", "ü"]), st.sampled_from(["", "1=2", "x"])
    ),
}


def _values_of(setting: Setting) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any] = _VALID[type(setting.rule)](setting.rule)
    return st.none() | values if setting.is_optional else values


def pool_settings(kind: type[PoolOptions] = PoolConfig) -> st.SearchStrategy[dict[str, Any]]:
    """Draw settings that go together, as keywords for ``kind``. Absent ones are at their default.

    They may ask for more workers than a machine has; to run a pool, take ``simulated_settings``.
    """
    optional = {name: _values_of(setting) for name, setting in settings_of(kind).items()}
    return st.fixed_dictionaries({}, optional=optional).map(lambda drawn: _agreeing(kind, drawn))


def _agreeing(kind: type[PoolOptions], drawn: dict[str, Any]) -> dict[str, Any]:
    """Leave out what contradicts the rest."""
    while True:
        try:
            kind(**drawn)
        except InvalidConfigError as error:
            # Each is fine alone, so one of two that contradict is to blame, and can be left out.
            drawn = {name: value for name, value in drawn.items() if name != error.key}
        else:
            return drawn


def pool_options() -> st.SearchStrategy[PoolOptions]:
    """Draw options of a pool's core."""
    return pool_settings(PoolOptions).map(lambda drawn: PoolOptions(**drawn))


def pool_configs() -> st.SearchStrategy[PoolConfig]:
    """Draw whole configurations."""
    return pool_settings(PoolConfig).map(lambda drawn: PoolConfig(**drawn))


#: Few workers, and times on a coarse grid, the pool's own among them: only so do events coincide.
_SIMULATED: dict[str, st.SearchStrategy[Any]] = {
    "max_overflow": st.integers(1, 2),
    "overflow_ttl": st.just(5.0),
    "min_idle": st.integers(0, 1),
    "max_starting": st.integers(1, 3),
    "spawn_timeout": st.just(10.0),
    "breaker_after": st.sampled_from([2.0, 10.0]),
    "max_waiting": st.integers(1, 3),
    "codel_target": st.just(1.0),
    "idle_order": st.sampled_from(["lifo", "fifo"]),
    "health_check_interval": st.just(10.0),
    "max_idle_pings": st.just(1),
    "idle_timeout": st.just(5.0),
    "max_lifetime": st.just((30.0, 60.0)),
    "max_uses": st.integers(1, 3),
    "max_rss_bytes": st.just(1000),
    "lease_timeout": st.just(10.0),
    "leak_warning_after": st.just(5.0),
    "cancel_grace": st.just(2.0),
    "max_sessions": st.integers(1, 2),
    "session_ttl": st.just(10.0),
}


def simulated_settings() -> st.SearchStrategy[dict[str, Any]]:
    """Draw settings of small pools for simulations: at most 3 workers and 2 beyond, all times on one coarse grid."""
    return st.fixed_dictionaries(
        {"pool_size": st.integers(1, 3), "lazy": st.booleans()}, optional=dict(_SIMULATED)
    )


# --- invalid ------------------------------------------------------------------------------------------------

#: Values that no rule takes, as far as they are not of its own type.
_FOREIGN: tuple[Any, ...] = (object, b"1", 1.5, "1", [], {1: 2}, ("a", "b", "c"), True, 7)
_NATIVE: dict[type[Rule], tuple[type, ...]] = {
    Flag: (bool,),
    Whole: (int,),
    Seconds: (int, float),
    SecondsRange: (list, tuple),
    Choice: (str,),
    Text: (str,),
    Words: (list, tuple),
    Pairs: (dict,),
}
_NO_SECONDS = (0, -1.0, math.inf, math.nan, LONGEST_SECONDS * 2, 10**400)
_OUT_OF_RANGE: dict[type[Rule], tuple[Any, ...]] = {
    Seconds: _NO_SECONDS,
    SecondsRange: ((2.0, 1.0), (1.0,), (0, 1), (1.0, math.inf)),
    Choice: ("", "LIFO", "random"),
    Text: ("", " ", "a\0b"),
    Words: ((" ",), ("a", 3), ("a\0",)),
    Pairs: ({"A": 1}, {"A=B": "x"}, {"": "x"}, {"A": "\0"}),
}
#: Pairs that are fine alone and not together.
_CONFLICTS: tuple[dict[str, Any], ...] = (
    {"backoff_min": 5.0, "backoff_max": 4.0},
    {"min_idle": 3, "pool_size": 2},
    {"terminate_grace": 9.0, "close_timeout": 8.5},
    {"leak_warning_after": 2.0, "lease_timeout": 1.0},
    {"lazy": True, "max_waiting": 0},
    {"command": ("worker",), "python": "python3"},
    {"command": ("worker",), "handler": "m:C"},
    {"command": ("worker",), "allow": ("m",)},
)


def _wrong_values(setting: Setting) -> list[tuple[Any, str]]:
    kind = type(setting.rule)
    wrong = [
        (value, "type")
        for value in _FOREIGN
        if not isinstance(value, _NATIVE[kind]) or (isinstance(value, bool) and kind is not Flag)
    ]
    wrong += [(value, "range") for value in _OUT_OF_RANGE.get(kind, ())]
    if isinstance(setting.rule, Whole):
        high = setting.rule.high
        wrong += [(setting.rule.low - 1, "range"), *([(high + 1, "range")] if high is not None else [])]
    return wrong if setting.is_optional else [*wrong, (None, "missing")]


def invalid_settings(kind: type[PoolOptions] = PoolConfig) -> st.SearchStrategy[Invalid]:
    """Draw settings for ``kind`` of which at least one is refused, and say which and why.

    ``Invalid.reason`` is ``type``, ``range``, ``missing`` (no value where one is needed), ``conflict`` (two that are
    fine alone), or ``unknown`` (no such setting, which ``kind.replace`` and ``kind.load`` refuse).
    """
    known = settings_of(kind)
    alone = [
        Invalid({name: value}, (name,), reason)
        for name, setting in known.items()
        for value, reason in _wrong_values(setting)
    ]
    together = [Invalid(pair, tuple(pair), "conflict") for pair in _CONFLICTS if pair.keys() <= known.keys()]
    unknown = st.sampled_from(["pool_sise", "poolsize", "timeout", ""]).map(
        lambda name: Invalid({name: 1}, (name,), "unknown")
    )
    return st.sampled_from(alone) | st.sampled_from(together) | unknown
