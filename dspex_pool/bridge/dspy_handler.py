"""The commands of the DSPy bridge."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

from dspex_pool.bridge.arguments import mapping, number, optional_mapping, positive_int, refusal, text
from dspex_pool.bridge.definitions import read_definition
from dspex_pool.bridge.handler import Answer, Handler, HandlerContext, command
from dspex_pool.bridge.importing import importing
from dspex_pool.bridge.lm import EXTRACTIVE_MODEL, read_settings
from dspex_pool.bridge.sessions import Program, Sessions
from dspex_pool.bridge.signatures import validate_inputs
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from dspex_pool.bridge.definitions import Definition

__all__ = ["DspyHandler", "DspyUnavailableError"]

Args = dict[str, Any]

#: What a run may change of the language model's settings.
_OPTIONS = ("temperature", "max_tokens")


class DspyUnavailableError(Exception):
    """DSPy cannot be imported in this worker."""


class DspyHandler(Handler):
    """Programs by session, and the language models they run on."""

    capabilities: ClassVar[tuple[str, ...]] = ("dump", "load", "usage")

    def __init__(self, context: HandlerContext) -> None:
        super().__init__(context)
        context.secrets.add_environment(os.environ)
        self._sessions = Sessions(context.mode)
        self._lm: Any = None
        self._dspy: ModuleType | None = None

    # --- hooks ---------------------------------------------------------------------------------------

    @classmethod
    def warm_up(cls) -> None:
        """Import DSPy and run a program: what DSPy makes at its first use is then shared by all workers."""
        worker = cls(HandlerContext())
        try:
            worker.configure_lm({"model": EXTRACTIVE_MODEL})
        except DspyUnavailableError:
            return  # a worker says so when it needs DSPy
        worker.create_program({"id": "first", "signature": "question, context -> answer"})
        inputs = {"question": "Who is here?", "context": "Ann is here. Bob is there."}
        worker.execute_program({"program_id": "first", "inputs": inputs})

    def ping_facts(self) -> Mapping[str, Any]:
        """Tell which session was served last."""
        return {"current_session": self._sessions.current} if self.context.mode == "pool-worker" else {}

    def statistics(self) -> Mapping[str, Any]:
        """Tell how many programs there are."""
        return {"programs_count": self._sessions.programs_count}

    def error_facts(self, error: BaseException) -> Mapping[str, Any]:
        """Tell what DSPy knows of an exception, if it is loaded at all."""
        return {} if self._dspy is None else self._dspy.error_facts(error)

    def close(self) -> Mapping[str, Any]:
        """Forget all sessions."""
        cleaned = len(self._sessions) if self.context.mode == "pool-worker" else 0
        self._sessions.clear()
        return {"sessions_cleaned": cleaned}

    # --- commands ------------------------------------------------------------------------------------

    @command
    def configure_lm(self, args: Args) -> Args:
        """Set the language model of a session, or of the worker if no session is named."""
        if args.get("api_key") is not None:
            self.context.secrets.add(str(args["api_key"]))
        settings = read_settings(args, os.environ)
        if settings.api_key is not None:
            self.context.secrets.add(settings.api_key)
        if settings.api_base is not None:
            self.context.secrets.add_address(settings.api_base)
        lm = self._programs().build_lm(settings, self.context.allow)
        if args.get("session_id") is None or self.context.mode == "standalone":
            self._lm = lm
        else:
            self._sessions.open(args).lm = lm
        return settings.answer()

    @command
    def create_program(self, args: Args) -> Args:
        """Make a program that the session does not have yet."""
        self._sessions.key(args)
        program_id = text(args, "id")
        self._sessions.refuse_existing(args, program_id)
        definition = read_definition(args)
        self._keep(args, program_id, definition, optional_mapping(args, "state"))
        return {
            "program_id": program_id,
            "status": "created",
            "signature": definition.signature,
            "program_type": definition.program_type,
        }

    @command
    def execute_program(self, args: Args) -> Answer:
        """Run a program."""
        program = self._sessions.find(args)
        inputs, options = mapping(args, "inputs"), _options(args)
        programs = self._programs()
        if program.spec is not None:
            validate_inputs(program.spec, inputs, program_id=program.id)
        else:
            programs.check_call(program.module, inputs, program_id=program.id)
            inputs = programs.typed(program.module, inputs)
        lm = self._lm_for(args, program)
        program.ran()
        began = time.monotonic()
        outcome = programs.run(program.module, inputs, lm=lm, options=options, settings=program.settings)
        result = {
            "program_id": program.id,
            "outputs": outcome.outputs,
            "execution_time": time.monotonic() - began,
        }
        if self.context.protocol() >= 2:
            result |= {"usage": outcome.usage, "cost": outcome.cost, "cost_reason": outcome.cost_reason}
        return Answer(result, usage=outcome.usage)

    @command
    def list_programs(self, args: Args) -> Args:
        """List the programs of the session."""
        programs = [
            {
                "id": program.id,
                "program_type": program.definition["program_type"],
                "created_at": program.created_at,
                "execution_count": program.execution_count,
                "last_executed": program.last_executed,
            }
            for program in self._sessions.look(args).programs.values()
        ]
        return {"programs": programs, "total_count": len(programs)}

    @command
    def get_program_info(self, args: Args) -> Args:
        """Describe one program."""
        program = self._sessions.find(args)
        return {
            "program_id": program.id,
            "signature": program.definition.get("signature"),
            "created_at": program.created_at,
            "execution_count": program.execution_count,
            "last_executed": program.last_executed,
        }

    @command
    def delete_program(self, args: Args) -> Args:
        """Forget one program."""
        program = self._sessions.find(args)
        del self._sessions.look(args).programs[program.id]
        return {"program_id": program.id, "status": "deleted"}

    @command
    def dump_program(self, args: Args) -> Args:
        """Return a program as JSON."""
        program = self._sessions.find(args)
        state = self._programs().dump_state(program.module)
        return {"program_id": program.id, "definition": program.definition, "state": state}

    @command
    def load_program(self, args: Args) -> Args:
        """Make a program from its JSON, in place of one of the same id."""
        self._sessions.key(args)
        program_id = text(args, "program_id")
        definition = read_definition(mapping(args, "definition"))
        self._keep(args, program_id, definition, optional_mapping(args, "state"))
        return {"program_id": program_id, "status": "loaded"}

    @command
    def cleanup_session(self, args: Args) -> Args:
        """Forget a session, its programs and its language model."""
        key, removed = self._sessions.remove(args)
        return {"status": "cleaned", "session_id": key, "programs_removed": removed}

    @command
    def cleanup(self, args: Args) -> Args:
        """Forget all sessions."""
        return {"status": "cleaned", "programs_removed": self._sessions.clear()}

    @command
    def reset_state(self, args: Args) -> Args:
        """Forget all sessions and all counts."""
        counters = self.context.counters
        result = {
            "status": "reset",
            "programs_cleared": self._sessions.clear(),
            "commands_reset": counters.command_count,
            "errors_reset": counters.error_count,
        }
        counters.command_count = counters.error_count = 0
        return result

    # --- inside --------------------------------------------------------------------------------------

    def _lm_for(self, args: Args, program: Program) -> Any:
        own = self._sessions.look(args).lm
        lm = self._lm if own is None else own
        # A factory's program may bring a model, or need none.
        if lm is None and program.definition.get("factory") is None:
            raise InvalidArgumentError(
                "no language model is configured; call configure_lm first", argument="model"
            )
        return lm

    def _keep(self, args: Args, program_id: str, definition: Definition, state: Args | None) -> None:
        programs = self._programs()
        settings: Args = {}
        module = programs.build_module(definition, self.context.allow, settings)
        if state:
            programs.load_state(module, state)
        program = Program(program_id, definition.to_json(), definition.spec, module, settings)
        self._sessions.open(args).programs[program_id] = program

    def _programs(self) -> Any:
        """Return the module that knows DSPy, and import it when it is first needed."""
        if self._dspy is None:
            # An import that is interrupted leaves half a package behind, which fails differently next time.
            with self.context.shield(), importing():
                try:
                    from dspex_pool.bridge import programs
                except ImportError as error:
                    raise DspyUnavailableError(
                        f"dspy cannot be imported in this worker ({error}); install it in the worker's Python"
                    ) from error
                programs.prepare(_route_log)
                self._dspy = programs
        return self._dspy


def _options(args: Args) -> Args:
    options = optional_mapping(args, "options") or {}
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise refusal("options", f"has no {unknown[0]!r}; known are {', '.join(_OPTIONS)}")
    given = {"temperature": number(options, "temperature"), "max_tokens": positive_int(options, "max_tokens")}
    return {name: value for name, value in given.items() if value is not None}


def _route_log(name: str) -> None:
    """Make a library's logger pass on its records instead of printing them."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
