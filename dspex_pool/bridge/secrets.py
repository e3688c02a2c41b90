"""Values that must not appear in anything the worker says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Secrets", "without_secrets"]

_MASK = "[secret]"
# Shorter ones are words of ordinary text; masking them would garble messages and protect nothing.
_MIN_CHARS = 8
# Settings of a language model that are secrets by their names, unless they are numbers, as ``max_tokens`` is.
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|header|cookie", re.I)
# Variables of an environment that hold a secret, by their names.
_SECRET_VARIABLE = re.compile(r"(?:.*_)?TOKEN|.*(?:API_?KEY|ACCESS_KEY|SECRET(?:_KEY)?|PASSWORD)", re.I)
# Who asks, in an address.
_WHO_ASKS = re.compile(r"(?<=://)[^/?#]*(?=@)")
# What may be secret in an address: who asks, and with what.
_SECRET_IN_URL = re.compile(r"(?<=://)[^/?#]*@|\?[^#]*")
# What DSPy writes into the state of a language model, and nowhere else.
_LM_MARK = "_dspy_lm_class"


class Secrets:
    """The secret values this worker was told."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def add(self, value: str) -> None:
        """Remember one value, and how it looks in quotes and without the white space around it."""
        for bare in (value, value.strip()):
            for form in (bare, repr(bare)[1:-1]):
                if len(form) >= _MIN_CHARS and form not in self._values:
                    self._values.append(form)
        # A key may begin with another key.
        self._values.sort(key=len, reverse=True)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Remember what an environment holds of secrets: libraries take keys from there that nobody names to us."""
        for name, value in environment.items():
            if _SECRET_VARIABLE.fullmatch(name):
                self.add(value)

    def add_address(self, address: str) -> None:
        """Remember name and password of an address that has them, as ``http://name:password@host``."""
        for who in _WHO_ASKS.findall(address):
            self.add(who)
            self.add(who.rpartition(":")[2])

    def mask(self, text: str) -> str:
        """Return ``text`` with every secret value replaced."""
        for value in self._values:
            text = text.replace(value, _MASK)
        return text


def without_secrets(state: Any) -> Any:
    """Return the JSON state of a program without what its language models must not tell.

    DSPy leaves out ``api_key`` alone.
    """
    if isinstance(state, list):
        return [without_secrets(item) for item in state]
    if not isinstance(state, dict):
        return state
    if _LM_MARK in state:
        return _harmless(state)
    return {name: without_secrets(item) for name, item in state.items()}


def _harmless(setting: Any) -> Any:
    if isinstance(setting, str):
        return _SECRET_IN_URL.sub("", setting) if "://" in setting else setting
    if isinstance(setting, list):
        return [_harmless(item) for item in setting]
    if not isinstance(setting, dict):
        return setting
    return {
        name: _harmless(item)
        for name, item in setting.items()
        if not _SECRET_NAME.search(name) or isinstance(item, int | float | None)
    }
