"""What a setting may be: one rule per kind of value, with its sentence for people.

A rule is written into the annotation of a setting, so that the type, the range and the sentence stand in one
place. It does two things: ``check`` takes a Python value, ``parse`` the text of an environment variable. Both
return the value in its one canonical form, or raise ``ValueError``; the caller knows the setting's name and
source and makes the error for people from them.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LONGEST_SECONDS",
    "Choice",
    "Flag",
    "Pairs",
    "Rule",
    "Seconds",
    "SecondsRange",
    "Text",
    "Whole",
    "Words",
]

# 31 years. Longer is a mistake of the unit, and infinity has a name of its own: none.
LONGEST_SECONDS = 1e9

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Rule(ABC):
    """What a setting may be.

    Args:
        doc: One sentence for people, with the unit.
    """

    #: Whether the value may hold secrets and is never shown.
    is_secret = False

    def __init__(self, doc: str) -> None:
        self.doc = doc

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What is allowed, in words that follow "must be"."""

    @abstractmethod
    def check(self, value: object) -> Any:
        """Return ``value`` in canonical form.

        Raises:
            ValueError: The value is of another type or out of range.
        """

    @abstractmethod
    def parse(self, text: str) -> Any:
        """Return the value that ``text`` stands for, checked.

        Raises:
            ValueError: The text is no such value.
        """


class Flag(Rule):
    """True or false."""

    allowed = "true or false"

    def check(self, value: object) -> bool:
        """Accept a bool and nothing else."""
        if not isinstance(value, bool):
            raise ValueError(self.allowed)
        return value

    def parse(self, text: str) -> bool:
        """Accept true, yes, on, 1 and their opposites, in any case."""
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError(self.allowed)
        return word in _TRUE


class Whole(Rule):
    """A whole number within bounds, both included."""

    def __init__(self, doc: str, *, low: int, high: int | None = None) -> None:
        super().__init__(doc)
        #: Lowest value.
        self.low = low
        #: Highest value, or ``None`` where there is no bound.
        self.high = high

    @property
    def allowed(self) -> str:
        """The bounds, in words."""
        if self.high is None:
            return f"a whole number of at least {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def check(self, value: object) -> int:
        """Accept an int, but no bool: ``pool_size=True`` is a mistake, not one worker."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(self.allowed)
        if value < self.low or (self.high is not None and value > self.high):
            raise ValueError(self.allowed)
        return value

    def parse(self, text: str) -> int:
        """Accept decimal digits."""
        return self.check(int(text))


class Seconds(Rule):
    """A duration."""

    allowed = f"a number of seconds above 0 and up to {LONGEST_SECONDS:.0f}"

    def check(self, value: object) -> float:
        """Accept a float or an int. Zero, negative, infinite and NaN are no durations."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(self.allowed)
        # Compared before the conversion, because float() of a very long int overflows.
        if not 0 < value <= LONGEST_SECONDS or math.isnan(value):
            raise ValueError(self.allowed)
        return float(value)

    def parse(self, text: str) -> float:
        """Accept a decimal number."""
        return self.check(float(text))


class SecondsRange(Rule):
    """A shortest and a longest duration."""

    allowed = f"two numbers of seconds, shortest first, above 0 and up to {LONGEST_SECONDS:.0f}"

    def __init__(self, doc: str) -> None:
        super().__init__(doc)
        self._end = Seconds(doc)

    def check(self, value: object) -> tuple[float, float]:
        """Accept two durations in order."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(self.allowed)
        low, high = self._end.check(value[0]), self._end.check(value[1])
        if low > high:
            raise ValueError(self.allowed)
        return low, high

    def parse(self, text: str) -> tuple[float, float]:
        """Accept two numbers with a comma between them."""
        return self.check([float(part) for part in text.split(",")])


class Choice(Rule):
    """One of some words."""

    def __init__(self, doc: str, *words: str) -> None:
        super().__init__(doc)
        #: The words.
        self.words = words

    @property
    def allowed(self) -> str:
        """The words."""
        return "one of " + ", ".join(self.words)

    def check(self, value: object) -> str:
        """Accept one of the words, spelled exactly."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(self.allowed)
        return value

    def parse(self, text: str) -> str:
        """Accept one of the words."""
        return self.check(text.strip())


def _is_plain(text: object) -> bool:
    # A NUL byte ends a string for the operating system: what follows would be dropped in silence.
    return isinstance(text, str) and text.strip() != "" and "\0" not in text


class Text(Rule):
    """A text of a certain form."""

    def __init__(self, doc: str, *, form: str = "any") -> None:
        super().__init__(doc)
        #: Name of the form: ``any``, ``class`` or ``store``.
        self.form = form
        self._form = _FORMS[form]

    @property
    def allowed(self) -> str:
        """The form, in words."""
        return self._form[0]

    def check(self, value: object) -> str:
        """Accept a text of the form that is not blank."""
        if not isinstance(value, str) or not _is_plain(value) or not self._form[1](value):
            raise ValueError(self.allowed)
        return value

    def parse(self, text: str) -> str:
        """Accept the text as it is."""
        return self.check(text)


def _names_a_class(text: str) -> bool:
    module, colon, name = text.partition(":")
    return colon == ":" and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def _names_a_store(text: str) -> bool:
    kind, colon, path = text.partition(":")
    return text == "memory" or (kind == "sqlite" and colon == ":" and path.strip() != "")


#: Forms of a text by name: what to call it, and how to know it.
_FORMS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "any": ("a text that is not blank", _is_plain),
    "class": ("a class as package.module:Class", _names_a_class),
    "store": ("memory, or sqlite:PATH", _names_a_store),
}


class Words(Rule):
    """A sequence of texts."""

    def __init__(self, doc: str, *, least: int = 0) -> None:
        super().__init__(doc)
        #: How many texts there must be at least.
        self.least = least

    @property
    def allowed(self) -> str:
        """The number of texts, in words."""
        return "a list of texts that are not blank" + (f", at least {self.least}" if self.least else "")

    def check(self, value: object) -> tuple[str, ...]:
        """Accept a tuple or list of texts; a single text is not taken apart into letters."""
        if not isinstance(value, list | tuple) or len(value) < self.least or not all(map(_is_plain, value)):
            raise ValueError(self.allowed)
        return tuple(value)

    def parse(self, text: str) -> tuple[str, ...]:
        """Accept texts with commas between them, or a JSON array where a text holds a comma."""
        if text.lstrip().startswith("["):
            return self.check(json.loads(text))
        return self.check([part.strip() for part in text.split(",")] if text.strip() else [])


class Pairs(Rule):
    """Names of environment variables with their values."""

    allowed = "names of environment variables with texts as values"
    is_secret = True

    def check(self, value: object) -> dict[str, str]:
        """Accept a mapping that the operating system can take as environment; return a copy."""
        if not isinstance(value, dict):
            raise ValueError(self.allowed)
        for name, text in value.items():
            if not _is_plain(name) or "=" in name or not isinstance(text, str) or "\0" in text:
                raise ValueError(self.allowed)
        return dict(value)

    def parse(self, text: str) -> dict[str, str]:
        """Accept ``A=1,B=2``, or a JSON object where a value holds a comma."""
        if text.lstrip().startswith("{"):
            return self.check(json.loads(text))
        parts = [part.partition("=") for part in text.split(",")] if text.strip() else []
        if not all(equals for _name, equals, _text in parts):
            raise ValueError(self.allowed)
        return self.check({name.strip(): value for name, _equals, value in parts})
