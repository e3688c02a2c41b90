"""What a scripted worker is asked and how it answers: expectations in order, rules by command."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from dspex_testkit.plan import CommandFailedError, Plan

if TYPE_CHECKING:
    from dspex_pool.protocol.messages import Request

__all__ = [
    "Answer",
    "ArgsMatcher",
    "Expectation",
    "Script",
    "ScriptNotDrainedError",
    "Scripted",
    "UnexpectedRequestError",
]

#: What a request's arguments must be: a subset of them by name, or a predicate.
ArgsMatcher: TypeAlias = Mapping[str, Any] | Callable[[dict[str, Any]], bool]

#: A result, a ``Plan``, or a function of the arguments that returns either or raises ``CommandFailedError``.
Answer: TypeAlias = Any

#: The rule for commands that have none of their own.
ANY = "*"


class UnexpectedRequestError(AssertionError):
    """A request came that the script does not expect."""


class ScriptNotDrainedError(AssertionError):
    """The script expects requests that never came, or requests came that nobody expected."""


class Expectation(Plan):
    """One request that must come next, and what the worker then does."""

    def __init__(self, command: str, args: ArgsMatcher | None) -> None:
        super().__init__()
        _check_command(command)
        if not (args is None or callable(args) or isinstance(args, Mapping)):
            raise TypeError(
                f"the args of {command!r} are an object that must be among them, or a predicate, not {args!r}"
            )
        self.command = command
        self.args = args

    def matches(self, request: Request) -> bool:
        """Tell whether ``request`` is the one that is expected."""
        if request.command != self.command:
            return False
        if self.args is None:
            return True
        if callable(self.args):
            return bool(self.args(request.args))
        missing = object()
        return all(request.args.get(name, missing) == value for name, value in self.args.items())

    def __str__(self) -> str:
        if self.args is None:
            return self.command
        if callable(self.args):
            return f"{self.command} with args that satisfy {getattr(self.args, '__name__', self.args)}"
        return f"{self.command} with at least {dict(self.args)!r}"


def _check_command(command: object) -> None:
    if not isinstance(command, str):
        raise TypeError(f"a command is named by a text, such as 'echo', not {command!r}")


def plan_of(answer: Answer, args: dict[str, Any]) -> Plan:
    """Turn an answer into a plan.

    Raises:
        Exception: What an answering function raises; ``CommandFailedError`` becomes a failure instead.
    """
    if callable(answer):
        try:
            answer = answer(args)
        except CommandFailedError as error:
            return Plan().fail(error.message, type=error.type, **error.info)
    return answer if isinstance(answer, Plan) else Plan().reply(answer)


class Script:
    """The expectations and rules of one worker.

    Args:
        owner: Name of the worker, for messages.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        #: Expectations that were not met yet.
        self.left: deque[Expectation] = deque()
        #: Requests that nobody expected.
        self.unexpected: list[Request] = []
        self._rules: dict[str, Answer] = {}
        self._handshake: Answer = self._hello
        self._rest: Callable[[Request], Plan] | None = None

    def expect(self, command: str, args: ArgsMatcher | None = None) -> Expectation:
        """Expect ``command`` after all that is expected already, and return its plan, still empty."""
        expectation = Expectation(command, args)
        self.left.append(expectation)
        return expectation

    def answer(self, command: str, answer: Answer) -> None:
        """Answer every ``command`` (``"*"``: every other one) with ``answer``."""
        _check_command(command)
        self._rules[command] = answer

    def answer_handshake(self, answer: Answer) -> None:
        """Answer the first ping with ``answer``."""
        self._handshake = answer

    def answer_rest(self, answerer: Callable[[Request], Plan]) -> None:
        """Answer by ``answerer`` what neither an expectation nor a rule takes."""
        if not callable(answerer):
            raise TypeError(f"the rest is answered by a function of the request, not by {answerer!r}")
        self._rest = answerer

    def plan(self, request: Request) -> Plan:
        """Return what is to be done for ``request``.

        Raises:
            UnexpectedRequestError: Neither an expectation nor a rule fits.
        """
        if request.command == "ping" and request.args.get("initialization") is True:
            return plan_of(self._handshake, request.args)
        if self.left and self.left[0].matches(request):
            return self.left.popleft()
        rule = request.command if request.command in self._rules else ANY
        if rule in self._rules:
            return plan_of(self._rules[rule], request.args)
        if self._rest is not None:
            return self._rest(request)
        self.unexpected.append(request)
        raise UnexpectedRequestError(self._complaint(request))

    def assert_drained(self) -> None:
        """Check that every expected request came, and no other.

        Raises:
            ScriptNotDrainedError: With what is left, and what came unexpectedly.
        """
        problems = [f"  expected, never came: {expectation}" for expectation in self.left]
        problems += [f"  came, not expected:   {_show(request)}" for request in self.unexpected]
        if problems:
            raise ScriptNotDrainedError("\n".join([f"the script of {self.owner} is not drained", *problems]))

    def _complaint(self, request: Request) -> str:
        expected = str(self.left[0]) if self.left else "nothing more"
        return (
            f"{self.owner} got a request that its script does not expect\n"
            f"  expected: {expected}\n  came:     {_show(request)}"
        )

    def _hello(self, args: dict[str, Any]) -> dict[str, Any]:
        hello: dict[str, Any] = {
            "status": "ok",
            "timestamp": 0.0,
            "uptime": 0.0,
            "mode": "pool-worker",
            "dspy_available": False,
            "worker_id": args.get("worker_id"),
            "current_session": None,
        }
        if args.get("protocol", 1) >= 2:
            versions = {"python": "mock", "dspy": None, "bridge": "mock"}
            hello |= {"protocol": 2, "pid": None, "versions": versions, "capabilities": []}
        return hello


class Scripted:
    """What has a script and lets the test write it.

    Args:
        script: The script.
    """

    def __init__(self, script: Script) -> None:
        self.script = script

    def expect(self, command: str, args: ArgsMatcher | None = None) -> Expectation:
        """Expect ``command`` next, with at least ``args`` or with arguments that satisfy the predicate ``args``.

        Returns:
            The plan, to be filled: ``expect("ping").after(1).reply({})``.
        """
        return self.script.expect(command, args)

    def answer(self, command: str, answer: Answer) -> Self:
        """Answer every ``command`` (``"*"``: every other one), as often as it comes.

        ``answer`` is the result, a ``Plan``, or a function of the arguments that returns either or raises
        ``CommandFailedError``.
        """
        self.script.answer(command, answer)
        return self

    def answer_handshake(self, answer: Answer) -> Self:
        """Answer the first ping with ``answer``; ``Plan().stall()`` hangs in the handshake."""
        self.script.answer_handshake(answer)
        return self

    def answer_rest(self, answerer: Callable[[Request], Plan]) -> Self:
        """Answer what nothing else takes by ``answerer``, as ``CannedBridge().plan`` answers DSPy's commands."""
        self.script.answer_rest(answerer)
        return self

    def assert_drained(self) -> None:
        """Check that every expected request came, and no other.

        Raises:
            ScriptNotDrainedError: With what is left, and what came unexpectedly.
        """
        self.script.assert_drained()


def _show(request: Request) -> str:
    return f"{request.command} (id {request.id}) with {request.args!r}"
