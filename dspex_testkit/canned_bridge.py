"""The commands of the DSPy bridge over canned programs: same table, same errors, no DSPy."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dspex_pool.bridge.signatures import SignatureSpec, parse_signature, validate_inputs
from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.plan import CommandFailedError, Plan
from dspex_testkit.signatures import canned_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.protocol.messages import Request

__all__ = ["PROGRAM_COMMANDS", "CannedBridge", "CannedOutputs"]

#: The commands that a worker without programs does not have.
PROGRAM_COMMANDS = (
    "configure_lm", "create_program", "execute_program", "list_programs", "get_program_info", "delete_program",
    "dump_program", "load_program", "cleanup_session", "cleanup", "reset_state",
)  # fmt: skip

#: What a program answers: outputs by field, or a function of the inputs that gives them. By signature string.
CannedOutputs: TypeAlias = "Mapping[str, Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]]"

Args: TypeAlias = dict[str, Any]

#: Module kinds, and the output that each adds before the signature's own.
_PROGRAM_TYPES: dict[str, tuple[str, ...]] = {
    "predict": (),
    "chain_of_thought": ("reasoning",),
    "react": ("trajectory", "reasoning"),
    "program_of_thought": ("generated_code",),
}


@dataclass(slots=True)
class _Program:
    """A program and how often it ran."""

    id: str
    signature: Any
    parsed: SignatureSpec
    program_type: str
    created_at: float
    state: dict[str, Any]
    execution_count: int = 0
    last_executed: float | None = None


@dataclass(slots=True)
class _Session:
    """What one session has in this worker."""

    programs: dict[str, _Program] = field(default_factory=dict)
    lm: dict[str, Any] | None = None


def _invalid(message: str) -> CommandFailedError:
    return CommandFailedError(message, type="InvalidArgument")


class CannedBridge:
    """One worker's memory and its commands.

    Programs answer from ``canned`` by their signature string; a signature that is not listed is answered with
    a value of each output's type, strings showing the first input, so that crossed answers are seen.

    Args:
        mode: ``pool-worker`` keeps programs by session, ``standalone`` has one space for all.
        worker_id: Name of the worker.
        canned: Outputs by signature string.
        clock: The time in Unix seconds.
        commands: Further commands: functions of the arguments that give a result or a ``Plan``, or raise
            ``CommandFailedError``.
    """

    def __init__(
        self,
        *,
        mode: Literal["pool-worker", "standalone"] = "pool-worker",
        worker_id: str = "w-0",
        canned: CannedOutputs | None = None,
        clock: Callable[[], float] = time.time,
        commands: Mapping[str, Callable[[Args], Any]] | None = None,
    ) -> None:
        self.mode = mode
        self.worker_id = worker_id
        self._canned = dict(canned or {})
        self._clock = clock
        self._started = clock()
        self._sessions: dict[str, _Session] = {}
        self._lm: dict[str, Any] | None = None
        self._current_session: str | None = None
        self._command_count = 0
        self._error_count = 0
        self._commands: dict[str, Callable[[Args], Any]] = {
            "ping": self._ping,
            "configure_lm": self._configure_lm,
            "create_program": self._create_program,
            "execute_program": self._execute_program,
            "list_programs": self._list_programs,
            "get_program_info": self._get_program_info,
            "delete_program": self._delete_program,
            "dump_program": self._dump_program,
            "load_program": self._load_program,
            "cleanup_session": self._cleanup_session,
            "get_stats": self._get_stats,
            "cleanup": self._cleanup,
            "reset_state": self._reset_state,
            "shutdown": self._shutdown,
            **(commands or {}),
        }

    # --- to look at ----------------------------------------------------------------------------------

    @property
    def sessions(self) -> frozenset[str]:
        """Sessions of which this worker holds a program or a language model."""
        return frozenset(key for key, session in self._sessions.items() if session.programs or session.lm)

    def model_of(self, session_id: str) -> str | None:
        """Return the name of the language model that a session's programs run on here, or ``None``."""
        session = self._sessions.get(session_id, _Session())
        lm = self._lm if session.lm is None else session.lm
        return lm["model"] if lm is not None else None

    def held(self) -> dict[str, Any]:
        """Return the sessions of which this worker holds something, each with the name of its language model."""
        return {session_id: self.model_of(session_id) for session_id in sorted(self.sessions)}

    # --- commands ------------------------------------------------------------------------------------

    def run(self, command: str, args: Args) -> Any:
        """Execute one command and return its result, or a ``Plan`` where a further command gives one.

        Raises:
            CommandFailedError: The command is unknown or cannot be executed.
        """
        self.count()
        try:
            if command not in self._commands:
                raise CommandFailedError(f"Unknown command: {command}", type="UnknownCommand")
            return self._commands[command](args)
        except CommandFailedError:
            self._error_count += 1
            raise

    def count(self) -> None:
        """Count a command that somebody else answers."""
        self._command_count += 1

    def plan(self, request: Request) -> Plan:
        """Answer ``request``: the ``Answerer`` of a ``WorkerModel``."""
        try:
            result = self.run(request.command, request.args)
        except CommandFailedError as error:
            return Plan().fail(error.message, type=error.type, **error.info)
        plan = result if isinstance(result, Plan) else Plan().reply(result)
        return plan.die(code=0) if request.command == "shutdown" else plan

    def _ping(self, args: Args) -> Args:
        result: Args = {
            "status": "ok",
            "timestamp": self._clock(),
            "uptime": self._clock() - self._started,
            "mode": self.mode,
            "dspy_available": False,
        }
        if self.mode == "pool-worker":
            result |= {"worker_id": self.worker_id, "current_session": self._current_session}
        if args.get("protocol", 1) >= 2:
            versions = {"python": "canned", "dspy": None, "bridge": "canned"}
            result |= {
                "protocol": 2,
                "pid": os.getpid(),
                "versions": versions,
                "capabilities": ["dump", "load"],
            }
        return result

    def _configure_lm(self, args: Args) -> Args:
        model = self._text(args, "model")
        key_variable = args.get("api_key_env")
        if key_variable is not None and key_variable not in os.environ:
            raise _invalid(f"environment variable {key_variable!r} (api_key_env) is not set in the worker")
        provider = args.get("provider") or model.partition("/")[0]
        lm = {"model": model, "provider": provider, "temperature": args.get("temperature")}
        if args.get("session_id") is None:
            self._lm = lm
        else:
            self._session(args).lm = lm
        return {"status": "configured", **lm}

    def _create_program(self, args: Args) -> Args:
        session = self._session(args)
        program_id = self._text(args, "id")
        if program_id in session.programs:
            message = f"Program with ID '{program_id}' already exists."
            raise CommandFailedError(message, type="ProgramExists")
        program = self._program(program_id, args, args.get("state"))
        session.programs[program_id] = program
        return {
            "program_id": program_id,
            "status": "created",
            "signature": program.signature,
            "program_type": program.program_type,
        }

    def _execute_program(self, args: Args) -> Args:
        program = self._find(args)
        inputs = args.get("inputs")
        if not isinstance(inputs, dict):
            raise _invalid("inputs is required and must be an object")
        self._check_inputs(program, inputs)
        began = self._clock()
        outputs = self._outputs(program, inputs)
        program.execution_count += 1
        program.last_executed = self._clock()
        return {"program_id": program.id, "outputs": outputs, "execution_time": program.last_executed - began}

    def _list_programs(self, args: Args) -> Args:
        programs = [
            {
                "id": program.id,
                "program_type": program.program_type,
                "created_at": program.created_at,
                "execution_count": program.execution_count,
                "last_executed": program.last_executed,
            }
            for program in self._session(args).programs.values()
        ]
        return {"programs": programs, "total_count": len(programs)}

    def _get_program_info(self, args: Args) -> Args:
        program = self._find(args)
        return {
            "program_id": program.id,
            "signature": program.signature,
            "created_at": program.created_at,
            "execution_count": program.execution_count,
            "last_executed": program.last_executed,
        }

    def _delete_program(self, args: Args) -> Args:
        program = self._find(args)
        del self._session(args).programs[program.id]
        return {"program_id": program.id, "status": "deleted"}

    def _dump_program(self, args: Args) -> Args:
        program = self._find(args)
        definition = {"signature": program.signature, "program_type": program.program_type}
        return {"program_id": program.id, "definition": definition, "state": program.state}

    def _load_program(self, args: Args) -> Args:
        session = self._session(args)
        program_id = self._text(args, "program_id")
        definition = args.get("definition")
        if not isinstance(definition, dict):
            raise _invalid("definition is required and must be an object")
        session.programs[program_id] = self._program(program_id, definition, args.get("state"))
        return {"program_id": program_id, "status": "loaded"}

    def _cleanup_session(self, args: Args) -> Args:
        session = self._session(args)
        key = self._session_key(args)
        del self._sessions[key]
        return {"status": "cleaned", "session_id": key, "programs_removed": len(session.programs)}

    def _get_stats(self, args: Args) -> Args:
        return {
            "programs_count": self._programs_count(),
            "command_count": self._command_count,
            "error_count": self._error_count,
            "uptime": self._clock() - self._started,
            "memory_usage": {},
            "dspy_available": False,
        }

    def _cleanup(self, args: Args) -> Args:
        removed = self._programs_count()
        self._sessions.clear()
        return {"status": "cleaned", "programs_removed": removed}

    def _reset_state(self, args: Args) -> Args:
        result = {
            "status": "reset",
            "programs_cleared": self._programs_count(),
            "commands_reset": self._command_count,
            "errors_reset": self._error_count,
        }
        self._sessions.clear()
        self._command_count = self._error_count = 0
        return result

    def _shutdown(self, args: Args) -> Args:
        return {
            "status": "shutting_down",
            "worker_id": self.worker_id,
            "mode": self.mode,
            "sessions_cleaned": len(self._sessions),
        }

    # --- inside --------------------------------------------------------------------------------------

    def _programs_count(self) -> int:
        return sum(len(session.programs) for session in self._sessions.values())

    def _session_key(self, args: Args) -> str:
        if self.mode == "standalone":
            return "global"
        session_id = args.get("session_id")
        if not isinstance(session_id, str) or not session_id:
            raise _invalid("session_id is required in pool-worker mode")
        return session_id

    def _session(self, args: Args) -> _Session:
        key = self._session_key(args)
        self._current_session = key
        return self._sessions.setdefault(key, _Session())

    def _find(self, args: Args) -> _Program:
        session = self._session(args)
        program_id = self._text(args, "program_id")
        if program_id not in session.programs:
            raise CommandFailedError(f"Program not found: {program_id}", type="ProgramNotFound")
        return session.programs[program_id]

    def _text(self, args: Args, name: str) -> str:
        value = args.get(name)
        if not isinstance(value, str) or not value:
            raise _invalid(f"{name} is required and must be a string")
        return value

    def _program(self, program_id: str, definition: Args, state: Any) -> _Program:
        kind = definition.get("program_type", "predict")
        if kind not in _PROGRAM_TYPES:
            known = ", ".join(_PROGRAM_TYPES)
            raise _invalid(f"program_type {kind!r} is unknown; known are {known}, or give a factory")
        if definition.get("factory") is not None:
            raise _invalid(f"factory {definition['factory']!r} is not on the allow-list of this worker")
        signature = definition.get("signature")
        try:
            parsed = parse_signature(signature)
        except InvalidArgumentError as error:
            raise _invalid(error.message) from error
        return _Program(program_id, signature, parsed, kind, self._clock(), dict(state or {}))

    def _check_inputs(self, program: _Program, inputs: Args) -> None:
        try:
            validate_inputs(program.parsed, inputs, program_id=program.id)
        except InvalidArgumentError as error:
            raise _invalid(error.message) from error

    def _outputs(self, program: _Program, inputs: Args) -> Args:
        seed = str(inputs.get(program.parsed.inputs[0].name))
        added = {name: f"{name}: {seed}" for name in _PROGRAM_TYPES[program.program_type]}
        canned = self._canned.get(program.signature) if isinstance(program.signature, str) else None
        if canned is None:
            return added | {item.name: canned_value(item, seed) for item in program.parsed.outputs}
        return added | dict(canned(inputs) if callable(canned) else canned)
