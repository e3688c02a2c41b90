"""Settings by name: reading the rules out of a class, checking a set of values, and the errors for people."""

from __future__ import annotations

import difflib
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from dspex_pool.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dspex_pool.config.rules import Rule

__all__ = ["Setting", "check_all", "presumed_sources", "refuse_unknown", "settings_of"]

#: Where a value came from if nobody says otherwise.
ARGUMENT = "argument"
DEFAULT = "default"

# Characters of a value that an error shows.
_LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, its default and its rule."""

    #: Name of the setting, as keyword argument and in TOML.
    name: str
    #: Value when nobody gives one.
    default: Any
    #: Whether ``None`` is allowed.
    is_optional: bool
    #: What else is allowed.
    rule: Rule

    @property
    def doc(self) -> str:
        """One sentence for people, with the unit."""
        return self.rule.doc

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return f"{self.rule.allowed}, or none" if self.is_optional else self.rule.allowed

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return f"DSPEX_POOL_{self.name.upper()}"

    def check(self, value: object, source: str) -> Any:
        """Return ``value`` in canonical form.

        Raises:
            InvalidConfigError: It is of another type or out of range.
        """
        if value is None and self.is_optional:
            return None
        try:
            return self.rule.check(value)
        except ValueError as exc:
            raise self.refusal(value, source) from exc

    def parse(self, text: str, source: str) -> Any:
        """Return the value that ``text`` stands for; ``none`` and the empty text are ``None``.

        Raises:
            InvalidConfigError: The text is no such value.
        """
        if self.is_optional and text.strip().lower() in {"", "none"}:
            return None
        try:
            return self.rule.parse(text)
        except (ValueError, RecursionError) as exc:
            raise self.refusal(text, source) from exc

    def show(self, value: object) -> str:
        """Return ``value`` as people may see it: secrets are left out."""
        return "(hidden)" if self.rule.is_secret and value else _cut(value)

    def refusal(self, value: object, source: str) -> InvalidConfigError:
        """Make the error for a value that the rule refused."""
        shown = "(hidden)" if self.rule.is_secret else value
        return InvalidConfigError(
            f"{self.name} = {self.show(value)} (from {source}) is refused: it must be {self.allowed}",
            key=self.name,
            value=shown,
            allowed=self.allowed,
            source=source,
        )


def _cut(value: object) -> str:
    # Python refuses to spell out very long whole numbers, and nobody would read them.
    if isinstance(value, int) and value.bit_length() > 1_000:
        return f"(a whole number of {value.bit_length()} bits)"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


@cache
def settings_of(kind: type[msgspec.Struct]) -> Mapping[str, Setting]:
    """Return the settings of a configuration class, by name, in the order of their definition."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        value_type, rule = typing.get_args(hints[field.name])
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        found[field.name] = Setting(field.name, default, types.NoneType in typing.get_args(value_type), rule)
    return types.MappingProxyType(found)


def presumed_sources(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> dict[str, str]:
    """Tell for each value where it must have come from: what differs from the default is an argument."""
    return {
        name: DEFAULT if _is_same(values[name], setting.default) else ARGUMENT
        for name, setting in settings_of(kind).items()
    }


def _is_same(value: object, default: object) -> bool:
    # Types first: 1 == True, and a foreign type may answer == with anything.
    return type(value) is type(default) and value == default


#: Pairs of settings of which the first may not exceed the second, with the reason.
_ORDERED = (
    ("backoff_min", "backoff_max", "delays after failed starts grow from the first to the second"),
    ("min_idle", "pool_size", "the floor cannot be above the pool's size"),
    ("terminate_grace", "close_timeout", "closing ends the workers within its own bound"),
    ("leak_warning_after", "lease_timeout", "a lease is reported before it is ended by force"),
)

#: Settings that only the built-in worker command reads.
_OF_BUILT_IN_COMMAND = ("python", "handler", "allow")


def check_all(
    kind: type[msgspec.Struct], values: Mapping[str, Any], sources: Mapping[str, str]
) -> dict[str, Any]:
    """Return all ``values`` in canonical form, each checked for itself and against the others.

    Args:
        kind: The configuration class.
        values: A value for every setting.
        sources: Where values came from; a setting that is missing here came from an argument.

    Raises:
        InvalidConfigError: A value is refused.
    """
    settings = settings_of(kind)
    checked = {
        name: setting.check(values[name], sources.get(name, ARGUMENT)) for name, setting in settings.items()
    }
    for low, high, reason in _ORDERED:
        if checked[low] is not None and checked[high] is not None and checked[low] > checked[high]:
            # A default is not to blame where the other value was given.
            if sources.get(low) == DEFAULT:
                raise _conflict(high, f"at least {low}", low, checked, sources, reason)
            raise _conflict(low, f"at most {high}", high, checked, sources, reason)
    _refuse_without_anybody(checked, sources)
    if checked.get("command") is not None:
        _refuse_without_effect(checked, sources)
    return checked


def _refuse_without_anybody(checked: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Refuse a pool that keeps no worker and lets nobody wait for one: it would serve nobody for ever."""
    if checked["min_idle"] is None:
        cause, keeps_any = "lazy", not checked["lazy"]
    else:
        cause, keeps_any = "min_idle", checked["min_idle"] > 0
    if checked["max_waiting"] == 0 and not keeps_any:
        reason = "such a pool starts a worker when somebody waits for it, and nobody may"
        raise _conflict("max_waiting", "at least 1", cause, checked, sources, reason)


def _refuse_without_effect(checked: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    if checked["start_method"] == "template":
        reason = "a template forks the built-in command, and no other"
        raise _conflict("start_method", "spawn", "command", checked, sources, reason)
    for name in _OF_BUILT_IN_COMMAND:
        if checked[name]:
            reason = "a command of your own says everything about the worker, so the other has no effect"
            raise _conflict(name, "left out where command is given", "command", checked, sources, reason)


def _conflict(
    key: str, allowed: str, other: str, values: Mapping[str, Any], sources: Mapping[str, str], reason: str
) -> InvalidConfigError:
    source, other_source = sources.get(key, ARGUMENT), sources.get(other, ARGUMENT)
    return InvalidConfigError(
        f"{key} = {_cut(values[key])} (from {source}) does not go with {other} = {_cut(values[other])} "
        f"(from {other_source}): {key} must be {allowed}; {reason}",
        key=key,
        value=values[key],
        allowed=allowed,
        source=source,
    )


def refuse_unknown(names: Iterable[str], known: Iterable[str], source: str, *, prefix: str = "") -> None:
    """Raise for the first of ``names`` that is not ``known``, with the nearest known name.

    Args:
        names: Names as given, without ``prefix``.
        known: Names that exist, in the same spelling.
        source: Where the names came from.
        prefix: What stands before each name where it came from, such as ``DSPEX_POOL_``.

    Raises:
        InvalidConfigError: A name is unknown.
    """
    candidates = list(known)
    for name in names:
        if name not in candidates:
            raise _unknown(name, candidates, source, prefix)


def _unknown(name: str, known: list[str], source: str, prefix: str) -> InvalidConfigError:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{nearest[0]}?" if nearest else f"known are {', '.join(sorted(known))}"
    return InvalidConfigError(
        f"there is no setting {prefix}{name} (from {source}); {hint}",
        key=prefix + name,
        allowed=prefix + nearest[0] if nearest else ", ".join(sorted(known)),
        source=source,
    )
