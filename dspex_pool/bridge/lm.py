"""What a language model is configured with, checked before DSPy sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.arguments import number, optional_text, positive_int, refusal, text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXTRACTIVE_ENGINE", "EXTRACTIVE_MODEL", "LMSettings", "read_settings"]

#: Name of the engine that needs no network.
EXTRACTIVE_ENGINE = "extractive"
#: The only model of that engine.
EXTRACTIVE_MODEL = "dspex/extractive"
_DSPY_ENGINES = ("auto", "lm15", "litellm")

#: Providers whose models have another prefix than the provider's name.
_PREFIXES = {"google": "gemini"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LMSettings:
    """One language model, as ``configure_lm`` describes it."""

    #: The model as the caller names it.
    model: str
    #: Its provider.
    provider: str
    #: The model as DSPy names it, ``provider/model``.
    qualified_model: str
    #: The key itself. Neither told nor stored.
    api_key: str | None = field(default=None, repr=False)
    #: Where the provider is reached, or ``None`` for its usual address.
    api_base: str | None = None
    #: Sampling temperature, or ``None`` for the provider's default.
    temperature: float | None = None
    #: Most tokens of an answer, or ``None`` for the provider's default.
    max_tokens: int | None = None
    #: ``extractive``, one of DSPy's own, or ``package.module:Class`` of the allow-list.
    engine: str = "auto"

    def answer(self) -> dict[str, Any]:
        """Return the result of ``configure_lm``."""
        return {
            "status": "configured",
            "model": self.model,
            "provider": self.provider,
            "temperature": self.temperature,
        }


def read_settings(args: Mapping[str, Any], environment: Mapping[str, str]) -> LMSettings:
    """Read the args of ``configure_lm``.

    Args:
        args: The args.
        environment: Where ``api_key_env`` is looked up.

    Raises:
        InvalidArgumentError: An argument is missing or cannot be used.
    """
    engine = _engine(args)
    is_extractive = engine == EXTRACTIVE_ENGINE
    model = EXTRACTIVE_MODEL if is_extractive else text(args, "model")
    key = _api_key(args, environment)
    prefix, slash, _ = model.partition("/")
    provider = optional_text(args, "provider") or (prefix if slash else "openai")
    return LMSettings(
        model=model,
        provider=provider,
        qualified_model=model if slash else f"{_PREFIXES.get(provider, provider)}/{model}",
        # The extractive engine runs in this process: nobody is there to show a key to.
        api_key=None if is_extractive else key,
        api_base=None if is_extractive else optional_text(args, "api_base"),
        temperature=number(args, "temperature"),
        max_tokens=positive_int(args, "max_tokens"),
        engine=engine,
    )


def _engine(args: Mapping[str, Any]) -> str:
    """Return the engine's name. The extractive model and the extractive engine mean each other."""
    model = optional_text(args, "model")
    engine = optional_text(args, "engine") or (EXTRACTIVE_ENGINE if model == EXTRACTIVE_MODEL else "auto")
    if engine == EXTRACTIVE_ENGINE:
        if model not in (None, EXTRACTIVE_MODEL):
            raise refusal("engine", f"'extractive' serves the model {EXTRACTIVE_MODEL!r} only, not {model!r}")
    elif model == EXTRACTIVE_MODEL:
        raise refusal("engine", f"{engine!r} does not serve the model {EXTRACTIVE_MODEL!r}")
    elif engine not in _DSPY_ENGINES and ":" not in engine:
        known = ", ".join((EXTRACTIVE_ENGINE, *_DSPY_ENGINES))
        raise refusal("engine", f"{engine!r} is unknown; known are {known}, and package.module:Class")
    return engine


def _api_key(args: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    key, variable = optional_text(args, "api_key"), optional_text(args, "api_key_env")
    if variable is None:
        return key
    if key is not None:
        raise refusal("api_key_env", "and api_key are both given; give one")
    if not environment.get(variable):
        raise refusal("api_key_env", f"names {variable!r}, which is not set in the worker's environment")
    return environment[variable]
