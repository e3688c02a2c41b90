"""DSPy itself: language models, modules, their runs and their state.

It and what it imports are the only modules of the bridge that import DSPy when they are imported. Whoever needs it
imports it late.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# litellm would fetch a price list from the network when it is first used.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

import dspy  # reads the environment

from dspex_pool.bridge.awaited_engine import AwaitedEngine
from dspex_pool.bridge.extractive import ExtractiveEngine
from dspex_pool.bridge.factory_inputs import check_call, is_synchronous, typed
from dspex_pool.bridge.handler import import_allowed
from dspex_pool.bridge.ledger import Ledger
from dspex_pool.bridge.lm import EXTRACTIVE_ENGINE
from dspex_pool.bridge.own_settings import own_settings
from dspex_pool.bridge.plain import plain, shown_steps
from dspex_pool.bridge.secrets import without_secrets
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dspex_pool.bridge.definitions import Definition
    from dspex_pool.bridge.lm import LMSettings
    from dspex_pool.bridge.signatures import FieldSpec, SignatureSpec

__all__ = [
    "Outcome",
    "build_lm",
    "build_module",
    "check_call",
    "dump_state",
    "error_facts",
    "load_state",
    "prepare",
    "run",
    "typed",
]

# The key of DSPy's cache ignores endpoint and API key: one tenant would be given another's answers.
_NO_CACHE = {"enable_disk_cache": False, "enable_memory_cache": False}

# What importing a module of the allow-list has told ``dspy.configure``, by its name: it is imported only once.
_changed_by_import: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave."""

    #: Output values by name.
    outputs: dict[str, Any]
    #: Tokens by model, as DSPy counts them.
    usage: dict[str, Any]
    #: US dollars, or ``None``.
    cost: float | None
    #: Why the cost is ``None``.
    cost_reason: str | None


class Tokens(dspy.utils.usage_tracker.UsageTracker):  # type: ignore[misc] # dspy has no types
    """The tokens of a run.

    DSPy gives each of its threads a deep copy, in which what they use would be lost.
    """

    def __deepcopy__(self, memo: object) -> Tokens:
        return self


class MeteredLM(dspy.LM):  # type: ignore[misc] # dspy has no types
    """A language model whose calls are entered in the ledger of the run they belong to.

    DSPy tells the cost of a call in its history only. So the history is on during the call itself, and what
    would be kept there is entered instead.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with dspy.context(disable_history=False):
            return super().__call__(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        with dspy.context(disable_history=False):
            return await super().acall(*args, **kwargs)

    def dump_state(self) -> None:
        """Return nothing: the model of a session is no part of a program that has kept it."""

    def update_history(self, entry: Mapping[str, Any]) -> None:
        """Enter the call in the ledger, and keep nothing."""
        ledger = dspy.settings.get("dspex_ledger")
        if ledger is not None:
            ledger.enter(entry)


def prepare(route_log: Callable[[str], None]) -> None:
    """Set up DSPy for this worker, once.

    Args:
        route_log: Makes the logger of a name pass its records on to the worker's log.
    """
    dspy.configure_cache(**_NO_CACHE)
    route_log("dspy")


def _import(name: str, allow: Sequence[str], *, argument: str, settings: dict[str, Any]) -> Any:
    changed = _changed_by_import.setdefault(name.partition(":")[0], {})
    with own_settings(changed):
        found = import_allowed(name, allow, argument=argument)
    settings |= changed
    return found


def build_lm(settings: LMSettings, allow: Sequence[str]) -> Any:
    """Make a language model.

    Raises:
        InvalidArgumentError: DSPy refuses the settings, or the engine is not on the allow-list.
    """
    options: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if settings.api_key is not None:
        options["api_key"] = settings.api_key
    if settings.api_base is not None:
        options["api_base"] = settings.api_base
    try:
        engine = _engine(settings.engine, allow)
        if not isinstance(engine, str):
            options["async_engine"] = AwaitedEngine(engine)
        return MeteredLM(settings.qualified_model, cache=False, engine=engine, **options)
    except InvalidArgumentError:
        raise
    except (TypeError, ValueError, dspy.LMError) as error:
        raise InvalidArgumentError(
            f"the language model cannot be configured: {error}", argument="model"
        ) from error


def _engine(name: str, allow: Sequence[str]) -> Any:
    if name == EXTRACTIVE_ENGINE:
        return ExtractiveEngine()
    return import_allowed(name, allow, argument="engine")() if ":" in name else name


def build_module(definition: Definition, allow: Sequence[str], settings: dict[str, Any]) -> Any:
    """Make the module of a program.

    Args:
        definition: How.
        allow: Prefixes of the modules that names may lead to.
        settings: Takes what the program's code tells ``dspy.configure``, for its runs.

    Raises:
        InvalidArgumentError: A name is not on the allow-list, or DSPy refuses the signature.
    """
    if definition.factory is not None:
        return _from_factory(definition.factory, allow, settings)
    assert definition.spec is not None, "a definition without a factory has a signature"
    signature = build_signature(definition.spec)
    limit = {} if definition.max_iters is None else {"max_iters": definition.max_iters}
    match definition.program_type:
        case "predict":
            return dspy.Predict(signature)
        case "chain_of_thought":
            return dspy.ChainOfThought(signature)
        case "react":
            tools = [_tool(name, allow, settings) for name in definition.tools]
            return dspy.ReAct(signature, tools, **limit)
        case _:
            return dspy.ProgramOfThought(signature, **limit)


def build_signature(spec: SignatureSpec) -> Any:
    """Make DSPy's signature.

    Raises:
        InvalidArgumentError: DSPy refuses a name.
    """
    fields = {item.name: (item.annotation or str, _field(dspy.InputField, item)) for item in spec.inputs}
    fields |= {item.name: (item.annotation or str, _field(dspy.OutputField, item)) for item in spec.outputs}
    named = {} if spec.name is None else {"signature_name": spec.name}
    try:
        return dspy.Signature(fields, spec.description, **named)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidArgumentError(
            f"signature cannot be used with DSPy: {error}", argument="signature"
        ) from error


def _field(make: Callable[..., Any], item: FieldSpec) -> Any:
    options: dict[str, Any] = {"desc": item.description} if item.description else {}
    if make is dspy.InputField and item.annotation is None:
        options["IS_TYPE_UNDEFINED"] = True  # as DSPy marks the untyped inputs of a string
    return make(**options)


def _tool(name: str, allow: Sequence[str], settings: dict[str, Any]) -> Any:
    function = _import(name, allow, argument="tools", settings=settings)
    if not callable(function):
        raise InvalidArgumentError(f"tools: {name!r} is no function", argument="tools")
    return function


def _from_factory(name: str, allow: Sequence[str], settings: dict[str, Any]) -> Any:
    factory = _import(name, allow, argument="factory", settings=settings)
    if not callable(factory):
        raise InvalidArgumentError(f"factory {name!r} is no function", argument="factory")
    with own_settings(settings):
        module = factory()
    if not isinstance(module, dspy.Module):
        raise InvalidArgumentError(
            f"factory {name!r} returned a {type(module).__name__}, not a dspy.Module", argument="factory"
        )
    if not is_synchronous(module) and not hasattr(type(module), "aforward"):
        raise InvalidArgumentError(
            f"factory {name!r} returned a {type(module).__name__}, which has no forward and no aforward",
            argument="factory",
        )
    return module


def run(
    module: Any,
    inputs: Mapping[str, Any],
    *,
    lm: Any,
    options: Mapping[str, Any],
    settings: dict[str, Any],
) -> Outcome:
    """Run a module.

    Args:
        module: The module.
        inputs: Its inputs by name.
        lm: The language model, or ``None`` for the one in ``settings``, if any.
        options: Settings of the model for this run: ``temperature``, ``max_tokens``.
        settings: What the program has told ``dspy.configure``; takes what it tells it now.

    Raises:
        InvalidArgumentError: The options would change nothing.
        Exception: Whatever the module raises.
    """
    if options:
        lm = _with_options(module, settings.get("lm") if lm is None else lm, options)
    ledger = Ledger()
    # An empty context for each run: a cancelled one may have left DSPy's settings behind, another tenant's model
    # among them.
    context = contextvars.Context()
    try:
        prediction, usage = context.run(_run, module, inputs, lm, ledger, settings)
    except KeyboardInterrupt as error:
        # Generators that were cut short end here, in the context that they know, and not as somebody's garbage.
        context.run(traceback.clear_frames, error.__traceback__)
        raise
    cost, reason = ledger.total(list(usage))
    return Outcome(_outputs(prediction), usage, cost, reason)


def _with_options(module: Any, lm: Any, options: Mapping[str, Any]) -> Any:
    # A session's model that the program took in an earlier run is none of its own: it takes the next one, too.
    own = [asker.lm is not None and not isinstance(asker.lm, MeteredLM) for asker in module.predictors()]
    if lm is None or (own and all(own)):
        raise InvalidArgumentError(
            "options would change nothing: the program asks its own model alone, or none",
            argument="options",
        )
    return lm.copy(**options)


def _run(
    module: Any, inputs: Mapping[str, Any], lm: Any, ledger: Ledger, settings: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    tokens = Tokens()
    own = {"usage_tracker": tokens, "dspex_ledger": ledger} | ({} if lm is None else {"lm": lm})
    # A tool may be a coroutine function: nobody but the worker could await it.
    own["allow_tool_async_sync_conversion"] = True
    with own_settings(settings), dspy.context(**own, disable_history=True, trace=[]):
        prediction = module(**inputs) if is_synchronous(module) else asyncio.run(module.acall(**inputs))
    return prediction, tokens.get_total_tokens()


def _outputs(prediction: Any) -> dict[str, Any]:
    if isinstance(prediction, dspy.Prediction):
        prediction = dict(prediction.items())
    if not isinstance(prediction, Mapping):
        kind = type(prediction).__name__
        raise TypeError(f"the program returned a {kind}; it must return a dspy.Prediction or a mapping")
    return {
        name: shown_steps(value) if name == "trajectory" else plain(value)
        for name, value in prediction.items()
    }


def dump_state(module: Any) -> dict[str, Any]:
    """Return the state of a module as DSPy's JSON: instructions, field texts, demonstrations. No secrets."""
    state = without_secrets(plain(module.dump_state()))
    assert isinstance(state, dict)
    return state


def load_state(module: Any, state: Mapping[str, Any]) -> None:
    """Give a module a state that ``dump_state`` returned.

    Raises:
        InvalidArgumentError: The state is of another program, or names classes to be imported.
    """
    try:
        module.load_state(dict(state))
    except Exception as error:
        raise InvalidArgumentError(
            f"state does not fit the program: {type(error).__name__}: {error}", argument="state"
        ) from error


def error_facts(error: Any) -> dict[str, Any]:
    """Return what DSPy knows about one of its exceptions: ``code``, ``status``, ``retry_after``, ``retryable``."""
    if not isinstance(error, dspy.DSPyError):
        return {}
    return {
        "code": error.code,
        "status": error.status,
        "retry_after": error.retry_after,
        "retryable": dspy.is_retryable_lm_error(error),
    }
